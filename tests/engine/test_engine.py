"""The C engine says what torch says of masked networks, whatever the structure and the target."""

import ctypes
import functools
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures import ARCHITECTURES, SIDE, build
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask, split
from distillnet.cut.thin import Split, matrix
from distillnet.engine import (
    MissionBits,
    MissionPlan,
    Native,
    Program,
    build_native,
    compile_compact,
    compile_switchable,
    noise_image,
    write_folder,
)
from distillnet.engine import folder as folder_module
from distillnet.engine.arena import alive_at_once, plan_arena
from distillnet.engine.spans import active_strips, bit_words
from distillnet.engine.steps import Buffer, Halo, Strip
from distillnet.errors import InputError, UnsupportedError
from distillnet.graph import Graph
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.graph.operators import Node
from distillnet.models import load_model, random_model
from distillnet.models.zoo.tensorflow import tf_mnist
from plans import STYLES, random_plan, scores
from targets import STRICT, run_on_a_cortex_m, run_test_vector, tool

TOLERANCE = 1e-4  # of the outputs' range
# Vectors of every width that there is, in turns.
CPU = Path("/proc/cpuinfo")
WIDTHS = {
    "scalar": ("-O1", "-DLANES=1"),
    "SSE or NEON": ("-O1",),
    "native": ("-O1", "-march=native"),
}
if CPU.exists() and " avx2 " in CPU.read_text():
    WIDTHS["AVX2"] = ("-O1", "-mavx2", "-mfma")


def difference(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / max(want.max() - want.min(), 1e-30))


