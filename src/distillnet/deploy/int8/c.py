"""A run as a folder of C in 8 bits: calibrated on its images, checked against a reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.deploy.agreement import Agreement, compare
from distillnet.deploy.c_folder import open_c, preprocessing_in_c, write_about
from distillnet.deploy.c_missions import mission_name, noise_batch, noise_scale
from distillnet.deploy.exporting import check_loss, read_val, some_images
from distillnet.deploy.networks import Deployable, distilled_network
from distillnet.engine import MissionBits, Program, compiler, prepare_compact
from distillnet.engine.int8 import (
    Pixels,
    Quantised,
    find_ranges,
    quantise,
    reference_scores,
    write_int8_folder,
)
from distillnet.errors import DistillnetError
from distillnet.evaluate import Evaluation, Scores, evaluation
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.job.partition import Images
from distillnet.job.runs import Run

__all__ = [
    "BLOCKS",
    "Int8Folder",
    "Prepared",
    "calibrate",
    "export_int8_c",
    "prepare",
    "write_network",
]

# Output channels in a block of weights, by target: as many as vectors hold, or none padded.
BLOCKS = {"vectors": 16, "cortex-m": 1}
_COMPARED = 4  # val images on which the C has to say what the reference says, bit by bit

_Keeps = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Int8Folder:
    """What was written.

    Attributes:
        mission: its name in C.
        calibration: how ranges were taken, by what was least harm on search images.
        agreement: of the C with the float32 network in PyTorch, on val images.
        result: of the C on the val images.
        loss_pp: from the original network to this one, distillation and precision together.
    """

    mission: str
    classes: tuple[str, ...]
    arena_bytes: int
    weight_bytes: int
    float_weight_bytes: int
    calibration: str
    agreement: Agreement
    result: Evaluation
    loss_pp: float


@dataclass(frozen=True)
class Prepared:
    """A network ready to be quantised: its graph as it is compiled, and its only mission."""

    deployable: Deployable
    graph: Graph
    keeps: _Keeps
    name: str

    def quantised(
        self, ranges: Mapping[str, tuple[float, float]], block: int
    ) -> tuple[Quantised, MissionBits]:
        network = quantise(self.graph, ranges, block)
        slots = network.program.slots
        keep = {n: k.reshape(slots[n].shape) for n, k in self.keeps.items() if n in slots}
        classes = self.deployable.classes
        return network, MissionBits(self.name, keep, tuple(range(len(classes))), classes)


def prepare(network: Deployable, name: str) -> Prepared:
    """A network and what C calls its only mission."""
    channels, height, width = network.shape
    graph = capture(network.module, (height, width), channels=channels)
    graph, keeps = prepare_compact(graph)
    return Prepared(network, graph, keeps, name)


def write_network(
    network: Quantised,
    mission: MissionBits,
    of: Deployable,
    folder: Path,
    prefix: str,
    banner: str = "",
) -> Program:
    """Write a quantised network into an existing folder, with its reference's scores of noise."""
    image = noise_batch(of).numpy()
    expected = {mission.name: reference_scores(network, image, mission.keep)[0]}
    how = of.preprocessing
    mean, std = (np.array(v, np.float32)[:, None] for v in (how.mean, how.std))
    values = (np.arange(256, dtype=np.float32) / np.float32(how.divisor) - mean) / std
    program = write_int8_folder(
        network, [mission], expected, folder, prefix,
        banner=banner or f"Written by {of.provenance['producer']}",
        preprocessing=preprocessing_in_c(of), scale=noise_scale(how),
        version=of.provenance.get("producer", "distillnet"),
        pixels=Pixels(values, how.channels == "BGR"),
    )  # fmt: skip
    write_about(folder, prefix, [mission], of, "int8")
    return program


def export_int8_c(
    run: Run,
    folder: Path,
    prefix: str,
    images: Images,
    *,
    target: str = "vectors",
    max_loss_pp: float | None = None,
    with_unknown: bool = False,
    command: str = "",
) -> Int8Folder:
    """Write a run's compact network in 8 bits into an existing folder, and check it.

    Args:
        images: those of the run; ranges are taken on search images, and which kind of range, on
            those for statistics.
        target: one of ``BLOCKS``.
        max_loss_pp: from the original to the folder; None takes the run's budget.
        with_unknown: one more score, by the run's rule for images of none of its classes.
        command: what was asked for, to stand in the files.

    Raises:
        InputError: more is lost than allowed; there is no compiler to tell.
        UnsupportedError: an operator that has no kernel in 8 bits.
        DistillnetError: the C and the reference differ.
    """
    compiler()  # accuracy is a matter of images, which takes the compiled network
    network = prepare(distilled_network(run, unknown=with_unknown), mission_name(run))
    deployable = network.deployable
    banner = f"Written by {deployable.provenance['producer']}: {command or 'export --int8'}"
    calibration, ranges = calibrate(
        network, some_images(images.search, deployable), some_images(images.statistics, deployable)
    )
    quantised, mission = network.quantised(ranges, BLOCKS[target])
    program = write_network(quantised, mission, deployable, folder, prefix, banner)
    x, labels = read_val(images.val, deployable, run)
    with TemporaryDirectory() as work:
        native, _ = open_c(folder, Path(work))
        bound = native.mission(mission.name)
        some = x[:: max(1, len(x) // _COMPARED)][:_COMPARED].numpy()
        wanted = reference_scores(quantised, some, mission.keep)
        if not np.array_equal(native.scores(bound, some), wanted):
            raise DistillnetError(
                "the compiled network and its reference differ; please report this with the model"
            )
        agreement = compare(deployable.module, lambda part: native.scores(bound, part), x)
        y = torch.from_numpy(native.scores(bound, x.numpy()))
    result = evaluation(Scores(y[:, : len(run.mission)], labels), run.mission)
    loss = check_loss(run, result, "int8", max_loss_pp)
    parameters = sum(p.numel() for p in network.graph.params.values() if p.is_floating_point())
    return Int8Folder(
        mission.name, mission.classes, program.arena_bytes, program.weights.nbytes, 4 * parameters,
        calibration, agreement, result, loss,
    )  # fmt: skip


def calibrate(
    network: Prepared, x_nchw: Tensor, judges_nchw: Tensor
) -> tuple[str, Mapping[str, tuple[float, float]]]:
    """How ranges are taken, and those of ``x_nchw``, so that least changes on the judges."""
    found, deployable = find_ranges(network.graph, x_nchw), network.deployable
    harms = {}
    for calibration, ranges in found.items():
        quantised, mission = network.quantised(ranges, BLOCKS["vectors"])
        harms[calibration] = _harm(quantised, mission, deployable, judges_nchw)
    best = min(harms, key=lambda calibration: harms[calibration])
    return best, found[best]


def _harm(
    quantised: Quantised, mission: MissionBits, network: Deployable, judges: Tensor
) -> tuple[int, float]:
    """Decisions that differ from the float network's, and the largest difference of scores."""
    with TemporaryDirectory() as work:
        (folder := Path(work) / "c").mkdir()
        write_network(quantised, mission, network, folder, "model")
        native, _ = open_c(folder, Path(work))
        bound = native.mission(mission.name)
        harm = compare(network.module, lambda part: native.scores(bound, part), judges)
    return harm.decisions, harm.largest
