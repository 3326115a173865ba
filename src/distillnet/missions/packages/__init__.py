"""Missions as signed files over one set of weights, and a runtime that holds several.

``graphs`` is the shared file, ``package`` what a mission changes of it, ``signing`` Ed25519,
``device`` what a device takes and refuses, ``runtime`` runs them, ``blocks`` is for those in C.
"""

from distillnet.missions.packages.blocks import block_of_package
from distillnet.missions.packages.device import (
    WEIGHTS,
    Opened,
    apply_package,
    diff_packages,
    open_package,
    pack_mission,
    shared_weights,
)
from distillnet.missions.packages.graphs import Base, read_base
from distillnet.missions.packages.package import check_name
from distillnet.missions.packages.runtime import Missions
from distillnet.missions.packages.signing import new_keys, read_public

__all__ = [
    "WEIGHTS",
    "Base",
    "Missions",
    "Opened",
    "apply_package",
    "block_of_package",
    "check_name",
    "diff_packages",
    "new_keys",
    "open_package",
    "pack_mission",
    "read_base",
    "read_public",
    "shared_weights",
]
