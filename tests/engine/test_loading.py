"""Missions that come later, as blocks of bytes: as right as those compiled in, or refused."""

import ctypes
import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from architectures import SIDE, captured
from compiling import check, compiled, difference, export, masked_scores, names, refitted
from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.surgery import mask
from distillnet.engine import (
    LayerRefit,
    Layout,
    MissionPlan,
    Native,
    compile_loadable,
    compile_switchable,
    mission_block,
    noise_image,
    read_layout,
)
from distillnet.engine.missions.arranging import arranged_slots
from distillnet.engine.taps import inputs_of_layers
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse
from distillnet.graph.operators import LAYERS
from plans import random_plan
from selection import exhaustive
from targets import STRICT, vector_flags

NULL, MISSION, BLOCK, OLD, ROOM = 1, 3, 16, 17, 18
NETWORKS = ("concat", "depthwise", "local response norm", "residual through concat")
IMAGE = noise_image((3, SIDE, SIDE), 1.5)


def _folder(name: str, path: Path, first: Plan) -> tuple[Native, Layout]:
    _, graph, _ = captured(name)
    want = masked_scores(graph, first, noise_image((3, SIDE, SIDE), 1.0))
    mission = MissionPlan("first", first, names(len(want)))
    program, missions, layout = compile_loadable(graph, [mission])
    export(program, missions, [want], path, layout=layout)
    return compiled(program, path, *vector_flags(name)), read_layout(path)


def _block(layout: Layout, plan: Plan, serial: int = 1, **more: object) -> bytes:
    outputs = range(layout.n_scores) if plan.outputs is None else plan.outputs
    keep = {site: bits.numpy() for site, bits in plan.keep.items()}
    return mission_block(  # type: ignore[arg-type]
        layout, "later", names(len(outputs)), tuple(outputs), keep, serial, **more
    )


def _of_its_own(
    layout: Layout, graph: Graph, channels: Channels, plan: Plan, seed: int
) -> tuple[Graph, dict[str, object]]:
    """A network with parameters of its own under a plan, and what a block needs for it."""
    layers = {slot.layer for slot in layout.slots if slot.layer is not None}
    changed, refits = refitted(graph, layers, seed)
    gone = removed_classes(channels, plan)
    kept = {name: ~gone[channels.of[name]] for name in refits}
    own = {name for name, refit in refits.items() if refit.weight is not None}
    return changed, {
        "refits": refits,
        "alive": inputs_of_layers(mask(graph, plan), {}),
        "slots": arranged_slots(layout, graph, kept, own),
    }


class _Device:
    """A mission of a compiled folder, and what loads others in its place."""

    def __init__(self, native: Native) -> None:
        self.native, self.mission = native, native.mission("first")
        self.serial, self.room = ctypes.c_uint64(0), np.empty(0, np.uint8)

    def load(self, block: bytes, room_bytes: int = 10**6) -> int:
        room = np.full(room_bytes, 0xAA, np.uint8)
        status: int = self.native.library.net_load_mission(
            ctypes.byref(self.mission), ctypes.byref(self.serial),
            ctypes.c_void_p(room.ctypes.data), ctypes.c_size_t(room_bytes),
            block, ctypes.c_size_t(len(block)),
        )  # fmt: skip
        if status == 0:
            self.room = room  # which the mission lies in
        return status

    def scores(self) -> np.ndarray:
        return self.native.scores(self.mission, IMAGE[None])[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_later_mission_is_as_right_as_one_compiled_in(name: str, tmp_path: Path) -> None:
    _, graph, channels = captured(name)
    native, layout = _folder(name, tmp_path / "c", random_plan(graph, channels, "partial", 1))
    device = _Device(native)
    for serial, (style, seed) in enumerate((("partial", 2), ("complete", 3), ("partial", 4)), 1):
        plan = random_plan(graph, channels, style, seed)
        if seed == 4:
            plan = replace(plan, outputs=(2, 0))
        assert device.load(_block(layout, plan, serial)) == 0
        assert difference(device.scores(), masked_scores(graph, plan, IMAGE)) <= 1e-4
        assert device.mission.name == b"later"
        count = device.mission.n_outputs
        assert [device.mission.classes[i].decode() for i in range(count)] == [*names(count)]
        assert device.serial.value == serial


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NETWORKS, "chain", "flatten to linear"])
def test_a_later_mission_may_have_weights_of_its_own(name: str, tmp_path: Path) -> None:
    """Biases alone, whole layers, or all of them, beside missions that keep the shared ones."""
    _, graph, channels = captured(name)
    native, layout = _folder(name, tmp_path / "c", random_plan(graph, channels, "partial", 1))
    device = _Device(native)
    styles = ("channels", "partial", "everything", "channels")
    for serial, (style, seed) in enumerate(zip(styles, (0, 1, 2, 3), strict=True), 1):
        plan = random_plan(graph, channels, style, seed)
        changed, more = _of_its_own(layout, graph, channels, plan, seed)
        assert device.load(_block(layout, plan, serial, **more)) == 0
        assert difference(device.scores(), masked_scores(changed, plan, IMAGE)) <= 1e-4
    assert device.load(_block(layout, Plan(), 9)) == 0
    assert difference(device.scores(), masked_scores(graph, Plan(), IMAGE)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["concat", "flatten to linear"])
