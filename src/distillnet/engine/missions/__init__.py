"""Missions of a program: with it (``compiling``), and later, as blocks of bytes (``blocks``)."""

from distillnet.engine.missions.blocks import mission_block
from distillnet.engine.missions.compiling import (
    MissionPlan,
    Prepared,
    compile_compact,
    compile_loadable,
    compile_switchable,
    macs_in_c,
    prepare_compact,
    prepare_switchable,
)
from distillnet.engine.missions.layout import LAYOUT, Layout, read_layout
from distillnet.engine.missions.refits import LayerRefit

__all__ = [
    "LAYOUT",
    "LayerRefit",
    "Layout",
    "MissionPlan",
    "Prepared",
    "compile_compact",
    "compile_loadable",
    "compile_switchable",
    "macs_in_c",
    "mission_block",
    "prepare_compact",
    "prepare_switchable",
    "read_layout",
]
