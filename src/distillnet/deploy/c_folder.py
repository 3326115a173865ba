"""A folder of C: written from runs and checked against PyTorch, compiled and called."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from distillnet.deploy.agreement import Agreement, compare
from distillnet.deploy.c_missions import (
    ReferencedMission,
    check_form,
    compact_program,
    mission_name,
    noise_batch,
    noise_scale,
    switchable_program,
    torch_scores,
)
from distillnet.deploy.networks import Deployable, distilled_network
from distillnet.engine import (
    Layout,
    MissionBits,
    Native,
    Program,
    build_native,
    check_prefix,
    compiler,
    computed_macs,
    identifier,
    write_folder,
)
from distillnet.engine.flash import Flash, flash_of
from distillnet.errors import DistillnetError, InputError
from distillnet.evaluate import Evaluation
from distillnet.files.documents import Document, Side, Text, read_document
from distillnet.files.layout import files_in
from distillnet.images import Batch
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.evaluating import evaluate_scores
from distillnet.job.runs import Run
from distillnet.missions.unknown.rule import unknown_name
from distillnet.models.packed import Shared

__all__ = [
    "CFolder",
    "CMission",
    "c_scores",
    "evaluate_c",
    "export_c",
    "open_c",
    "preprocessing_in_c",
    "write_about",
    "write_c",
]

_ABOUT = "about.json"
_FORMAT = 1

_Identifier = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_]{0,60}$")]
_Channels = Annotated[int, Meta(ge=1, le=4096)]


class _About(Document, frozen=True):
    """``about.json``: what a program needs to know that compiles the folder and calls it."""

    format: int
    prefix: _Identifier
    shape: tuple[_Channels, Side, Side]
    missions: Annotated[dict[_Identifier, list[Text]], Meta(min_length=1)]
    provenance: dict[Text, str]
    precision: Literal["float32", "int8"] = "float32"
    files: tuple[Text, ...] = ()


@dataclass(frozen=True)
class CMission:
    """A mission in a folder, and how far its scores lie from PyTorch's on an image of noise.

    ``difference`` is a share of the scores' range; None where no compiler is there to tell.
    ``mac_ratio`` is what the original carries out over what this mission does, in this folder:
    several missions share one order of channels, and each may save less than alone; None where
    older runs do not tell.
    """

    name: str
    classes: tuple[str, ...]
    difference: float | None
    mac_ratio: float | None


@dataclass(frozen=True)
class CFolder:
    """What was written: sizes in bytes; ``arena_share`` over all that is alive at once.

    ``packed_bytes`` of weights in flash, where they lie packed, and are decoded into memory.
    """

    missions: tuple[CMission, ...]
    switchable: bool
    arena_bytes: int
    arena_share: float
    weight_bytes: int
    packed_bytes: int | None = None


def write_c(network: Deployable, folder: Path, prefix: str = "model", banner: str = "") -> None:
    """Write one network, whole, into an existing folder."""
    program, mission = compact_program(network, identifier(network.name))
    _write(program, [mission], folder, prefix, banner, network)


def export_c(
    run: Run,
    folder: Path,
    prefix: str,
    others: Sequence[Run] = (),
    *,
    as_missions: bool = False,
    loadable: bool = False,
    model: str | None = None,
    with_unknown: bool = False,
    by_rows: bool = False,
    shared: Iterable[Shared] | None = None,
    command: str = "",
) -> CFolder:
    """Write a run into an existing folder and compare it with PyTorch.

    Args:
        others: runs of the same network and weights, as further missions; needs ``as_missions``.
        as_missions: keep all weights and take each run's bitmaps as a mission; else write the
            compact network.
        loadable: with code that loads further missions, as blocks of bytes; needs ``as_missions``.
        model: the original as the user names it now, see ``original_model``.
        with_unknown: one more score, by the run's rule for images of none of its classes.
        by_rows: run steps by turns, row by row, where that makes the arena smaller.
        shared: weights of a packed run, which then lie packed in the code, too.
        command: what was asked for, to stand in the files.

    Raises:
        InputError: a run cannot be a mission of this network's own weights; the prefix; none of the
            weights lies in the code as it was packed.
        DistillnetError: scores differ.
    """
    check_form(others, as_missions=as_missions, loadable=loadable, with_unknown=with_unknown)
    distilled = distilled_network(run, unknown=with_unknown)
    banner = f"Written by {distilled.provenance['producer']}: {command or 'export --format c'}"
    layout = None
    if as_missions:
        program, missions, layout = switchable_program(
            run, others, model, loadable=loadable, by_rows=by_rows
        )
    else:
        program, mission = compact_program(distilled, mission_name(run), by_rows=by_rows)
        missions = [mission]
    flash = None if shared is None else _flash(program, shared)
    _write(program, missions, folder, prefix, banner, distilled, layout, flash)
    differences = _differences(folder, missions, distilled)
    whole = computed_macs(program, {})
    ratios = [
        whole / computed_macs(program, m.bits.keep, m.bits.live)
        if as_missions
        else run.result["mac_ratio_c"]
        for m in missions
    ]
    return CFolder(
        tuple(
            CMission(m.bits.name, m.bits.classes, d, ratio)
            for m, d, ratio in zip(missions, differences, ratios, strict=True)
        ),
        as_missions, program.arena_bytes, program.arena_floats / program.least_floats,
        program.weights.nbytes, None if flash is None else flash.bytes,
    )  # fmt: skip


def _flash(program: Program, shared: Iterable[Shared]) -> Flash:
    flash = flash_of(np.asarray(program.weights, np.float32), shared)
    if not flash.matrices:
        raise InputError(
            "found none of the packed weights in the order in which the C engine reads them; "
            "export without --packed"
        )
    return flash


def _write(
    program: Program,
    missions: Sequence[ReferencedMission],
    folder: Path,
    prefix: str,
    banner: str,
    network: Deployable,
    layout: Layout | None = None,
    flash: Flash | None = None,
) -> None:
    image = noise_batch(network).numpy()
    expected = {m.bits.name: torch_scores(m.reference, image)[0] for m in missions}
    write_folder(
        program,
        [m.bits for m in missions],
        expected,
        folder,
        prefix,
        banner=banner or f"Written by {network.provenance['producer']}",
        preprocessing=preprocessing_in_c(network),
        scale=noise_scale(network.preprocessing),
        version=network.provenance.get("producer", "distillnet"),
        layout=layout,
        flash=flash,
    )
    write_about(folder, prefix, [m.bits for m in missions], network)


def preprocessing_in_c(network: Deployable) -> Preprocessing | None:
    """How pictures become the input; None where the network does not take a picture's channels."""
    how = network.preprocessing
    return how if network.shape[0] == (1 if how.channels == "L" else 3) else None


