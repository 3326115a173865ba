"""Folders of C of small networks: written, compiled, and compared with the mask."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from architectures import SIDE, captured
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.engine import (
    LayerRefit,
    MissionBits,
    MissionPlan,
    Native,
    Program,
    build_native,
    compile_switchable,
    noise_image,
    write_folder,
)
from distillnet.graph import Graph
from distillnet.refit.compensation import with_biases
from plans import random_plan, scores
from targets import STRICT

__all__ = [
    "TOLERANCE",
    "check",
    "compiled",
    "difference",
    "export",
    "masked_scores",
    "mission_plans",
    "missions_of",
    "names",
    "plain",
    "refitted",
    "shape_of",
    "within",
]

TOLERANCE = 1e-4  # of the outputs' range


def difference(got: np.ndarray, want: np.ndarray) -> float:
    scale = max(want.max() - want.min(), 0.1 * np.abs(want).max(), 1e-30)
    return float(np.abs(got - want).max() / scale)


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
    write_folder(program, missions, expected, folder, "net", banner="tests", **options)  # type: ignore[arg-type]
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


def within(program: Program) -> bool:
    """At most 5 % beyond what is alive at once, and one block to read beyond the end."""
    return program.arena_floats - 16 <= 1.05 * program.least_floats + 64


def missions_of(name: str, folder: Path) -> Path:
    """A folder with a dense and a partial mission of one of the small architectures."""
    _, graph, channels = captured(name)
    plans = {"dense": Plan(), "partial": random_plan(graph, channels, "partial", 7)}
    image = noise_image((3, SIDE, SIDE), 1.0)  # what test_vector.c makes
    wanted = {style: masked_scores(graph, plan, image) for style, plan in plans.items()}
    program, missions = compile_switchable(graph, mission_plans(plans, wanted))
    return export(program, missions, list(wanted.values()), folder)


def refitted(
    graph: Graph, layers: Collection[str], seed: int
) -> tuple[Graph, dict[str, LayerRefit]]:
    """The network with other biases, and other weights where ``seed`` says, and these by layer.

    Of three layers one keeps what it had, one gets biases, and one weights, too; with seed 0 all
    get weights.
    """
    draw = torch.Generator().manual_seed(seed)
    whole = with_biases(graph)
    params, refits = dict(whole.params), {}
    for i, node in enumerate(n for n in whole.nodes if n.name in layers):
        kind = (i + seed) % 3 if seed else 2
        if kind == 0:
            continue
        for role, name in node.params.items():
            if role == "bias" or kind == 2:
                noise = torch.randn(params[name].shape, generator=draw, dtype=torch.float64)
                params[name] = params[name] + 0.3 * noise * (1 + params[name].abs().mean())
        arrays = {role: params[name].numpy() for role, name in node.params.items()}
        refits[node.name] = LayerRefit(arrays["bias"], arrays["weight"] if kind == 2 else None)
    return replace(whole, params=params), refits