def test_a_mission_that_is_compiled_in_may_have_weights_of_its_own(
    name: str, tmp_path: Path
) -> None:
    _, graph, channels = captured(name)
    plans = [random_plan(graph, channels, "channels", seed) for seed in (5, 6)]
    layers = {n.name for n in graph.nodes if n.op in LAYERS and n.attrs.get("groups", 1) == 1}
    made = [refitted(graph, layers, seed) for seed in (0, 1)]
    wanted = [
        masked_scores(changed, plan, IMAGE) for (changed, _), plan in zip(made, plans, strict=True)
    ]
    program, missions = compile_switchable(
        graph,
        [MissionPlan(f"m{i}", plan, names(len(want)), refits)
         for i, ((_, refits), plan, want) in enumerate(zip(made, plans, wanted, strict=True))],
    )  # fmt: skip
    export(program, missions, wanted, tmp_path / "c")
    native = compiled(program, tmp_path / "c", *vector_flags(name))
    for mission, want in zip(missions, wanted, strict=True):
        check(native, mission, IMAGE, want)


def test_a_block_holds_no_more_than_what_the_mission_computes() -> None:
    """Biases cost 4 bytes each, whole layers what is left of them, wherever that stood."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 7),
        )  # fmt: skip
    graph = capture(net.double().eval(), (SIDE, SIDE))
    channels = analyse(graph)
    _, _, layout = compile_loadable(graph, [MissionPlan("first", Plan(), names(7))])
    site = next(node.name for node in graph.nodes if node.op == "act")
    keep = torch.zeros(64, SIDE, SIDE, dtype=torch.bool)
    keep[::2] = True  # which no order of the code's had in view
    plan = Plan({site: keep})
    _, more = _of_its_own(layout, graph, channels, plan, 0)
    refits: dict[str, LayerRefit] = more["refits"]  # type: ignore[assignment]
    biases = {name: LayerRefit(refit.bias) for name, refit in refits.items()}
    plain = len(_block(layout, plan))
    assert len(_block(layout, plan, refits=biases)) == plain + 4 * (64 + 64 + 16)
    weights = 32 * (3 * 9 + 1) + 64 * (32 * 9 + 1) + 16 * (64 + 1)
    assert 0 <= len(_block(layout, plan, **more)) - 4 * weights < 1000


def test_weights_of_another_network_are_no_block(made: tuple[Native, Layout, Plan]) -> None:
    _, layout, _ = made
    slot = next(s for s in layout.slots if s.layer is not None)
    bias, weight = np.zeros(slot.shape[0]), np.zeros((slot.shape[0], slot.taps + 1))
    for refits, words in (
        ({"elsewhere": LayerRefit(bias)}, "none that missions may replace"),
        ({slot.layer: LayerRefit(bias[1:])}, "expected a mission of its network"),
        ({slot.layer: LayerRefit(bias, weight)}, "expected a mission of its network"),
    ):
        with pytest.raises(InputError, match=words):
            _block(layout, Plan(), refits=refits)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Native, Layout, Plan]:
    _, graph, channels = captured("concat")
    native, layout = _folder("concat", tmp_path_factory.mktemp("made") / "c", Plan())
    return native, layout, random_plan(graph, channels, "partial", 2)


def _mended(block: bytes, changes: Mapping[int, bytes]) -> bytes:
    """Other bytes in places, and a CRC-32 that agrees."""
    new = bytearray(block)
    for at, value in changes.items():
        new[at : at + len(value)] = value
    new[12:16] = struct.pack("<I", zlib.crc32(new[16:]))
    return bytes(new)


def test_what_is_refused_leaves_the_mission_as_it_was(made: tuple[Native, Layout, Plan]) -> None:
    native, layout, plan = made
    device = _Device(native)
    assert device.load(_block(layout, plan, 7)) == 0
    before, held = device.scores(), bytes(device.mission)
    newer = _block(layout, Plan(), 8)
    foreign = replace(layout, input=(3, 9, 9))
    other_weights = replace(layout, weights_id=layout.weights_id ^ 1)
    cases = [
        (b"", BLOCK), (newer[:40], BLOCK), (newer[:-1], BLOCK), (newer + b"\0", BLOCK),
        (b"X" + newer[1:], BLOCK), (newer[:-1] + b"X", BLOCK),
        (_block(layout, Plan(), 7), OLD), (_block(layout, Plan(), 6), OLD),
        (_block(foreign, Plan(), 8), MISSION), (_block(other_weights, Plan(), 8), MISSION),
        (_mended(newer, {36: b"\0\0\0\0"}), BLOCK),  # no outputs
        (_mended(newer, {44: struct.pack("<H", layout.n_scores)}), BLOCK),  # a score too far
    ]  # fmt: skip
    for block, status in cases:
        assert device.load(block) == status
        assert (bytes(device.mission), device.serial.value) == (held, 7)
    for n in (0, 100, 500):
        assert device.load(newer, n) == ROOM
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(newer), 3000):  # a CRC-32 sees every change of one byte
        changed = bytearray(newer)
        changed[at] ^= int(rng.integers(1, 256))
        assert device.load(bytes(changed)) in (BLOCK, MISSION)
    assert np.array_equal(device.scores(), before)
    assert device.load(newer) == 0


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True], ids=["bitmaps", "weights"])
@pytest.mark.parametrize(
    "name",
    exhaustive(
        ["concat", "depthwise", "residual through concat", "flatten to linear"],
        ("depthwise", "flatten to linear").__contains__,
    ),
)
def test_no_block_reads_or_writes_beyond_its_bounds(name: str, own: bool, tmp_path: Path) -> None:
    """Changed blocks whose CRC-32 was mended, under sanitizers: refused, or run within bounds."""
    _, graph, channels = captured(name)
    folder = tmp_path / "c"
    _, layout = _folder(name, folder, Plan())
    plan = random_plan(graph, channels, "channels" if own else "partial", 2)
    more = _of_its_own(layout, graph, channels, plan, 1)[1] if own else {}
    (folder / "later").write_bytes(_block(layout, plan, **more))
    shutil.copy(Path(__file__).parent / "load_blocks.c", folder)
    sources = ["load_blocks.c", "model.c", "load_mission.c", "missions/first.c", "weights.c"]
    flags = ["-std=c11", *STRICT, "-g", "-O1", "-fsanitize=address,undefined",
             "-fno-sanitize-recover"]  # fmt: skip
    command = ["cc", *flags, *sources, "-lm", "-o", "load_blocks"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
    done = subprocess.run(
        ["./load_blocks", "later", "5000", "1"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[:3000]
    tried, taken = (int(word) for word in done.stdout.split() if word.isdecimal())
    assert tried == 5001
    assert 0 < taken < tried  # what is still a mission, such as one of other words, is one


def test_a_mission_of_another_network_is_no_block(made: tuple[Native, Layout, Plan]) -> None:
    _, layout, _ = made
    site, shape = next((s.site, s.shape) for s in layout.slots if s.site != layout.scores)
    some = np.ones(shape, bool)
    some[0] = False
    for keep, outputs, words in (
        ({"elsewhere": some}, (0,), "no mask"),
        ({site: some[:, 1:]}, (0,), "at its input size"),
        ({}, (layout.n_scores,), "a name for each"),
        ({}, (), "a name for each"),
    ):
        with pytest.raises(InputError, match=words):
            mission_block(layout, "m", names(len(outputs)), outputs, keep, 1)


def test_a_layout_that_was_changed_is_refused(
    made: tuple[Native, Layout, Plan], tmp_path: Path
) -> None:
    _, layout, _ = made
    whole = json.loads(layout.json())
    for change in (
        {"format": 1}, {"n_scores": 0}, {"more": 1}, {"input": [3, 0, 8]},
        {"slots": [{**whole["slots"][0], "order": [0, 0]}]},
        {"slots": [{**whole["slots"][0], "strips": [[10**6, 9]]}]},
    ):  # fmt: skip
        (tmp_path / "layout.json").write_text(json.dumps({**whole, **change}))
        with pytest.raises(InputError, match=r"layout\.json"):
            read_layout(tmp_path)
    (tmp_path / "layout.json").unlink()
    with pytest.raises(InputError, match="--loadable"):
        read_layout(tmp_path)
