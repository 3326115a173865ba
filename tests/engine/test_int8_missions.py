"""Missions over one set of weights in 8 bits: the C is the reference, bit by bit, for each."""

import re
from dataclasses import dataclass, replace
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from architectures import SIDE, captured, randomise
from compiling import mission_plans, names, refitted
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.engine import (
    MissionBits,
    MissionPlan,
    Native,
    Prepared,
    build_native,
    compile_loadable,
    computed_macs,
    noise_image,
    prepare_compact,
    prepare_switchable,
)
from distillnet.engine.int8 import (
    Quantised,
    find_ranges,
    quantise,
    reference_scores,
    unit_of,
    united,
    write_int8_folder,
)
from distillnet.engine.int8.missions import few_words
from distillnet.engine.spans import ActiveStrip
from distillnet.engine.steps import Strip
from distillnet.errors import UnsupportedError
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from plans import random_plan, scores
from selection import exhaustive
from targets import STRICT, run_elsewhere

REFUSED = {"layer_norm", "group_norm", "channel_conv", "channel_max"}
SOME = ("concat", "depthwise", "local response norm", "wide")
MORE = (
    "flatten to linear", "grouped", "padding", "pools, padded", "residual through concat",
    "split, slice and pick", "squeeze-excite", "scores made of scores", "two heads",
)  # fmt: skip
TARGETS = ("dot products", "neon", "cortex-m4", "sanitized", "sanitized, unpadded")
KERNELS = {
    "plain": (16, ("-O1",)),
    "unpadded": (1, ("-O1",)),
    "avx2": (16, ("-O1", "-mavx2", "-mfma")),
    "avx-vnni": (16, ("-O1", "-mavx2", "-mfma", "-mavxvnni")),
    "native": (16, ("-O1", "-march=native")),
}
NEEDS = {"avx2": "avx2", "avx-vnni": "avx_vnni"}
IMAGES = np.stack(
    [noise_image((3, SIDE, SIDE), 1.5)]
    + [np.random.default_rng(i).uniform(-2, 2, (3, SIDE, SIDE)).astype(np.float32) for i in (0, 1)]
)


