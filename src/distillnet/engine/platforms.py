"""What makes a folder of C a component, module or library of a firmware's own build system.

One folder serves them all: ESP-IDF reads ``CMakeLists.txt``, Zephyr ``zephyr/module.yml``, Arduino
``library.properties`` and ``src``. None of them needs a copy of the code.
"""

from collections.abc import Mapping, Sequence

from distillnet.engine.emit import fill_template

__all__ = ["platform_files"]

_TEMPLATES = {
    "zephyr/module.yml": "zephyr_module.yml",
    "zephyr/CMakeLists.txt": "zephyr_CMakeLists.txt",
    "zephyr/Kconfig": "zephyr_Kconfig",
    "library.properties": "library.properties",
}


def platform_files(units: Sequence[str], values: Mapping[str, object]) -> dict[str, str]:
    """Files by their path in the folder.

    Args:
        units: the folder's C files without ``.c``, but for the test.
        values: what templates are filled with.
    """
    beside = {"UNITS": "\n".join(f"    ../{unit}.c" for unit in units)}
    written = {path: fill_template(name, {**values, **beside}) for path, name in _TEMPLATES.items()}
    # Arduino compiles what lies in ``src``, and looks for headers there alone.
    head = f"/* {values['BANNER']} */\n"
    written[f"src/{values['NAME']}.h"] = f'{head}#include "../model.h"\n'
    for unit in units:
        name = unit.replace("/", "_")
        written[f"src/{values['NAME']}_{name}.c"] = f'{head}#include "../{unit}.c"\n'
    return written
