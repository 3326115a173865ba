"""A run as a folder of C, checked against PyTorch; runs of one network as missions of it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distillnet.cut.bitmaps import unpack
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.deploy.agreement import Agreement, compare
from distillnet.deploy.networks import Deployable, distilled_network, original_model
from distillnet.engine import (
    MissionBits,
    MissionPlan,
    Native,
    Program,
    build_native,
    compile_compact,
    compile_switchable,
    compiler,
    identifier,
    noise_image,
    write_folder,
)
from distillnet.errors import DistillnetError, InputError
from distillnet.evaluate import Evaluation
from distillnet.graph import Graph, GraphModule
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.channels import analyse
from distillnet.images import Batch
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.runs import Run, evaluate_scores

__all__ = [
    "C_MARKER",
    "CFolder",
    "CMission",
    "c_scores",
    "evaluate_c",
    "export_c",
    "open_c",
    "write_c",
]

# What tells a folder of C, which may be replaced, from a folder of somebody else's sources.
C_MARKER = "model.h"
_ABOUT = "about.json"


@dataclass(frozen=True)
class CMission:
    """A mission in a folder, and how far its scores lie from PyTorch's on an image of noise.

    ``difference`` is a share of the scores' range; None where no compiler is there to tell.
    """

    name: str
    classes: tuple[str, ...]
    difference: float | None


@dataclass(frozen=True)
class CFolder:
    """What was written: sizes in bytes; ``arena_share`` over all that is alive at once."""

    missions: tuple[CMission, ...]
    switchable: bool
    arena_bytes: int
    arena_share: float
    weight_bytes: int


@dataclass(frozen=True)
class _Mission:
    """A mission with the network of reference, normalised (N, C, H, W) -> its scores."""

    bits: MissionBits
    reference: nn.Module


def _compact(network: Deployable, name: str) -> tuple[Program, _Mission]:
    channels, height, width = network.shape
    graph = capture(network.module, (height, width), channels=channels)
    program, bits = compile_compact(graph, name, network.classes)
    return program, _Mission(bits, network.module)


def write_c(network: Deployable, folder: Path, prefix: str = "model", banner: str = "") -> None:
    """Write one network, whole, into an existing folder."""
    program, mission = _compact(network, identifier(network.name))
    _write(program, [mission], folder, prefix, banner, network)


def export_c(
    run: Run,
    folder: Path,
    prefix: str,
    others: Sequence[Run] = (),
    *,
    as_missions: bool = False,
    command: str = "",
) -> CFolder:
    """Write a run into an existing folder and compare it with PyTorch.

    Args:
        others: runs of the same network and weights, as further missions; needs ``as_missions``.
        as_missions: keep all weights and take each run's bitmaps as a mission; else write the
            compact network.
        command: what was asked for, to stand in the files.

    Raises:
        InputError: a run cannot be a mission of this network's own weights; the prefix.
        DistillnetError: scores differ.
    """
    distilled = distilled_network(run)
    banner = f"Written by {distilled.provenance['producer']}: {command or 'export --format c'}"
    if as_missions:
        program, missions = _switchable(run, others)
    elif others:
        raise InputError(
            "found --mission without --switchable; a compact network has one mission. Add "
            "--switchable to keep all weights"
        )
    else:
        program, mission = _compact(distilled, _name_of(run, ()))
        missions = [mission]
    _write(program, missions, folder, prefix, banner, distilled)
    differences = _differences(folder, missions, distilled)
    return CFolder(
        tuple(
            CMission(m.bits.name, m.bits.classes, d)
            for m, d in zip(missions, differences, strict=True)
        ),
        as_missions,
        4 * program.arena_floats,
        program.arena_floats / program.least_floats,
        program.weights.nbytes,
    )


def _name_of(run: Run, taken: Sequence[str]) -> str:
    return identifier(run.directory.resolve().name, taken)


def _bitmaps(run: Run) -> dict[str, Tensor]:
    path = run.directory / "bitmaps.safetensors"
    try:
        packed = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); distill again") from error
    fused = {
        name.removeprefix("fused/"): values
        for name, values in packed.items()
        if name.startswith("fused/")
    }
    return unpack(fused)


def _switchable(run: Run, others: Sequence[Run]) -> tuple[Program, list[_Mission]]:
    """One program with all weights of the original, and the runs as its missions."""
    for other in (run, *others):
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
                "weights differ; expected missions of one network. Export them apart"
            )
    height, width = run.result["distilled"]["input_size"]
    try:
        model = original_model(run, (height, width))
    except InputError as error:
        raise InputError(
            f"{error} A switchable network needs all weights of {run.result['model']}; bring them "
            "back, or export without --switchable"
        ) from error
    graph = capture_model(model, (height, width))
    plans = [Plan(_bitmaps(r), r.mission.indices) for r in (run, *others)]
    _check_bitmaps(graph, (run, *others), plans)
    wanted: list[MissionPlan] = []
    references: list[nn.Module] = []
    for one, plan in zip((run, *others), plans, strict=True):
        references.append(_Outputs(GraphModule(mask(graph, plan)).eval(), one.mission.indices))
        _check_weights(one, references[-1])
        name = _name_of(one, [m.name for m in wanted])
        wanted.append(MissionPlan(name, plan, one.mission.names))
    program, bits = compile_switchable(graph, wanted)
    return program, [_Mission(b, r) for b, r in zip(bits, references, strict=True)]


class _Outputs(nn.Module):
    """Some of a network's scores."""

    def __init__(self, module: nn.Module, outputs: Sequence[int]) -> None:
        super().__init__()
        self.module, self.outputs = module, list(outputs)

    def forward(self, x_nchw: Tensor) -> Tensor:
        y: Tensor = self.module(x_nchw)[:, self.outputs]
        return y


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


