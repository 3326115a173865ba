"""Runs as a folder of C in 8 bits: calibrated on their images, checked against a reference."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from distillnet.deploy.agreement import Agreement, compare
from distillnet.deploy.c_folder import open_c, preprocessing_in_c, write_about
from distillnet.deploy.c_missions import (
    check_form,
    mission_name,
    missions_of_runs,
    noise_batch,
    noise_scale,
)
from distillnet.deploy.exporting import check_loss, read_val, some_images
from distillnet.deploy.networks import Deployable, distilled_network
from distillnet.engine import (
    MissionBits,
    Native,
    Prepared,
    Program,
    compiler,
    computed_macs,
    prepare_compact,
    prepare_switchable,
)
from distillnet.engine.int8 import (
    Pixels,
    Quantised,
    Ranges,
    find_ranges,
    quantise,
    reference_scores,
    unit_of,
    united,
    write_int8_folder,
)
from distillnet.errors import DistillnetError
from distillnet.evaluate import Evaluation, Scores, evaluation
from distillnet.graph.capture import capture
from distillnet.job.partition import Images
from distillnet.job.runs import Run

__all__ = [
    "BLOCKS",
    "Int8Folder",
    "Int8Mission",
    "Whole",
    "calibrate",
    "export_int8_c",
    "prepare",
    "prepare_missions",
    "write_network",
]

# Output channels in a block of weights, by target: as many as vectors hold, or none padded.
BLOCKS = {"vectors": 16, "cortex-m": 1}
_COMPARED = 4  # val images on which the C has to say what the reference says, bit by bit


@dataclass(frozen=True)
class Int8Mission:
    """A mission in a folder.

    Attributes:
        agreement: of the C with the float32 network in PyTorch, on val images.
        result: of the C on the val images.
        loss_pp: from the original network to this mission, distillation and precision together.
        mac_ratio: what the original carries out over what this mission does, in this folder; None
            where older runs do not tell.
    """

    name: str
    classes: tuple[str, ...]
    agreement: Agreement
    result: Evaluation
    loss_pp: float
    mac_ratio: float | None


@dataclass(frozen=True)
class Int8Folder:
    """What was written.

    Attributes:
        calibration: how ranges were taken, by what was least harm on search images.
        weight_bytes: of the weights that missions share.
    """

    missions: tuple[Int8Mission, ...]
    switchable: bool
    arena_bytes: int
    weight_bytes: int
    float_weight_bytes: int
    calibration: str


@dataclass(frozen=True)
class Whole:
    """Networks ready to be written in whole numbers: one, or several as missions of their original.

    Attributes:
        networks: by mission, what its scores have to agree with.
    """

    prepared: Prepared
    networks: tuple[Deployable, ...]

    def quantised(self, ranges: Ranges, block: int) -> tuple[Quantised, tuple[MissionBits, ...]]:
        return quantise(self.prepared.graph, self.prepared.missions, ranges, block)


def prepare(network: Deployable, name: str) -> Whole:
    """A compact network and what C calls its only mission."""
    channels, height, width = network.shape
    graph = capture(network.module, (height, width), channels=channels)
    return Whole(prepare_compact(graph, name, network.classes), (network,))


def prepare_missions(runs: Sequence[Run], named: str | None = None) -> Whole:
    """Runs as missions of one network with all weights; see ``c_missions.switchable_program``."""
    graph, wanted, networks = missions_of_runs(runs, named)
    return Whole(prepare_switchable(graph, wanted), tuple(networks))


def write_network(
    network: Quantised,
    missions: Sequence[MissionBits],
    of: Deployable,
    folder: Path,
    prefix: str,
    banner: str = "",
) -> Program:
    """Write a quantised network into an existing folder, with its reference's scores of noise.

    Args:
        of: a network that takes images as this one does.
    """
    image = noise_batch(of).numpy()
    expected = {m.name: reference_scores(network, image, m)[0] for m in missions}
    how = of.preprocessing
    mean, std = (np.array(v, np.float32)[:, None] for v in (how.mean, how.std))
    values = (np.arange(256, dtype=np.float32) / np.float32(how.divisor) - mean) / std
    program = write_int8_folder(
        network, missions, expected, folder, prefix,
        banner=banner or f"Written by {of.provenance['producer']}",
        preprocessing=preprocessing_in_c(of), scale=noise_scale(how),
        version=of.provenance.get("producer", "distillnet"),
        pixels=Pixels(values, how.channels == "BGR"),
    )  # fmt: skip
    write_about(folder, prefix, missions, of, "int8")
    return program


def export_int8_c(
    run: Run,
    folder: Path,
    prefix: str,
    images: Images,
    others: Sequence[tuple[Run, Images]] = (),
    *,
    as_missions: bool = False,
    model: str | None = None,
    target: str = "vectors",
    max_loss_pp: float | None = None,
    with_unknown: bool = False,
    command: str = "",
) -> Int8Folder:
    """Write a run in 8 bits into an existing folder, and check it.

    Args:
        images: those of the run; ranges are taken on search images, and which kind of range, on
            those for statistics.
        others: runs of the same network and weights and their images, as further missions; needs
            ``as_missions``.
        as_missions: keep all weights and take each run's bitmaps, and what it refitted, as a
            mission; else write the compact network.
        model: the original as the user names it now, see ``original_model``.
        target: one of ``BLOCKS``.
        max_loss_pp: from the original to each mission; None takes its run's budget.
        with_unknown: one more score, by the run's rule for images of none of its classes.
        command: what was asked for, to stand in the files.

    Raises:
        InputError: more is lost than allowed; a run cannot be a mission of this network's own
            weights; there is no compiler to tell.
        UnsupportedError: an operator that has no kernel in 8 bits.
        DistillnetError: the C and the reference differ.
    """
    runs = (run, *(other for other, _ in others))
    check_form(runs[1:], as_missions=as_missions, with_unknown=with_unknown)
    compiler()  # accuracy is a matter of images, which takes the compiled network
    if as_missions:
        whole = prepare_missions(runs, model)
    else:
        whole = prepare(distilled_network(run, unknown=with_unknown), mission_name(run))
    deployable = whole.networks[0]
    banner = f"Written by {deployable.provenance['producer']}: {command or 'export --int8'}"
    of_runs = (images, *(more for _, more in others))
    calibration, ranges = calibrate(
        whole,
        *(
            [
                some_images(getattr(parts, part), network, of)
                for parts, network, of in zip(of_runs, whole.networks, runs, strict=True)
            ]
            for part in ("search", "statistics")
        ),
    )
    quantised, missions = whole.quantised(ranges, BLOCKS[target])
    program = write_network(quantised, missions, deployable, folder, prefix, banner)
    unit = unit_of(BLOCKS[target])
    macs = computed_macs(quantised.program, {}, unit=unit)
    done = []
    with TemporaryDirectory() as work:
        native, _ = open_c(folder, Path(work))
        for i, mission in enumerate(missions):
            ratio = runs[i].result["mac_ratio_c"]
            if as_missions:
                left = computed_macs(quantised.program, mission.keep, mission.live, unit)
                ratio = macs / left
            x, labels = read_val(of_runs[i].val, whole.networks[i], runs[i])
            judged = _judged(native, quantised, mission, whole.networks[i], x)
            y = torch.from_numpy(native.scores(native.mission(mission.name), x.numpy()))
            result = evaluation(Scores(y[:, : len(runs[i].mission)], labels), runs[i].mission)
            loss = check_loss(runs[i], result, "int8", max_loss_pp)
            done.append(Int8Mission(mission.name, mission.classes, judged, result, loss, ratio))
    graph = whole.prepared.graph
    parameters = sum(p.numel() for p in graph.params.values() if p.is_floating_point())
    return Int8Folder(
        tuple(done), as_missions, program.arena_bytes, program.weights.nbytes, 4 * parameters,
        calibration,
    )  # fmt: skip


def _judged(
    native: Native, network: Quantised, mission: MissionBits, of: Deployable, x_nchw: Tensor
) -> Agreement:
    """How far the C is from float32; it must be the reference, of which a few images are seen."""
    bound = native.mission(mission.name)
    some = x_nchw[:: max(1, len(x_nchw) // _COMPARED)][:_COMPARED].numpy()
    if not np.array_equal(native.scores(bound, some), reference_scores(network, some, mission)):
        raise DistillnetError(
            f"the compiled network and its reference differ for {mission.name}; please report this "
            "with the model"
        )
    return compare(of.module, partial(native.scores, bound), x_nchw)


def calibrate(
    whole: Whole, images_nchw: Sequence[Tensor], judges_nchw: Sequence[Tensor]
) -> tuple[str, Ranges]:
    """How ranges are taken, and those of all missions together, so that least changes on judges.

    Args:
        images_nchw: by mission, those that ranges are seen on.
        judges_nchw: by mission, others.
    """
    graphs = whole.prepared.graphs
    seen = [find_ranges(g, x) for g, x in zip(graphs, images_nchw, strict=True)]
    found = {kind: united([ranges[kind] for ranges in seen]) for kind in seen[0]}
    harms = {kind: _harm(whole, ranges, judges_nchw) for kind, ranges in found.items()}
    best = min(harms, key=lambda kind: harms[kind])
    return best, found[best]


def _harm(whole: Whole, ranges: Ranges, judges_nchw: Sequence[Tensor]) -> tuple[int, float]:
    """Decisions that differ from the float networks', and the largest difference of scores."""
    quantised, missions = whole.quantised(ranges, BLOCKS["vectors"])
    decisions, largest = 0, 0.0
    with _compiled(quantised, missions, whole.networks[0]) as native:
        for i, mission in enumerate(missions):
            bound, module = native.mission(mission.name), whole.networks[i].module
            harm = compare(module, partial(native.scores, bound), judges_nchw[i])
            decisions, largest = decisions + harm.decisions, max(largest, harm.largest)
    return decisions, largest


@contextmanager
def _compiled(
    network: Quantised, missions: Sequence[MissionBits], of: Deployable
) -> Iterator[Native]:
    with TemporaryDirectory() as work:
        (folder := Path(work) / "c").mkdir()
        write_network(network, missions, of, folder, "model")
        yield open_c(folder, Path(work))[0]
