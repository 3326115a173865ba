"""Tables of times: this machine's, measured, and a kit that measures a device's."""

from distillnet.deploy.timings.kit import write_kit
from distillnet.deploy.timings.measuring import measure_times

__all__ = ["measure_times", "write_kit"]
