"""The engine in eight bits: every number between layers is a byte, and all arithmetic is whole.

``calibration`` finds the range of each value on images, ``scales`` says which bytes stand for
which numbers, ``layers`` which whole numbers for filters, ``quantise`` turns the steps of a
network into whole-number ones, which ``reference`` carries out in NumPy; ``packing``, ``emit``,
``missions`` and ``folder`` write them as C around the kernels in ``kernels/``. The two agree in
every bit.
"""

from distillnet.engine.int8.calibration import CALIBRATIONS, Ranges, find_ranges, united
from distillnet.engine.int8.folder import write_int8_folder
from distillnet.engine.int8.missions import unit_of
from distillnet.engine.int8.packing import Pixels
from distillnet.engine.int8.quantise import Quantised, quantise
from distillnet.engine.int8.reference import reference_scores

__all__ = [
    "CALIBRATIONS",
    "Pixels",
    "Quantised",
    "Ranges",
    "find_ranges",
    "quantise",
    "reference_scores",
    "unit_of",
    "united",
    "write_int8_folder",
]
