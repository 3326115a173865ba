"""The slides' metrics of a running network: frames a second, share of the peak, energy a frame."""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ASSUMPTIONS",
    "HIT_RATE",
    "add_metrics",
    "energy_mj",
    "mac_energy_pj",
    "multiplication_share",
]

# At 45 nm, 32 bits, as the paper takes them from Han et al.: an operation, a cache access and a
# DRAM access.
_OPERATION_PJ, _CACHE_PJ, _DRAM_PJ = 1.0, 6.0, 640.0
HIT_RATE = 0.95  # the paper's example

ASSUMPTIONS = (
    f"45 nm, 32 bits, {_OPERATION_PJ:g} pJ an operation, {_CACHE_PJ:g} pJ a cache access and "
    f"{_DRAM_PJ:g} pJ a DRAM access, one operand loaded for each multiply-add, all else free"
)


def mac_energy_pj(hit_rate: float = HIT_RATE) -> float:
    """Picojoules of a multiply-add whose weight is found in the cache with this probability.

    The denominator of the paper's Eq. 11.

    >>> round(mac_energy_pj(0.95), 1)
    38.7
    """
    return _OPERATION_PJ + hit_rate * _CACHE_PJ + (1 - hit_rate) * _DRAM_PJ


def multiplication_share(hit_rate: float = HIT_RATE) -> float:
    """The share of that energy that skipping the multiplication alone would save (Eq. 11).

    >>> f"{100 * multiplication_share(0.95):.2f} %"
    '2.58 %'
    """
    return _OPERATION_PJ / mac_energy_pj(hit_rate)


def energy_mj(macs: float, hit_rate: float = HIT_RATE) -> float:
    """Estimated millijoules of a frame that takes ``macs``, under ``ASSUMPTIONS``."""
    return macs * mac_energy_pj(hit_rate) * 1e-9


def add_metrics(
    bench: dict[str, Any], macs: Mapping[str, int], peak_macs_s: float, hit_rate: float = HIT_RATE
) -> None:
    """Add the metrics to the content of a ``bench.json``, in place.

    Args:
        macs: of an image, by the name that entries have for the network.
        peak_macs_s: what the machine's processor can do a second, see ``meters``.
    """
    for entry in bench["entries"]:
        frames_s = 1e3 * entry["batch"] / entry["median_ms"]
        entry["frames_per_s"] = frames_s
        entry["share_of_peak"] = frames_s * macs[entry["network"]] / peak_macs_s
    bench["peak_gmacs_per_s"] = peak_macs_s / 1e9
    bench["energy"] = {
        "estimate_mj": {name: energy_mj(count, hit_rate) for name, count in macs.items()},
        "hit_rate": hit_rate,
        "assumptions": ASSUMPTIONS,
    }