def _check_weights(run: Run, reference: nn.Module) -> None:
    """The bitmaps on the original weights must say what the run's own network says."""
    network = distilled_network(run)
    found = compare(network.module, lambda x: _scores(reference, x), _noise(network))
    if not found.holds:
        raise InputError(
            f"the weights of {run.directory} were changed after its channels were cut "
            f"(method {run.result['method']}: scores differ by {found.largest:.1e} of their "
            "range); expected a run whose bitmaps stand on the original weights, which missions "
            "share. Distill with --method paper, or export without --switchable"
        )


def _scores(module: nn.Module, x_nchw: NDArray[Any]) -> NDArray[np.float32]:
    with torch.inference_mode():
        y: NDArray[np.float32] = module(torch.from_numpy(x_nchw)).numpy()
    return y


def _scale(how: Preprocessing) -> float:
    """The largest value that a normalised image holds: what the test image is scaled to."""
    largest: float = max(
        max(abs(m), abs(255 / how.divisor - m)) / s for m, s in zip(how.mean, how.std, strict=True)
    )
    return float(np.float32(largest))


def _noise(network: Deployable) -> Tensor:
    return torch.from_numpy(noise_image(network.shape, _scale(network.preprocessing)))[None]


def _write(
    program: Program,
    missions: Sequence[_Mission],
    folder: Path,
    prefix: str,
    banner: str,
    network: Deployable,
) -> None:
    how = network.preprocessing
    image = _noise(network).numpy()
    expected = {m.bits.name: _scores(m.reference, image)[0] for m in missions}
    words = (
        f"{how.channels} of size {how.input_size[0]} x {how.input_size[1]}, values 0 to 255 over "
        f"{how.divisor:g}, minus {list(how.mean)}, over {list(how.std)}"
    )
    write_folder(
        program,
        [m.bits for m in missions],
        expected,
        folder,
        prefix,
        banner=banner or f"Written by {network.provenance['producer']}",
        preprocessing=words,
        scale=_scale(how),
    )
    about = {
        "prefix": prefix,
        "shape": list(network.shape),
        "missions": {m.bits.name: list(m.bits.classes) for m in missions},
        "provenance": network.provenance,
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _differences(
    folder: Path, missions: Sequence[_Mission], network: Deployable
) -> list[float | None]:
    try:
        compiler()
    except InputError:
        return [None] * len(missions)
    found: list[float | None] = []
    with TemporaryDirectory() as name:
        native, _ = open_c(folder, Path(name))
        for mission in missions:
            agreement = _compare(native, mission, _noise(network))
            if not agreement.holds:
                raise DistillnetError(
                    f"the compiled network's scores for {mission.bits.name} differ by "
                    f"{agreement.largest:.1e} of their range; please report this with the model"
                )
            found.append(agreement.largest)
    return found


def _compare(native: Native, mission: _Mission, x_nchw: Tensor) -> Agreement:
    bound = native.mission(mission.bits.name)
    return compare(mission.reference, lambda x: native.scores(bound, x), x_nchw)


def open_c(folder: Path, work: Path) -> tuple[Native, Mapping[str, Sequence[str]]]:
    """Compile a folder that ``export --format c`` wrote; the classes of its missions beside it.

    Args:
        work: an existing folder for the library; nothing is written into ``folder``.

    Raises:
        InputError: there is no such folder, or no compiler.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        prefix, shape, missions = about["prefix"], tuple(about["shape"]), about["missions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} is not a folder of C ({type(error).__name__}: {error}); write it with "
            "`distillnet export RUN --format c`"
        ) from error
    return build_native(folder, prefix, shape, work / f"{prefix}.so"), missions


def c_scores(folder: Path, work: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The first mission's scores of normalised images (N, C, H, W)."""
    native, missions = open_c(folder, work)
    bound = native.mission(next(iter(missions)))
    return lambda x_nchw: native.scores(bound, x_nchw)


def evaluate_c(run: Run, folder: Path, batches: Iterable[Batch]) -> Evaluation:
    """A compiled network's closed-set accuracy on images of the mission's classes.

    Raises:
        InputError: the folder has no mission of the run's classes, or there is no compiler.
    """
    with TemporaryDirectory() as name:
        native, missions = open_c(folder, Path(name))
        wanted = list(run.mission.names)
        fitting = [mission for mission, classes in missions.items() if list(classes) == wanted]
        if not fitting:
            raise InputError(
                f"{folder} has missions of {list(missions.values())}; expected one of the run's "
                f"classes, {wanted}. Export this run"
            )
        bound = native.mission(fitting[0])

        def scores(x_nchw: Tensor) -> Tensor:
            return torch.from_numpy(native.scores(bound, x_nchw.numpy()))

        return evaluate_scores(run, folder, scores, batches)
