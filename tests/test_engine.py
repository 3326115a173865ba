"""The C engine says what torch says of masked networks, whatever the structure and the target."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from architectures import ARCHITECTURES, SIDE, build
from distillnet.capture import capture
from distillnet.channels import Channels, analyse
from distillnet.engine import (
    MissionBits,
    Native,
    Program,
    build_native,
    compact_mission,
    compile_graph,
    noise_image,
    switchable,
    switchable_mission,
    write_folder,
)
from distillnet.graph import Graph
from distillnet.plan import Plan
from distillnet.surgery import compact, mask
from plans import STYLES, random_plan, scores

TOLERANCE = 1e-4  # of the outputs' range
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
# Vectors of every width that there is, in turns.
WIDTHS = {
    "scalar": ("-O1", "-DLANES=1"),
    "SSE or NEON": ("-O1",),
    "native": ("-O1", "-march=native"),
}


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
    program = compile_graph(switchable(graph, channels.sites))
    assert within(program)
    wanted = {style: masked_scores(graph, plan, image) for style, plan in plans.items()}
    missions = {
        style: switchable_mission(program, graph, plan, style, names(len(wanted[style])))
        for style, plan in plans.items()
    }
    folder = export(program, list(missions.values()), list(wanted.values()), tmp_path / "all")
    native = compiled(program, folder, *WIDTHS[width])
    for style, mission in missions.items():
        check(native, mission, image, wanted[style])

    plan = plans["partial"]
    less = compact(graph, channels, plan)
    alone = compile_graph(less)
    assert within(alone)
    mission = compact_mission(alone, less, "only", names(len(wanted["partial"])))
    folder = export(alone, [mission], [wanted["partial"]], tmp_path / "one")
    check(compiled(alone, folder, *WIDTHS[width]), mission, image, wanted["partial"])
