"""The folder that ``export --format c`` writes."""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.emit import fill_template, model_source
from distillnet.engine.flash import Flash, flash_source
from distillnet.engine.literals import byte_text, c_text
from distillnet.engine.missions.layout import LAYOUT, Layout
from distillnet.engine.missions.loader import loader_header, loader_source
from distillnet.engine.missions.source import Numbers, mission_source
from distillnet.engine.platforms import platform_files
from distillnet.engine.preprocess import preprocess_values
from distillnet.engine.steps import MissionBits, Program
from distillnet.errors import InputError
from distillnet.images.preprocessing import Preprocessing

__all__ = ["check_prefix", "identifier", "noise_image", "write_folder"]

Floats = NDArray[np.float32]
_LARGEST_ARRAY = 8_000_000  # bytes
_MOST_OF_A_BYTE = 255
_KEYWORDS = frozenset(
    """auto break case char const continue default do double else enum extern float for goto if
    inline int long main register restrict return short signed sizeof static struct switch typedef
    union unsigned void volatile while""".split()  # noqa: SIM905
)
_RESERVED = _KEYWORDS | {"all", "clean", "help", "install", "package", "test"}  # CMake's targets


def check_prefix(prefix: str) -> None:
    """Raise InputError where a prefix cannot begin names in C.

    >>> check_prefix("birds")
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,31}", prefix) or prefix in _RESERVED:
        raise InputError(
            f"found the prefix {prefix!r}; expected a letter, then letters, digits or underscores, "
            "32 at most and no word of C or CMake's; choose another --prefix"
        )


def identifier(name: str, taken: Sequence[str] = ()) -> str:
    """A name that C takes, unlike those that are taken, also in capitals, as macros have it.

    >>> identifier("day 1"), identifier("day-1", ["day_1"]), identifier("1")
    ('day_1', 'day_1_2', 'm1')
    >>> identifier("Day", ["day"]), identifier("day_n", ["day"])  # DAY_N_CLASSES is of day
    ('Day_2', 'day_n_2')
    """
    base = re.sub(r"\W", "_", name, flags=re.ASCII)[:40] or "m"
    base = base if base[0].isalpha() else f"m{base}"
    result, n = base, 1
    macros = {macro for other in taken for macro in _macros(other)}
    while macros & _macros(result):
        n += 1
        result = f"{base}_{n}"
    return result


def _macros(mission: str) -> set[str]:
    """What the macros of a mission are called after the prefix; see ``_class_names``."""
    return {f"{mission}{ending}".upper() for ending in ("_N_CLASSES", "_CLASSES")}


def _remark(text: str) -> str:
    r"""Text that stays within a comment of C, Make and CMake, whatever a folder is called.

    >>> _remark("export 'run\n$(shell touch x)' */ \\")
    "export 'run?$(shell touch x)' * / /"
    """
    shown = "".join(c if c.isprintable() else "?" for c in text).replace("\\", "/")
    return shown.replace("*/", "* /").replace("/*", "/ *")


def noise_image(shape: tuple[int, int, int], scale: float) -> Floats:
    """The image (C, H, W) that ``test_vector.c`` makes: noise between -scale and scale."""
    n = int(np.prod(shape))
    values = np.empty(n, np.float32)
    state = 1
    for i in range(n):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        values[i] = state >> 8
    unit = values / np.float32(8388608) - np.float32(1)
    return (unit * np.float32(scale)).reshape(shape)


def write_folder(
    program: Program,
    missions: Sequence[MissionBits],
    expected: Mapping[str, Floats],
    directory: Path,
    prefix: str,
    *,
    banner: str,
    preprocessing: Preprocessing | None = None,
    scale: float = 1.0,
    version: str = "distillnet",
    layout: Layout | None = None,
    source: Callable[[Program, Mapping[str, object]], dict[str, str]] = model_source,
    numbers: Numbers | None = None,
    flash: Flash | None = None,
) -> None:
    """Write a program and its missions into an existing folder.

    Args:
        expected: scores of ``noise_image`` by mission, in the mission's order.
        banner: where this comes from: the command and the version.
        preprocessing: how images become the input, to be done in C as well; None leaves it out.
        scale: of the test image.
        version: of what writes this.
        layout: of a program that missions can be loaded into later.
        source: what makes ``model.h`` and ``model.c``.
        numbers: what missions' tables have to know of the program's; by default float32.
        flash: the programme's weights, packed; ``weights.c`` then holds these and their decoder.

    Raises:
        InputError: the prefix is no name in C.
    """
    check_prefix(prefix)
    channels, height, width = program.places[program.input].shape
    whole = program.weights.dtype == np.uint8
    data = program.weights if whole else program.weights.astype("<f4")
    units = [f"missions/{m.name}" for m in missions] + ["preprocess"] * (preprocessing is not None)
    units += ["load_mission"] * (layout is not None)
    common: dict[str, object] = {
        "NAME": prefix,
        "UPPER": prefix.upper(),
        "BANNER": _remark(banner),
        "CHANNELS": channels,
        "HEIGHT": height,
        "WIDTH": width,
        "OUTPUTS": layout.n_scores if layout else max(len(m.outputs) for m in missions),
        "WEIGHT": "uint8_t" if whole else "float",
        "ELEMENT": "uint8_t" if whole else "float",
        "BIAS": "int32_t" if whole else "float",
        "SIDE": "uint8_t" if whole and _longest_side(program) <= _MOST_OF_A_BYTE else "uint16_t",
        "MORE_C": "",
        "MORE_H": "",
        "PRECISION": "int8" if whole else "float32",
        "TOLERANCE": "0.0f" if whole else "1e-4f",
        "ARENA_BYTES": program.arena_bytes,
        "ARENA_SHARE": f"{program.arena_floats / program.least_floats:.3f}",
        "N_WEIGHTS": len(data),
        "WEIGHT_BYTES": data.nbytes,
        "WEIGHTS_ID": f"{zlib.crc32(data.tobytes()):08x}",
        "MISSIONS": "\n".join(
            f"extern const {prefix}_mission {prefix}_mission_{m.name};" for m in missions
        ),
        "MISSION_ROWS": "\n".join(
            f"- `{prefix}_mission_{m.name}`: {', '.join(m.classes)}" for m in missions
        ),
        "FIRST": missions[0].name,
        "OBJECTS": " ".join(f"{name}.o" for name in units),
        "SOURCES": " ".join(f"{name}.c" for name in units),
        "VERSION": version,
        "CLASSES": "".join(_class_names(prefix, m) for m in missions),
        "SCALE": f"{float(np.float32(scale))!r}f",
    }
    common |= preprocess_values(preprocessing, common)
    packed = {} if flash is None else flash_source(flash)
    common |= _told_of(packed, common)
    if layout is not None:
        common["MORE_H"] = loader_header(layout, common)
    written = source(program, common)
    if layout is not None:
        written["load_mission.c"] = loader_source(program, layout, common)
        written[LAYOUT] = layout.json().decode()
    for mission in missions:
        written[f"missions/{mission.name}.c"] = mission_source(program, mission, common, numbers)
    if preprocessing is not None:
        written["preprocess.c"] = fill_template("preprocess.c", common)
    common["TABLES"], common["ROWS"] = _expected_tables(missions, expected, prefix)
    for name in ("test_vector.c", "Makefile", "CMakeLists.txt", "README.md"):
        written[name] = fill_template(name, common)
    written |= platform_files(["model", *units, "weights"], common)
    for folder in {(directory / name).parent for name in written} - {directory}:
        folder.mkdir()
    for name, text in written.items():
        (directory / name).write_text(text, encoding="utf-8")
    (directory / "weights.bin").write_bytes(data.tobytes())
    if flash is not None:
        text = fill_template("weights_packed.c", common | packed)
        (directory / "weights.c").write_text(text, encoding="utf-8")
    else:
        _write_array(data, directory / "weights.c", common)


def _longest_side(program: Program) -> int:
    """Of all maps that a mission may skip places of."""
    return max((max(slot.shape[1:]) for slot in program.slots.values()), default=0)


_PACKED = """
/* Weights are packed: weights.c holds so many bytes, which are decoded when a device starts. */
#define @UPPER@_PACKED_BYTES @PACKED_BYTES@u
#define @UPPER@_UNPACK_BYTES @UNPACK_BYTES@u /* of memory that decoding needs beside the weights */
#ifndef @UPPER@_WEIGHTS_FROM_FILE
#define @UPPER@_WEIGHTS_FROM_FILE
#endif
"""
_UNPACK = """
/* Decode the weights of weights.c: @UPPER@_N_WEIGHTS numbers, as they lie in weights.bin. An arena
 * may be the memory to work in, at a multiple of 8. Then @NAME@_load compares and uses them. */
