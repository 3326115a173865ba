"""A network as C that skips what a mission does not need: no runtime, no allocation.

``lower`` turns a graph into steps, ``placing`` and ``arena`` say where values lie, ``packing`` lays
weights out, ``spans`` turns bitmaps into what is computed, ``emit`` and ``folder`` write C around
the kernels in ``kernels/``, ``native`` compiles and calls it.
"""

from distillnet.engine.emit import MissionBits
from distillnet.engine.folder import check_prefix, identifier, test_image, write_folder
from distillnet.engine.missions import compact_mission, switchable, switchable_mission
from distillnet.engine.native import Native, build_native, compiler
from distillnet.engine.placing import compile_graph
from distillnet.engine.steps import Program

__all__ = [
    "MissionBits",
    "Native",
    "Program",
    "build_native",
    "check_prefix",
    "compact_mission",
    "compile_graph",
    "compiler",
    "identifier",
    "switchable",
    "switchable_mission",
    "test_image",
    "write_folder",
]
