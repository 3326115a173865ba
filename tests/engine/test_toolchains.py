"""The code is right under sanitizers, on other processors, with other compilers and in CMake."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures import SIDE, captured
from compiling import export, masked_scores, missions_of, names, plain, shape_of
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask
from distillnet.engine import compile_compact, noise_image, write_folder
from distillnet.engine import folder as folder_module
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.models.zoo.tensorflow import tf_mnist
from plans import scores
from selection import exhaustive
from targets import run_on_a_cortex_m, run_test_vector, tool

SANITIZED = (
    "concat", "depthwise", "grouped", "local response norm", "padding", "pools, padded",
    "squeeze-excite", "split, slice and pick",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", exhaustive(SANITIZED, SANITIZED[::2].__contains__))
def test_nothing_is_read_or_written_beyond_its_bounds(name: str, tmp_path: Path) -> None:
    folder = missions_of(name, tmp_path / "c")
    lanes = ("-DLANES=1", "-DLANES=4", "-march=native")[SANITIZED.index(name) % 3]
    flags = ["-g", "-O1", lanes, "-fsanitize=address,undefined"]
    assert run_test_vector(folder, ["cc", *flags, "-fno-sanitize-recover"]).count("PASS") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual through concat", "depthwise", "channels-last linear"])
def test_the_code_runs_on_aarch64(name: str, tmp_path: Path) -> None:
    tool("aarch64-linux-gnu-gcc", "qemu-aarch64")
    compiler = ["aarch64-linux-gnu-gcc", "-O2", "-march=armv8-a", "-static"]
    said = run_test_vector(missions_of(name, tmp_path / "c"), compiler, ["qemu-aarch64"])
    assert said.count("PASS") == 2


@pytest.mark.parametrize("prefix", ["depthwise", "tile", "run"])
def test_large_weights_are_put_in_by_the_assembler(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a prefix may be what the code itself uses."""
    monkeypatch.setattr(folder_module, "_LARGEST_ARRAY", 100)
    _, graph, _ = captured("depthwise")
    program, mission = compile_compact(graph, "all", names(7))
    want = masked_scores(graph, Plan(), noise_image((3, SIDE, SIDE), 1.0)).astype(np.float32)
    write_folder(program, [mission], {"all": want}, tmp_path, prefix, banner="b")
    assert "incbin" in (tmp_path / "weights.c").read_text()
    assert run_test_vector(tmp_path, ["cc", "-O1"]).count("PASS") == 1


@pytest.mark.slow
def test_clang_takes_the_code_as_well(tmp_path: Path) -> None:
    tool("clang")
    folder = missions_of("local response norm", tmp_path / "c")
    assert run_test_vector(folder, ["clang", "-O2", "-march=native"]).count("PASS") == 2


def mnist_mission(folder: Path) -> Path:
    """Two digits of TF-MNIST with a fifth of its channels, and no neurons at the border."""
    torch.manual_seed(0)
    graph = capture(tf_mnist().eval(), (28, 28), channels=1)
    channels = analyse(graph)
    kept = torch.rand(channels.count, generator=torch.Generator().manual_seed(0)) < 0.2
    keep = {}
    for site in channels.sites:
        shape = graph[site].shape
        whole = kept[torch.from_numpy(channels.of[site])]
        keep[site] = whole.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
        if len(shape) == 3:
            keep[site][:, :3] = keep[site][:, :, -4:] = False
    plan = Plan(keep, (3, 7))
    less = compact(graph, channels, plan)
    program, mission = compile_compact(less, "two", ("3", "7"))
    image = noise_image((1, 28, 28), 1.0)
    want = scores(mask(graph, plan), torch.from_numpy(image)[None])[0, [3, 7]].detach().numpy()
    return export(program, [mission], [want], folder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no CMake")
def test_two_networks_stand_in_one_cmake_project(tmp_path: Path) -> None:
    _, graph, _ = captured("chain")
    program, mission = compile_compact(graph, "all", names(7))
    image = noise_image(shape_of(program), 1.0)
    want = {"all": plain(masked_scores(graph, Plan(), image))}
    for prefix in ("day", "night"):
        (folder := tmp_path / prefix).mkdir()
        write_folder(program, [mission], want, folder, prefix, banner="b")
    (tmp_path / "app.c").write_text(
        '#include "day/model.h"\n#include "night/model.h"\n'
        "int main(void) { return day_arena_bytes() != night_arena_bytes(); }\n"
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(app C)\nenable_testing()\n"
        "add_subdirectory(day)\nadd_subdirectory(night)\nadd_executable(app app.c)\n"
        "target_link_libraries(app day night)\nadd_test(NAME app COMMAND app)\n"
    )
    for command in ("cmake -S . -B b", "cmake --build b -j 2", "cmake --build b --target test"):
        done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_a_mission_runs_on_a_cortex_m(tmp_path: Path) -> None:
    folder = mnist_mission(tmp_path / "c")
    assert "PASS two" in run_on_a_cortex_m(folder)
