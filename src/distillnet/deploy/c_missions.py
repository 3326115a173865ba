"""Runs as missions of one network in C: their programs, and the PyTorch they have to agree with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from distillnet.cut.bitmaps import unpack
from distillnet.cut.plan import Plan
from distillnet.deploy.networks import Deployable, distilled_network, original_model
from distillnet.engine import (
    Layout,
    MissionBits,
    MissionPlan,
    Program,
    compile_compact,
    compile_loadable,
    compile_switchable,
    identifier,
    noise_image,
)
from distillnet.errors import InputError
from distillnet.files.tensors import read_tensors
from distillnet.graph import Graph
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.channels import analyse
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.runs import Run
from distillnet.missions.packages.changes import changed_layers
from distillnet.missions.packages.graphs import named_as

__all__ = [
    "ReferencedMission",
    "check_form",
    "compact_program",
    "fused_bitmaps",
    "mission_name",
    "missions_of_runs",
    "noise_batch",
    "noise_scale",
    "plans_of_runs",
    "switchable_program",
    "torch_scores",
]


@dataclass(frozen=True)
class ReferencedMission:
    """A mission with the network of reference, normalised (N, C, H, W) -> its scores."""

    bits: MissionBits
    reference: nn.Module


def compact_program(
    network: Deployable, name: str, *, by_rows: bool = False
) -> tuple[Program, ReferencedMission]:
    """A network, whole, as the one mission of its program; ``by_rows`` as ``compile_compact``."""
    channels, height, width = network.shape
    graph = capture(network.module, (height, width), channels=channels)
    program, bits = compile_compact(graph, name, network.classes, by_rows=by_rows)
    return program, ReferencedMission(bits, network.module)


def mission_name(run: Run, taken: Sequence[str] = ()) -> str:
    """What C calls a run: its folder's name, unlike those that are taken."""
    return identifier(run.directory.resolve().name, taken)


def fused_bitmaps(run: Run) -> dict[str, Tensor]:
    """A run's keep maps by site; InputError where they are damaged."""
    path = run.directory / "bitmaps.safetensors"
    try:
        packed = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); distill again") from error
    fused = {
        name.removeprefix("fused/"): values
        for name, values in packed.items()
        if name.startswith("fused/")
    }
    try:
        return unpack(fused)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_form(
    others: Sequence[Run], *, as_missions: bool, loadable: bool = False, with_unknown: bool = False
) -> None:
    """Raise InputError where what was asked of a folder of C does not go together."""
    if with_unknown and as_missions:
        raise InputError(
            "found --with-unknown with --switchable, whose missions share one head; expected one "
            "of them. Export without --switchable"
        )
    for name, given in (("--loadable", loadable), ("--mission", bool(others))):
        if given and not as_missions:
            raise InputError(
                f"found {name} without --switchable; a compact network has one mission. Add "
                "--switchable to keep all weights"
            )


def switchable_program(
    run: Run,
    others: Sequence[Run],
    named: str | None = None,
    *,
    loadable: bool = False,
    by_rows: bool = False,
) -> tuple[Program, list[ReferencedMission], Layout | None]:
    """One program with all weights of the original, and the runs as its missions.

    What a run refitted is its mission's own, beside the shared weights.

    Args:
        named: the original as the user names it now, see ``original_model``.
        loadable: with masks at all sites and their layout, for missions that come later.
        by_rows: steps run by turns where that makes the arena smaller.

    Raises:
        InputError: runs of different networks, or one that splits layers of the original.
    """
    graph, wanted, networks = missions_of_runs((run, *others), named)
    layout = None
    if loadable:
        program, bits, layout = compile_loadable(graph, wanted, by_rows=by_rows)
        layout = replace(layout, original_sha256=run.weights_sha256)
    else:
        program, bits = compile_switchable(graph, wanted, by_rows=by_rows)
    modules = (network.module for network in networks)
    referenced = [ReferencedMission(b, r) for b, r in zip(bits, modules, strict=True)]
    return program, referenced, layout


def missions_of_runs(
    runs: Sequence[Run], named: str | None = None
) -> tuple[Graph, list[MissionPlan], list[Deployable]]:
    """The original of all of ``runs``, what each is as a mission of it, and as a network alone.

    Raises:
        InputError: see ``switchable_program``.
    """
    graph, plans = plans_of_runs(runs, named)
    wanted: list[MissionPlan] = []
    networks: list[Deployable] = []
    for one, plan in zip(runs, plans, strict=True):
        network = distilled_network(one)
        networks.append(network)
        small = named_as(
            capture(network.module, network.shape[1:], channels=network.shape[0]), network.module
        )
        refits = changed_layers(graph, plan, small.params, str(one.directory))
        name = mission_name(one, [m.name for m in wanted])
        wanted.append(MissionPlan(name, plan, one.mission.names, refits))
    return graph, wanted, networks


def plans_of_runs(runs: Sequence[Run], named: str | None = None) -> tuple[Graph, list[Plan]]:
    """The original of all of ``runs`` at their input size, and what their bitmaps keep of it.

    ``named`` is the original as the user names it now, see ``original_model``.

    Raises:
        InputError: runs of different networks, or bitmaps of another one.
    """
    run = runs[0]
    for other in runs:
        same = (
            other.result["model"] == run.result["model"]
            and other.weights_sha256 == run.weights_sha256
            and other.result["distilled"]["input_size"] == run.result["distilled"]["input_size"]
        )
        if not same:
            raise InputError(
                f"{other.directory} is of {other.result['model']} at "
                f"{other.result['distilled']['input_size']}, {run.directory} of "
                f"{run.result['model']} at {run.result['distilled']['input_size']}, or their "
                "weights differ; expected missions of one network. Export them separately"
            )
    height, width = run.result["distilled"]["input_size"]
    try:
        model = original_model(run, (height, width), named)
    except InputError as error:
        raise InputError(
            f"{error} A switchable network needs all weights of {run.result['model']}; bring them "
            "back, or export without --switchable"
        ) from error
    graph = capture_model(model, (height, width))
    plans = [Plan(fused_bitmaps(r), r.mission.indices) for r in runs]
    _check_bitmaps(graph, runs, plans)
    return graph, plans


def _check_bitmaps(graph: Graph, runs: Sequence[Run], plans: Sequence[Plan]) -> None:
    sites = {site: graph[site].shape for site in analyse(graph).sites}
    for run, plan in zip(runs, plans, strict=True):
        for site, keep in plan.keep.items():
            if sites.get(site) != tuple(keep.shape):
                raise InputError(
                    f"{run.directory} has a bitmap {tuple(keep.shape)} for {site!r}, where the "
                    f"network has {sites.get(site)}; expected bitmaps of this network. Distill "
                    "again"
                )


def torch_scores(module: nn.Module, x_nchw: NDArray[Any]) -> NDArray[np.float32]:
    """A module's scores (N, classes) of images (N, C, H, W)."""
    with torch.inference_mode():
        y: NDArray[np.float32] = module(torch.from_numpy(x_nchw)).numpy()
    return y


def noise_scale(how: Preprocessing) -> float:
    """The largest value that a normalised image holds: what the test image is scaled to."""
    largest: float = max(
        max(abs(m), abs(255 / how.divisor - m)) / s for m, s in zip(how.mean, how.std, strict=True)
    )
    return float(np.float32(largest))


def noise_batch(network: Deployable) -> Tensor:
    """The image (1, C, H, W) on which a network and its C are compared."""
    return torch.from_numpy(noise_image(network.shape, noise_scale(network.preprocessing)))[None]