int @NAME@_unpack(float *weights, void *work, size_t work_bytes);
"""
_USE = """
The weights are packed: `weights.c` holds @PACKED_BYTES@ bytes of them in place of @WEIGHT_BYTES@,
and the code that decodes them into memory, once, exactly:

```c
static float weights[@UPPER@_N_WEIGHTS];
@NAME@_mission mission = @NAME@_mission_@FIRST@;
int status = @NAME@_unpack(weights, arena, sizeof arena); /* @UPPER@_UNPACK_BYTES or more */
if (status == @UPPER@_OK)
    status = @NAME@_load(&mission, weights, sizeof weights);
```
"""


def _told_of(packed: Mapping[str, object], common: Mapping[str, object]) -> dict[str, object]:
    """What templates say of packed weights; nothing where there are none."""
    if not packed:
        return {"PACKED_H": "", "PACKED_USE": "", "PACKED_SOURCE": ""}
    names = {**common, **packed}

    def filled(text: str) -> str:
        return re.sub(r"@([A-Z_]+)@", lambda m: str(names[m[1]]), text)

    return {
        "PACKED_H": filled(_PACKED),
        "MORE_H": filled(_UNPACK),
        "PACKED_USE": filled(_USE),
        "PACKED_SOURCE": " weights.c",
    }


def _expected_tables(
    missions: Sequence[MissionBits], expected: Mapping[str, Floats], prefix: str
) -> tuple[str, str]:
    tables, rows = [], []
    for mission in missions:
        values = ", ".join(f"{float(v)!r}f" for v in expected[mission.name])
        tables.append(f"static const float expected_{mission.name}[] = {{{values}}};\n")
        rows.append(f"    {{&{prefix}_mission_{mission.name}, expected_{mission.name}}},\n")
    return "".join(tables), "".join(rows)


def _class_names(prefix: str, mission: MissionBits) -> str:
    """A mission's classes as macros, so that a program may use them where it is compiled."""
    name = f"{prefix}_{mission.name}".upper()
    names = ", ".join(c_text(c) for c in mission.classes)
    return (
        f"/* Scores of {prefix}_mission_{mission.name}, in this order. */\n"
        f"#define {name}_N_CLASSES {len(mission.classes)}\n"
        f"#define {name}_CLASSES {{{names}}}\n"
    )


def _write_array(
    data: Floats | NDArray[np.uint8], path: Path, common: Mapping[str, object]
) -> None:
    """Weights as C: their bytes in strings, which compilers read far more quickly than numbers.

    Those of large networks are put in by the assembler.
    """
    if data.nbytes > _LARGEST_ARRAY:
        path.write_text(fill_template("weights.c", common), encoding="utf-8")
        return
    text = fill_template("weights_text.c", common)
    path.write_text(text.replace("$BYTES$", byte_text(data.tobytes())), encoding="utf-8")
