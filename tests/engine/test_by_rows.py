"""Steps that run by turns, row by row, say what they say one after the other, in less memory."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from architectures import ARCHITECTURES, SIDE, captured
from compiling import TOLERANCE, difference, export, masked_scores, mission_plans, names, within
from distillnet.cut.plan import Plan
from distillnet.engine import (
    MissionBits,
    build_native,
    compile_compact,
    compile_switchable,
    noise_image,
    prepare_compact,
)
from distillnet.engine.by_rows import planning
from distillnet.engine.int8 import find_ranges, quantise, reference_scores, write_int8_folder
from distillnet.engine.steps import Program
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from plans import random_plan
from random_networks import check_random_network
from selection import exhaustive
from targets import STRICT

MAPS = {
    "pool": nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    "pointwise": nn.Sequential(nn.Conv2d(3, 24, 1), nn.ReLU(), nn.Conv2d(24, 4, 1)),
    "depthwise": nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(),
        nn.Conv2d(8, 32, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, 2, 1, groups=32), nn.ReLU6(),
    ),
    "dilated": nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 2, 3, dilation=2)),
}  # fmt: skip


def graph_of(maps: nn.Module, side: int = 32) -> Graph:
    torch.manual_seed(0)
    network = nn.Sequential(maps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))
    network(torch.zeros(1, 3, side, side))
    return capture(network.eval(), (side, side))


def windows(program: Program) -> dict[str, tuple[int, int]]:
    """By buffer of which a window is kept: its rows, and those of all of it."""
    return {name: (b.window, b.rows) for name, b in program.buffers.items() if b.window is not None}


@pytest.mark.parametrize(
    ("maps", "rows"),
    [
        # What the kernels that read them are high: a 3 x 3 convolution, a pool of 3 rows.
        ("pool", [(3, 34), (3, 32)]),
        ("pointwise", [(1, 32), (1, 32)]),
        ("depthwise", [(3, 33), (3, 18), (1, 16), (3, 17)]),
        ("dilated", [(3, 32), (5, 30)]),
    ],
)
def test_windows_are_as_high_as_what_reads_them(maps: str, rows: list[tuple[int, int]]) -> None:
    program, _ = compile_compact(graph_of(MAPS[maps]), "all", names(5), by_rows=True)
    assert list(windows(program).values())[::-1] == rows
    assert within(program)


@pytest.mark.parametrize("name", ["pool", "depthwise"])
def test_memory_falls_to_what_is_counted_by_hand(name: str) -> None:
    graph = graph_of(MAPS[name])
    whole, _ = compile_compact(graph, "all", names(5))
    less, _ = compile_compact(graph, "all", names(5), by_rows=True)
    by_hand = {
        "pool": (16 * 32 * 32 + 16 * 15 * 15, 3 * 34 * 3 + 16 * 32 * 3 + 16 * 15 * 15),
        "depthwise": (
            8 * 16 * 16 + 32 * 17 * 17,
            3 * 33 * 3 + 8 * 18 * 3 + 8 * 16 + 32 * 17 * 3 + 32 * 8 * 8,
        ),
    }
    assert (whole.least_floats, less.least_floats) == by_hand[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_memory_never_grows(name: str) -> None:
    _, graph, _ = captured(name)
    classes = names(graph[graph.output].shape[0])
    whole, less = (compile_compact(graph, "all", classes, by_rows=b)[0] for b in (False, True))
    assert less.least_floats <= whole.least_floats
    assert within(less)
    assert bool(less.chains) == (less.least_floats < whole.least_floats)


def written(program: Program, missions: list[MissionBits], wanted: list, folder: Path):
    export(program, missions, wanted, folder)
    shape = program.places[program.input].shape
    return build_native(folder, "net", shape, flags=("-O1", *STRICT))


@pytest.mark.parametrize("name", MAPS)
def test_floats_are_the_same_to_the_last_bit(name: str, tmp_path: Path) -> None:
    graph = graph_of(MAPS[name]).to(torch.float32)
    image = noise_image((3, 32, 32), 1.0)[None]
    scores = {}
    for by_rows in (False, True):
        program, mission = compile_compact(graph, "all", names(5), by_rows=by_rows)
        native = written(program, [mission], [np.zeros(5)], tmp_path / str(by_rows))
        native.arena[:] = 0xFF  # NaN
        scores[by_rows] = native.scores(native.mission("all"), image)
        assert bool(program.chains) == by_rows
    assert np.isfinite(scores[True]).all()
    assert np.array_equal(scores[False], scores[True])


@pytest.mark.parametrize("name", ["stride and dilation", "depthwise", "pools"])
def test_missions_skip_in_rows_what_they_skip_in_maps(name: str, tmp_path: Path) -> None:
    _, graph, channels = captured(name)
    plans = {"dense": Plan(), "partial": random_plan(graph, channels, "partial", 3)}
    image = noise_image((3, SIDE, SIDE), 1.0)
    wanted = {style: masked_scores(graph, plan, image) for style, plan in plans.items()}
    program, missions = compile_switchable(graph, mission_plans(plans, wanted), by_rows=True)
    native = written(program, list(missions), list(wanted.values()), tmp_path / "c")
    for mission in missions:
        native.arena[:] = 0xFF
        got = native.scores(native.mission(mission.name), image[None])[0]
        assert difference(got, wanted[mission.name]) <= TOLERANCE


@pytest.mark.parametrize("block", [1, 16])
@pytest.mark.parametrize("name", MAPS)
def test_bytes_are_those_of_the_reference(name: str, block: int, tmp_path: Path) -> None:
    prepared = prepare_compact(graph_of(MAPS[name]).to(torch.float32), "all", names(5))
    image = noise_image((3, 32, 32), 1.0)[None]
    ranges = find_ranges(prepared.graph, torch.from_numpy(image))["MinMax"]
    network, (mission,) = quantise(prepared.graph, prepared.missions, ranges, block, by_rows=True)
    assert network.program.chains
    wanted = reference_scores(network, image, mission)
    folder = tmp_path / "c"
    folder.mkdir()
    write_int8_folder(network, [mission], {"all": wanted[0]}, folder, "net", banner="b")
    flags = ("-O1", *(("-mavx2",) if block == 16 else ()), *STRICT)
    native = build_native(folder, "net", (3, 32, 32), flags=flags, weights_type="u1")
    native.arena[:] = 0xFF
    assert np.array_equal(native.scores(native.mission("all"), image), wanted)


def test_what_is_not_padded_goes_by_rows_unless_told_otherwise() -> None:
    prepared = prepare_compact(graph_of(MAPS["pool"]).to(torch.float32), "all", names(5))
    ranges = find_ranges(prepared.graph, torch.zeros(1, 3, 32, 32))["MinMax"]
    network = partial(quantise, prepared.graph, prepared.missions, ranges)
    found = {block: bool(network(block)[0].program.chains) for block in (1, 16)}
    assert found == {1: True, 16: False}
    assert not network(1, by_rows=False)[0].program.chains


@pytest.mark.slow
# Vectors of four, this machine's, scalars.
@pytest.mark.parametrize("seed", exhaustive([4, 119, 120], (4).__eq__))
def test_windows_are_never_left(seed: int, tmp_path: Path, monkeypatch) -> None:
    """In chains as long as can be, whatever they save."""

    def longest(self: planning._Planner) -> tuple[planning._Piece, ...]:
        pieces: list[planning._Piece] = []
        while (last := pieces[-1].first - 1 if pieces else len(self.steps) - 1) >= 0:
            pieces.append(self._ending(last)[-1])
        return tuple(reversed(pieces))

    monkeypatch.setattr(planning._Planner, "best", longest)
    assert check_random_network(seed, tmp_path, by_rows=True) == 4  # missions