def wide() -> nn.Module:
    """Layers of several strips, the last of them on a map as a whole."""
    return nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(40, 72, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(72 * ((SIDE // 2) - 2) ** 2, 70), nn.ReLU(), nn.Linear(70, 9),
    )  # fmt: skip


def graph_of(name: str) -> Graph:
    if name == "wide":
        return capture(randomise(wide(), 3), (SIDE, SIDE)).to(torch.float32)
    return captured(name)[1].to(torch.float32)


@dataclass(frozen=True)
class Case:
    """Missions of a graph, and by mission the float network that each is."""

    prepared: Prepared
    networks: dict[str, Graph]

    def quantised(self, block: int) -> tuple[Quantised, tuple[MissionBits, ...]]:
        x = torch.from_numpy(IMAGES)
        ranges = united([find_ranges(graph, x)["MinMax"] for graph in self.prepared.graphs])
        return quantise(self.prepared.graph, self.prepared.missions, ranges, block)


def case(name: str) -> Case:
    """All of a network, a part, another part, and a part with parameters of its own."""
    graph = graph_of(name)
    channels = analyse(graph)
    plans = {"dense": Plan()}
    for seed, (style, mission) in enumerate(
        (("partial", "one"), ("borders", "two"), ("channels", "own"), ("partial", "more")), 1
    ):
        plans[mission] = random_plan(graph, channels, style, seed)
    count = graph[graph.output].shape[0]
    whole = MissionPlan("w", Plan(), names(count))
    layers = {s.layer for s in compile_loadable(graph, [whole])[2].slots if s.layer is not None}
    counts = {m: np.zeros(count if p.outputs is None else len(p.outputs)) for m, p in plans.items()}
    missions = mission_plans(plans, counts)
    networks = {mission: mask(graph, plan) for mission, plan in plans.items()}
    for i, seed in ((3, 0), (4, 1)):  # weights for all layers; biases or weights for some
        plan = missions[i].plan
        changed, refits = refitted(graph.to(torch.float64), layers, seed)
        missions[i] = replace(missions[i], refits=refits)
        networks[missions[i].name] = mask(changed.to(torch.float32), plan)
    return Case(prepare_switchable(graph, missions), networks)


def written(network: Quantised, missions: tuple[MissionBits, ...], folder: Path) -> Path:
    image = noise_image((3, SIDE, SIDE), 1.5)[None]
    wanted = {m.name: reference_scores(network, image, m)[0] for m in missions}
    folder.mkdir()
    write_int8_folder(network, missions, wanted, folder, "net", banner="b", scale=1.5)
    return folder


def compiled(folder: Path, flags: tuple[str, ...]) -> Native:
    shape = (3, SIDE, SIDE)
    return build_native(folder, "net", shape, flags=(*flags, *STRICT), weights_type="u1")


def agrees(name: str, kernels: str, folder: Path) -> None:
    if (needs := NEEDS.get(kernels)) and needs not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {needs}")
    block, flags = KERNELS[kernels]
    made = case(name)
    network, missions = made.quantised(block)
    native = compiled(written(network, missions, folder), flags)
    wanted = {m.name: reference_scores(network, IMAGES, m) for m in missions}
    for _ in range(2):  # from each to the next and back to the first
        for mission in missions:
            native.arena[:] = 0xFF
            got = native.scores(native.mission(mission.name), IMAGES)
            assert np.array_equal(got, wanted[mission.name]), mission.name
    for mission in missions:
        real = scores(made.networks[mission.name], torch.from_numpy(IMAGES)).numpy()
        real = real[:, list(mission.outputs)]
        spread = max(float(np.ptp(real)), 1e-6)
        assert float(np.abs(wanted[mission.name] - real).max()) <= 0.25 * spread, mission.name


@pytest.mark.parametrize(("name", "kernels"), [("wide", "plain"), ("depthwise", "unpadded")])
def test_the_c_is_the_reference_under_each_mission(name: str, kernels: str, tmp_path: Path) -> None:
    agrees(name, kernels, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", SOME)
def test_all_kernels_say_the_same_under_each_mission(
    name: str, kernels: str, tmp_path: Path
) -> None:
    agrees(name, kernels, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_missions_agree_whatever_the_structure(name: str, tmp_path: Path) -> None:
    graph = graph_of(name)
    assert not REFUSED & {node.op for node in graph.nodes}
    kernels = list(KERNELS)[sum(map(ord, name)) % len(KERNELS)]
    agrees(name, kernels, tmp_path / "c")


@pytest.mark.parametrize("name", ["wide", "residual through concat"])
def test_a_mission_is_what_it_would_be_alone(name: str) -> None:
    """With the same ranges the whole network gives the same bits, whatever missions are beside
    it."""
    graph = graph_of(name)
    channels, x = analyse(graph), torch.from_numpy(IMAGES)
    count = graph[graph.output].shape[0]
    plans = {"dense": Plan(), "part": random_plan(graph, channels, "partial", 1)}
    wanted = {m: np.zeros(len(p.outputs or range(count))) for m, p in plans.items()}
    shared = prepare_switchable(graph, mission_plans(plans, wanted))
    alone = prepare_compact(graph, "dense", names(count))
    ranges = find_ranges(shared.graphs[0], x)["MinMax"]
    found = []
    for prepared in (shared, alone):
        network, missions = quantise(prepared.graph, prepared.missions, ranges)
        found.append(reference_scores(network, IMAGES, missions[0]))
    assert np.array_equal(*found)


def test_weights_of_inputs_that_are_always_zero_are_not_read(tmp_path: Path) -> None:
    """Whatever lies there: the byte that stands for zero is not 0, so it would show."""
    graph = graph_of("wide")
    first = next(n.name for n in graph.nodes if n.op == "act")
    keep = torch.ones(graph[first].shape, dtype=torch.bool)
    keep[4:24] = False
    plan = Plan({first: keep}, (1, 5))
    prepared = prepare_switchable(graph, mission_plans({"m": plan}, {"m": np.zeros(2)}))
    x = torch.from_numpy(IMAGES) - 1.0  # with numbers below zero in all layers
    ranges = {n: (min(a, -1.0), b) for n, (a, b) in find_ranges(graph, x)["MinMax"].items()}
    ranges = ranges | {
        n: (min(a, -1.0), b) for n, (a, b) in find_ranges(prepared.graphs[0], x)["MinMax"].items()
    }
    network, missions = quantise(prepared.graph, prepared.missions, ranges)
    native = compiled(written(network, missions, tmp_path / "c"), ("-O1",))
    bound = native.mission("m")
    before = native.scores(bound, IMAGES)
    second = [n.name for n in graph.nodes if n.op == "conv"][1]
    weight = network.filters[second].weight_mkkc
    live = prepared.missions[0].live[f"{_end(prepared.graph, second)}"]
    dead = ~live.reshape(weight.shape[1:])
    assert dead.mean() > 0.4
    other = replace(
        network.filters[second], weight_mkkc=np.where(dead, np.int8(77), weight).astype(np.int8)
    )
    changed = replace(network, filters={**network.filters, second: other})
    folder = written(changed, missions, tmp_path / "changed")
    weights = np.frombuffer((folder / "weights.bin").read_bytes(), np.uint8).copy()
    assert not np.array_equal(weights, native.weights)
    bound.weights = weights.ctypes.data
    assert np.array_equal(native.scores(bound, IMAGES), before)


@pytest.mark.parametrize(("block", "wanted", "computed"), [(16, 14, 16), (1, 14, 16), (1, 6, 8)])
def test_channels_that_compute_nothing_stand_apart(
    block: int, wanted: int, computed: int, tmp_path: Path
) -> None:
    """A layer whose channels are scores computes those of the mission alone, in whole units."""
    layers = nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    graph = capture(randomise(layers, 1), (SIDE, SIDE)).to(torch.float32)
    plan = Plan({}, tuple(range(16, 16 + wanted)))
    prepared = prepare_switchable(graph, mission_plans({"m": plan}, {"m": np.zeros(wanted)}))
    ranges = find_ranges(prepared.graphs[0], torch.from_numpy(IMAGES))["MinMax"]
    network, (mission,) = quantise(prepared.graph, prepared.missions, ranges, block)
    macs = computed_macs(network.program, mission.keep, mission.live, unit_of(block))
    assert macs == computed * 27 * SIDE * SIDE
    folder = written(network, (mission,), tmp_path / "c")
    table = re.search(r"strips_0\[\] = \{(.*?)\};", (folder / "missions/m.c").read_text(), re.S)
    assert table is not None
    rows = [list(map(int, row.split(","))) for row in re.findall(r"\{([^{}]*)\}", table[1])]
    assert sum(channels for _, _, _, channels, places, *_ in rows if places) == computed
    assert sum(row[3] for row in rows) == 40


def test_maps_of_missions_are_read_back_from_their_kinds() -> None:
    draw = np.random.default_rng(0)
    for channels, kinds in ((32, 3), (40, 900), (16, 2), (16, 1), (9, 900)):
        count = -(-channels // 16)
        some = draw.integers(0, 2**16, (kinds, count), dtype=np.uint16)
        words = some[draw.integers(0, kinds, 500)]
        part = ActiveStrip(Strip(range(channels), 0, 0), (), words.reshape(-1))
        kind, *rest = few_words(part)
        assert 1 + len(rest) <= 1 + words.size
        if kind == 0:
            found = np.reshape(rest, (-1, count))
        else:
            which = np.array(rest[kind * count :], "<u2").view(np.uint8)[:500]
            found = np.reshape(rest[: kind * count], (-1, count))[which]
        assert np.array_equal(found, words)
        assert (kind == 0) == (kinds > 256)


def _end(graph: Graph, layer: str) -> str:
    """The mask behind a layer."""
    name = layer
    while graph[name].op != "mask":
        name = next(n.name for n in graph.nodes if name in n.inputs)
    return name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    exhaustive(product(SOME, TARGETS), lambda c: c in zip(cycle(SOME), TARGETS)),
)
def test_missions_are_the_same_elsewhere(name: str, target: str, tmp_path: Path) -> None:
    network, missions = case(name).quantised(
        1 if target in ("cortex-m4", "sanitized, unpadded") else 16
    )
    folder = written(network, missions, tmp_path / "c")
    said = run_elsewhere(folder, target)
    assert said.count("PASS") == len(missions)


def test_layers_that_missions_cannot_have_of_their_own_are_refused() -> None:
    graph = graph_of("depthwise")
    layer = next(n.name for n in graph.nodes if n.attrs.get("groups", 1) > 1)
    _, refits = refitted(graph.to(torch.float64), {layer}, 0)
    mission = MissionPlan("m", Plan(), names(graph[graph.output].shape[0]), refits)
    with pytest.raises(UnsupportedError, match="of its own"):
        prepare_switchable(graph, [mission])
