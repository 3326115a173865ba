"""A folder is a component of ESP-IDF, a module of Zephyr and a library of Arduino as it stands.

None of the three is at hand. What stands in for them here does with the folder's own build files
what their documentation says, with the host's compiler, and the folder's own test has to pass.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from compiling import missions_of

NEEDS_CMAKE = pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no CMake")

_ESP_IDF = """
set(ESP_PLATFORM 1)
macro(idf_component_register)
  cmake_parse_arguments(_idf "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
  get_filename_component(COMPONENT_LIB ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  add_library(${COMPONENT_LIB} STATIC ${_idf_SRCS})
  target_include_directories(${COMPONENT_LIB} PUBLIC ${_idf_INCLUDE_DIRS})
endmacro()
add_subdirectory(net)
"""
_ZEPHYR = """
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC)
endmacro()
macro(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_definitions)
  target_compile_definitions(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories)
  target_include_directories(${ZEPHYR_CURRENT_LIBRARY} PUBLIC ${ARGN})
endmacro()
add_subdirectory(net/@MODULE@)
"""


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _tested_in_cmake(project: Path, before: str) -> str:
    (project / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\nproject(firmware C)\n{before}\n"
        "add_executable(app net/test_vector.c)\ntarget_link_libraries(app net m)\n"
    )
    _run("cmake", "-S", ".", "-B", "b", cwd=project)
    _run("cmake", "--build", "b", "-j", "2", cwd=project)
    return _run("b/app", cwd=project)


@NEEDS_CMAKE
def test_it_is_a_component_of_esp_idf(tmp_path: Path) -> None:
    missions_of("chain", tmp_path / "net")
    assert _tested_in_cmake(tmp_path, _ESP_IDF).count("PASS") == 2


@NEEDS_CMAKE
def test_it_is_a_module_of_zephyr_that_a_configuration_chooses(tmp_path: Path) -> None:
    folder = missions_of("chain", tmp_path / "net")
    module = dict(re.findall(r"^ *(\w+): (\S+)$", (folder / "zephyr/module.yml").read_text(), re.M))
    assert module["name"] == "net"
    options = re.findall(r"^config (\w+)$", (folder / module["kconfig"]).read_text(), re.M)
    chosen = "".join(f"set(CONFIG_{option} y)\n" for option in options)
    build = _ZEPHYR.replace("@MODULE@", module["cmake"])
    assert _tested_in_cmake(tmp_path, chosen + build).count("PASS") == 2


def test_it_is_a_library_of_arduino(tmp_path: Path) -> None:
    """All in ``src`` is compiled, and headers are found there; a sketch is C++."""
    folder = missions_of("chain", tmp_path / "net")
    lines = (folder / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    asked = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"}
    assert asked <= set(properties)
    sources = sorted(map(str, (folder / "src").glob("*.c")))
    _run("cc", "-O1", "-c", "-I", str(folder / "src"), *sources, cwd=tmp_path)
    (tmp_path / "sketch.cpp").write_text(
        f"#include <{properties['includes']}>\n"
        "int main() { return net_arena_bytes() == 0 || net_check(&net_mission_dense); }\n"
    )
    _run("c++", "-O1", "-I", str(folder / "src"), "-c", "sketch.cpp", cwd=tmp_path)
    _run("c++", *map(str, tmp_path.glob("*.o")), "-lm", "-o", "sketch", cwd=tmp_path)
    _run("./sketch", cwd=tmp_path)