def write_about(
    folder: Path,
    prefix: str,
    missions: Sequence[MissionBits],
    network: Deployable,
    precision: str = "float32",
) -> None:
    """Write ``about.json``, the last file of a folder: it lists the others."""
    about = {
        "format": _FORMAT,
        "prefix": prefix,
        "shape": list(network.shape),
        "missions": {m.name: list(m.classes) for m in missions},
        "provenance": network.provenance,
        "precision": precision,
        "files": files_in(folder),
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _differences(
    folder: Path, missions: Sequence[ReferencedMission], network: Deployable
) -> list[float | None]:
    try:
        compiler()
    except InputError:
        return [None] * len(missions)
    found: list[float | None] = []
    with TemporaryDirectory() as name:
        native, _ = open_c(folder, Path(name))
        for mission in missions:
            agreement = _compare(native, mission, noise_batch(network))
            if not agreement.holds:
                raise DistillnetError(
                    f"the compiled network's scores for {mission.bits.name} differ by "
                    f"{agreement.largest:.1e} of their range; please report this with the model"
                )
            found.append(agreement.largest)
    return found


def _compare(native: Native, mission: ReferencedMission, x_nchw: Tensor) -> Agreement:
    bound = native.mission(mission.bits.name)
    return compare(mission.reference, lambda x: native.scores(bound, x), x_nchw)


def open_c(folder: Path, work: Path) -> tuple[Native, Mapping[str, Sequence[str]]]:
    """Compile a folder that ``export --format c`` wrote; the classes of its missions beside it.

    This runs what is in the folder: it must be one that was just written, or that the user trusts.

    Args:
        work: an existing folder for the library; nothing is written into ``folder``.

    Raises:
        InputError: there is no such folder, or no compiler.
    """
    if not (folder / _ABOUT).is_file():
        raise InputError(
            f"{folder} is not a folder of C (it has no {_ABOUT}); write it with `distillnet export "
            "RUN --format c`"
        )
    about = read_document(folder / _ABOUT, _About, "export it again", format_=_FORMAT)
    check_prefix(about.prefix)
    native = build_native(
        folder, about.prefix, about.shape, work / f"{about.prefix}.so",
        weights_type="u1" if about.precision == "int8" else "<f4",
    )  # fmt: skip
    return native, about.missions


def c_scores(folder: Path, work: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The first mission's scores of normalised images (N, C, H, W)."""
    native, missions = open_c(folder, work)
    bound = native.mission(next(iter(missions)))
    return lambda x_nchw: native.scores(bound, x_nchw)


def evaluate_c(
    run: Run, folder: Path, batches: Iterable[Batch], *, trust: bool = False
) -> Evaluation:
    """A compiled network's closed-set accuracy on images of the mission's classes.

    Args:
        trust: the user's word that the folder's code may run.

    Raises:
        InputError: there is no such word; the folder has no mission of the run's classes, or there
            is no compiler.
    """
    if not trust:
        raise InputError(
            f"{folder} is C code, which would be compiled and run on this machine with all your "
            "permissions; nothing in it is checked. If you made it, or trust who did, pass --trust"
        )
    with TemporaryDirectory() as name:
        native, missions = open_c(folder, Path(name))
        wanted = list(run.mission.names)
        k = len(wanted)  # one more where the unknown has a score, which is not asked here
        fitting = [
            mission
            for mission, classes in missions.items()
            if list(classes) in (wanted, [*wanted, unknown_name(run.mission.names)])
        ]
        if not fitting:
            raise InputError(
                f"{folder} has missions of {list(missions.values())}; expected one of the run's "
                f"classes, {wanted}. Export this run"
            )
        bound = native.mission(fitting[0])

        def scores(x_nchw: Tensor) -> Tensor:
            return torch.from_numpy(native.scores(bound, x_nchw.numpy())[:, :k])

        return evaluate_scores(run, folder, scores, batches)