def plain(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def export(
    program: Program,
    missions: Sequence[MissionBits],
    wanted: Sequence[np.ndarray],
    folder: Path,
    **options: object,
) -> Path:
    expected = {m.name: plain(w) for m, w in zip(missions, wanted, strict=True)}
    folder.mkdir()
    write_folder(
        program, missions, expected, folder, "net", banner="tests", preprocessing="none", **options
    )  # type: ignore[arg-type]
    return folder


def shape_of(program: Program) -> tuple[int, int, int]:
    return program.places[program.input].shape


def compiled(program: Program, folder: Path, *flags: str) -> Native:
    return build_native(folder, "net", shape_of(program), flags=(*flags, *STRICT))


def names(n: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(n))


def masked_scores(graph: Graph, plan: Plan, image: np.ndarray) -> np.ndarray:
    y = scores(mask(graph, plan), torch.from_numpy(image)[None].double())[0].numpy()
    return y if plan.outputs is None else y[list(plan.outputs)]


def mission_plans(plans: Mapping[str, Plan], wanted: Mapping[str, np.ndarray]) -> list[MissionPlan]:
    return [MissionPlan(name, plan, names(len(wanted[name]))) for name, plan in plans.items()]


def check(native: Native, mission: MissionBits, image: np.ndarray, want: np.ndarray) -> None:
    """One run in an arena full of NaN, one in what that left behind."""
    bound = native.mission(mission.name)
    native.arena[:] = 0xFF
    first = native.scores(bound, image[None])[0]
    assert difference(first, want) <= TOLERANCE
    assert np.array_equal(native.scores(bound, image[None])[0], first)


@functools.lru_cache(maxsize=1)
def small(name: str) -> tuple[Graph, Channels]:
    graph = capture(build(name), (SIDE, SIDE))
    return graph, analyse(graph)


def within(program: Program) -> bool:
    """At most 5 % beyond what is alive at once, and one block to read beyond the end."""
    return program.arena_floats - 16 <= 1.05 * program.least_floats + 64


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_forms_equal_the_mask(name: str, tmp_path: Path) -> None:
    graph, channels = small(name)
    image = noise_image((3, SIDE, SIDE), 1.5)
    width = list(WIDTHS)[sum(map(ord, name)) % len(WIDTHS)]
    plans = {style: random_plan(graph, channels, style, 5) for style in STYLES}
    plans["dense"] = Plan()
    wanted = {style: masked_scores(graph, plan, image) for style, plan in plans.items()}
    program, missions = compile_switchable(graph, mission_plans(plans, wanted))
    assert within(program)
    folder = export(program, missions, list(wanted.values()), tmp_path / "all")
    native = compiled(program, folder, *WIDTHS[width])
    for mission in missions:
        check(native, mission, image, wanted[mission.name])

    plan = plans["partial"]
    less = compact(graph, channels, plan)
    alone, mission = compile_compact(less, "only", names(len(wanted["partial"])))
    assert within(alone)
    folder = export(alone, [mission], [wanted["partial"]], tmp_path / "one")
    check(compiled(alone, folder, *WIDTHS[width]), mission, image, wanted["partial"])


GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "7x7 stride 2": {"kernel_size": 7, "stride": 2, "padding": 3},
    "oblong": {"kernel_size": (2, 5), "stride": (2, 1), "padding": (0, 2)},
    "dilated": {"kernel_size": 3, "dilation": (2, 1), "padding": (2, 1)},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_separable_layers_run(geometry: str, tmp_path: Path) -> None:
    """Split at full rank, the two halves are the layer."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 20, **GEOMETRIES[geometry])
    module = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten()).eval()
    graph = capture(module, (13, 11))
    layer = next(node for node in graph.nodes if node.op == "conv")
    rank = min(matrix(graph.params[layer.params["weight"]], separable=True).shape)
    image = noise_image((3, 13, 11), 1.5)
    with torch.no_grad():
        want = module(torch.from_numpy(image)[None])[0].numpy()
    small = split(graph, layer.name, Split(rank, separable=True))
    program, mission = compile_compact(small, "only", names(len(want)))
    assert within(program)
    folder = export(program, [mission], [want], tmp_path / "c")
    check(compiled(program, folder, "-O1", "-march=native"), mission, image, want)


def missions_of(name: str, folder: Path) -> Path:
    """A folder with a dense and a partial mission of one of the small architectures."""
    graph, channels = small(name)
    plans = {"dense": Plan(), "partial": random_plan(graph, channels, "partial", 7)}
    image = noise_image((3, SIDE, SIDE), 1.0)  # what test_vector.c makes
    wanted = {style: masked_scores(graph, plan, image) for style, plan in plans.items()}
    program, missions = compile_switchable(graph, mission_plans(plans, wanted))
    return export(program, missions, list(wanted.values()), folder)


SANITIZED = (
    "concat", "depthwise", "grouped", "local response norm", "padding", "pools, padded",
    "squeeze-excite", "split, slice and pick",
)  # fmt: skip


@pytest.mark.parametrize("name", SANITIZED)
def test_nothing_is_read_or_written_beyond_its_bounds(name: str, tmp_path: Path) -> None:
    folder = missions_of(name, tmp_path / "c")
    lanes = ("-DLANES=1", "-DLANES=4", "-march=native")[SANITIZED.index(name) % 3]
    flags = ["-g", "-O1", lanes, "-fsanitize=address,undefined"]
    assert run_test_vector(folder, ["cc", *flags, "-fno-sanitize-recover"]).count("PASS") == 2


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
    graph, _ = small("depthwise")
    program, mission = compile_compact(graph, "all", names(7))
    want = masked_scores(graph, Plan(), noise_image((3, SIDE, SIDE), 1.0)).astype(np.float32)
    write_folder(program, [mission], {"all": want}, tmp_path, prefix, banner="b",
                 preprocessing="p")  # fmt: skip
    assert "incbin" in (tmp_path / "weights.c").read_text()
    assert run_test_vector(tmp_path, ["cc", "-O1"]).count("PASS") == 1


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


@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no CMake")
def test_two_networks_stand_in_one_cmake_project(tmp_path: Path) -> None:
    graph, _ = small("chain")
    program, mission = compile_compact(graph, "all", names(7))
    image = noise_image(shape_of(program), 1.0)
    want = {"all": plain(masked_scores(graph, Plan(), image))}
    for prefix in ("day", "night"):
        (folder := tmp_path / prefix).mkdir()
        write_folder(program, [mission], want, folder, prefix, banner="b", preprocessing="none")
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


def test_a_mission_runs_on_a_cortex_m(tmp_path: Path) -> None:
    folder = mnist_mission(tmp_path / "c")
    assert "PASS two" in run_on_a_cortex_m(folder)


def test_wrong_arguments_return_error_codes(tmp_path: Path) -> None:
    graph, _ = small("chain")
    program, mission = compile_compact(graph, "all", names(7))
    native = compiled(program, export(program, [mission], [np.zeros(7)], tmp_path / "c"), "-O1")
    bound = native.mission("all")
    x, y = np.zeros((3, SIDE, SIDE), np.float32), np.zeros(7, np.float32)
    arena, size = native.arena.ctypes.data, native.arena.nbytes

    def call(mission=bound, arena=arena, size=size, x=x.ctypes.data, y=y.ctypes.data) -> int:
        pointer = None if mission is None else ctypes.addressof(mission)
        return native.run(pointer, arena, size, x, y)

    assert call() == 0
    assert np.isfinite(y).all()
    x[0, 3, 3] = np.nan  # no clamp on the way may make a score of it, as none does in PyTorch
    assert call() == 0
    assert np.isnan(y).all()
    for wrong in ({"mission": None}, {"arena": None}, {"x": None}, {"y": None}):
        assert call(**wrong) == 1
    assert call(size=size - 1) == call(arena=arena + 4) == 2
    for name, value in (("magic", 0), ("weights_id", 1), ("n_layers", 9)):
        other = native.mission("all")
        setattr(other, name, value)
        assert call(mission=other) == 3
    without = native.mission("all")
    without.weights = None
    assert call(mission=without) == 1
    with pytest.raises(InputError, match="missions/"):
        native.mission("none")
    with pytest.raises(InputError, match=r"expected \(3, 12, 12\)"):
        native.scores(bound, np.zeros((1, 3, 8, 8), np.float32))


def test_what_there_is_no_kernel_for_is_named(tmp_path: Path) -> None:
    graph, _ = small("chain")
    last = graph[graph.output]
    odd = Node("odd one", "fourier", (last.name,), last.shape)
    with pytest.raises(UnsupportedError, match=r"'fourier' of 'odd one'.*--format onnx"):
        compile_compact(Graph((*graph.nodes, odd), graph.params, odd.name), "a", names(7))
    act = next(node for node in graph.nodes if node.op == "act")
    nodes = tuple(
        replace(n, attrs={**n.attrs, "kind": "wave"}) if n is act else n for n in graph.nodes
    )
    with pytest.raises(UnsupportedError, match="'wave'"):
        compile_compact(Graph(nodes, graph.params, graph.output), "a", names(7))
    program, mission = compile_compact(graph, "all", names(7))
    for prefix in ("int", "a-b", "", "7", "test"):
        with pytest.raises(InputError, match="--prefix"):
            write_folder(program, [mission], {"all": np.zeros(1)}, tmp_path, prefix, banner="b",
                         preprocessing="p")  # fmt: skip
        assert not any(tmp_path.iterdir())


def test_buffers_alive_together_never_overlap() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        buffers = []
        for i in range(int(generator.integers(1, 30))):
            first = int(generator.integers(0, 20))
            size = (int(generator.integers(1, 9)) * 16, int(generator.integers(1, 9)), 3)
            last = first + int(generator.integers(0, 5))
            buffers.append(Buffer(str(i), size, Halo(), first, last))
        offsets, length = plan_arena(buffers)
        for i, a in enumerate(buffers):
            assert 0 <= offsets[a.name] <= offsets[a.name] + a.size <= length - 16
            for b in buffers[:i]:
                if a.first <= b.last and b.first <= a.last:
                    apart = offsets[a.name] >= offsets[b.name] + b.size
                    assert apart or offsets[b.name] >= offsets[a.name] + a.size
        assert length - 16 >= alive_at_once(buffers)


def test_strips_compute_what_bitmaps_keep_and_nothing_far_from_it() -> None:
    keep = np.random.default_rng(1).random((40, 6, 9)) < 0.3
    keep[:, 2] = False
    keep[16:32] = True
    strips = [Strip(range(0, 16), 0, 0), Strip(range(16, 32), 0, 0), Strip(range(32, 40), 0, 0)]
    for active in active_strips(strips, keep):
        mine = keep[active.strip.channels.start : active.strip.channels.stop]
        if active.spans is None:
            assert mine.all()
            continue
        assert not mine.all()
        computed = np.zeros(mine.shape[1:], bool)
        words = []
        for span in active.spans:
            assert mine[:, span.y, span.x0].any()
            assert mine[:, span.y, span.x1 - 1].any()
            computed[span.y, span.x0 : span.x1] = True
            words.append(bit_words(mine)[span.y, span.x0 : span.x1].reshape(-1))
        assert computed[mine.any(0)].all()
        assert active.places(54) == computed.sum()
        assert active.bits is not None
        assert np.array_equal(active.bits, np.concatenate(words))


REAL = {
    "torchvision:squeezenet1_0": "weights/squeezenet1_0.safetensors",
    "zoo:bvlc_googlenet": "weights/bvlc_googlenet.safetensors",
}


def spans_of(shape: tuple[int, ...], generator: np.random.Generator) -> torch.Tensor:
    """Keep maps (C, H, W): half of all channels whole or gone, of the others runs of places."""
    keep = generator.random((shape[0], *[1] * (len(shape) - 1))) < 0.8
    keep = np.broadcast_to(keep, shape).copy()
    if len(shape) == 3:
        for c in np.flatnonzero(generator.random(shape[0]) < 0.5):
            first, last = np.sort(generator.integers(0, shape[2] + 1, 2))
            keep[c, :, :first] = keep[c, :, last:] = False
    return torch.from_numpy(keep)


@pytest.mark.parametrize("spec", [*REAL, "zoo:tf_mnist", "zoo:tf_cifar"])
def test_networks_of_the_paper_at_their_size(
    spec: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Real weights where there are some: dense, and random bitmaps in both forms."""
    if spec in REAL:
        data = request.getfixturevalue("data_dir")
        model = load_model(spec, weights=data / REAL[spec])
    else:
        model = random_model(spec)
    graph = capture_model(model)
    channels = analyse(graph)
    generator = np.random.default_rng(0)
    keep = {site: spans_of(graph[site].shape, generator) for site in channels.sites}
    plans = {"dense": Plan(), "random": Plan(keep, (1, 0, 5))}
    scale = 100.0 if "bvlc" in spec else 2.0
    image = noise_image(graph.input.shape, scale)
    wanted = {}
    for name, plan in plans.items():
        y = scores(mask(graph, plan), torch.from_numpy(image)[None])[0].detach().numpy()
        wanted[name] = y if plan.outputs is None else y[list(plan.outputs)]
    program, missions = compile_switchable(graph, mission_plans(plans, wanted))
    assert within(program)
    folder = export(program, missions, list(wanted.values()), tmp_path / "all", scale=scale)
    native = compiled(program, folder, "-O1", "-march=native")
    for mission in missions:
        check(native, mission, image, wanted[mission.name])
    less = compact(graph, channels, plans["random"])
    program, mission = compile_compact(less, "random", names(3))
    assert within(program)
    folder = export(program, [mission], [wanted["random"]], tmp_path / "one", scale=scale)
    check(compiled(program, folder, "-O1", "-march=native"), mission, image, wanted["random"])
