"""Atlases of sums alone, with calibrated noise in them: what may leave a device.

``gaussian`` draws the noise and says how much an epsilon takes, ``vectors`` turns an image into the
numbers that are summed, of a length that no image exceeds, ``notes`` is the file that tells of it,
``collecting`` writes such an atlas and ``adding`` makes one of several. docs/privacy.md has what
it costs in accuracy.
"""

from distillnet.missions.noise.adding import add_noisy
from distillnet.missions.noise.collecting import collect_noisy, noisy_atlas
from distillnet.missions.noise.gaussian import epsilon_of, rho_for
from distillnet.missions.noise.notes import NOISE, Noise, read_noise
from distillnet.missions.noise.vectors import Layout, SumVectors

__all__ = [
    "NOISE",
    "Layout",
    "Noise",
    "SumVectors",
    "add_noisy",
    "collect_noisy",
    "epsilon_of",
    "noisy_atlas",
    "read_noise",
    "rho_for",
]
