"""A network as C that skips what a mission does not need: no runtime, no allocation.

``missions`` is the way in. ``need`` and ``ordering`` make masks cheap, ``lower`` turns a graph into
steps and ``settings`` tells their kernels what to do, ``placing`` and ``arena`` say where values
lie, ``packing`` lays weights out, ``spans`` turns bitmaps into what is computed, ``emit`` and
``folder`` write C around the kernels in ``kernels/``, ``native`` compiles and calls it.
"""

from distillnet.engine.folder import check_prefix, identifier, noise_image, write_folder
from distillnet.engine.missions import (
    LAYOUT,
    LayerRefit,
    Layout,
    MissionPlan,
    Prepared,
    compile_compact,
    compile_loadable,
    compile_switchable,
    macs_in_c,
    mission_block,
    prepare_compact,
    prepare_switchable,
    read_layout,
)
from distillnet.engine.native import COMPILERS, Native, build_native, compiler
from distillnet.engine.spans import computed_macs
from distillnet.engine.steps import MissionBits, Program

__all__ = [
    "COMPILERS",
    "LAYOUT",
    "LayerRefit",
    "Layout",
    "MissionBits",
    "MissionPlan",
    "Native",
    "Prepared",
    "Program",
    "build_native",
    "check_prefix",
    "compile_compact",
    "compile_loadable",
    "compile_switchable",
    "compiler",
    "computed_macs",
    "identifier",
    "macs_in_c",
    "mission_block",
    "noise_image",
    "prepare_compact",
    "prepare_switchable",
    "read_layout",
    "write_folder",
]
