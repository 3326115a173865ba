"""One exported file, checked: does it say what the network says, and what does it cost?"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.deploy.agreement import TOLERANCE, Agreement, as_pixels, compare
from distillnet.deploy.int8.onnx_tools import CALIBRATIONS, to_half, to_int8
from distillnet.deploy.networks import Deployable, distilled_network
from distillnet.deploy.onnx_file import OnnxFile, class_names, open_onnx, write_onnx
from distillnet.deploy.pt2_file import write_pt2
from distillnet.errors import DistillnetError, InputError
from distillnet.evaluate import Evaluation, Scores, evaluation
from distillnet.images import Batch, ImageSet, Loaded, limit, load_all
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.evaluating import evaluate_scores
from distillnet.job.options import allowed_unreadable
from distillnet.job.partition import Images
from distillnet.job.results import allowed_loss_pp
from distillnet.job.runs import Run

__all__ = [
    "FORMATS",
    "PRECISIONS",
    "Exported",
    "Form",
    "check_loss",
    "evaluate_onnx",
    "export",
    "onnx_scores",
    "read_val",
    "some_images",
]

FORMATS = ("onnx", "pt2")
PRECISIONS = ("float32", "float16", "int8")
_CALIBRATION_IMAGES = 200


@dataclass(frozen=True)
class Form:
    """What to write.

    Attributes:
        batch: images at once; None leaves their number open.
        with_preprocessing: take uint8 (N, H, W, 3) RGB instead of normalised (N, C, H, W).
        with_unknown: one more score, by the run's rule for images of none of its classes.
    """

    format: str = "onnx"
    precision: str = "float32"
    batch: int | None = None
    with_preprocessing: bool = False
    with_unknown: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS or self.precision not in PRECISIONS:
            raise InputError(
                f"found the format {self.format!r} in {self.precision!r}; expected one of "
                f"{', '.join(FORMATS)} in one of {', '.join(PRECISIONS)}"
            )
        if self.format == "pt2" and self.precision != "float32":
            raise InputError(
                f"found --format pt2 with {self.precision}; expected float32 there, or --format "
                "onnx"
            )


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        agreement: with the float32 network in torch.
        real_images: whether that was seen on real images, or on noise.
        result: of the file on the val images; None without images.
        loss_pp: from the original network to this file, distillation and precision together.
        calibration: how ranges for int8 were taken, by what was least harm on search images.
    """

    form: Form
    bytes: int
    agreement: Agreement
    real_images: bool
    result: Evaluation | None
    loss_pp: float | None
    calibration: str | None


def export(
    run: Run, path: Path, form: Form, images: Images | None, max_loss_pp: float | None = None
) -> Exported:
    """Write a run's network to ``path`` and check it on the run's images.

    Args:
        images: those of the run; None compares on noise, and allows float32 and float16 only.
        max_loss_pp: from the original to the file; None takes the run's budget. It is asked of
            int8 and float16 only: float32 changes nothing.

    Raises:
        InputError: more is lost than allowed, images or libraries are missing.
        DistillnetError: the file does not agree with the network.
    """
    network = distilled_network(run, unknown=form.with_unknown)
    calibration = None
    if form.precision == "int8":
        if images is None:
            raise InputError(
                "--int8 needs the mission's images to take the ranges of activations from; pass "
                "--data"
            )
        calibration = _write_int8(network, path, form, images, run)
    elif form.precision == "float16":
        with TemporaryDirectory() as folder:
            whole = Path(folder) / "float32.onnx"
            _write(network, whole, form)
            to_half(whole, path)
    else:
        _write(network, path, form)
    scores = _scores_of(path, form, network)
    if images is None:
        x, labels = _noise(network), None
    else:
        x, labels = read_val(images.val, network, run)
    agreement = compare(network.module, scores, x)
    if form.precision == "float32" and not agreement.holds:
        raise DistillnetError(
            f"the file's scores differ from the network's by {agreement.largest:.1e} of their "
            f"range, more than {TOLERANCE:.0e}; please report this with the model"
        )
    result = loss = None
    if labels is not None:
        y = torch.from_numpy(np.concatenate([scores(part.numpy()) for part in x.split(32)]))
        result = evaluation(Scores(y[:, : len(run.mission)], labels), run.mission)
        loss = check_loss(run, result, form.precision, max_loss_pp)
    return Exported(
        form, path.stat().st_size, agreement, images is not None, result, loss, calibration
    )


def check_loss(run: Run, result: Evaluation, precision: str, max_loss_pp: float | None) -> float:
    """Percentage points lost from the original to what ``result`` is of.

    Args:
        max_loss_pp: what may be lost; None takes the run's budget. float32 is not refused.

    Raises:
        InputError: more is lost.
    """
    loss: float = 100 * (float(run.result["baseline"]["accuracy"]) - result.accuracy)
    allowed = allowed_loss_pp(run.result) if max_loss_pp is None else max_loss_pp
    if precision != "float32" and loss > allowed + 1e-9:
        raise InputError(
            f"{precision} loses {loss:.2f} points from the original on {result.n} val "
            f"images, {run.result['loss_pp']:.2f} of them by distillation; at most "
            f"{allowed:g} are allowed. Allow more with --max-loss, or export float32"
        )
    return loss


def _write(network: Deployable, path: Path, form: Form) -> None:
    write = write_onnx if form.format == "onnx" else write_pt2
    write(network, path, batch=form.batch, with_preprocessing=form.with_preprocessing)


def _write_int8(network: Deployable, path: Path, form: Form, images: Images, run: Run) -> str:
    """Write int8 with the calibration that changes least on images it has not seen; which."""
    x = _pixels_or_not(some_images(images.search, network, run).numpy(), form, network)
    judges = some_images(images.statistics, network, run)
    harms = {}
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "float32.onnx"
        _write(network, whole, form)
        for calibration in CALIBRATIONS:
            quantised = Path(folder) / f"{calibration}.onnx"
            try:
                to_int8(whole, quantised, x, calibration, form.batch or 16)
            except ValueError:  # no histogram of a tensor that is nearly constant
                continue
            harm = compare(network.module, _scores_of(quantised, form, network), judges)
            harms[calibration] = (harm.decisions, harm.largest)
        best = min(harms, key=lambda calibration: harms[calibration])
        path.write_bytes((Path(folder) / f"{best}.onnx").read_bytes())
    return best


def _scores_of(
    path: Path, form: Form, network: Deployable
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """A function from normalised images to an exported file's scores."""
    if form.format == "onnx":
        return onnx_scores(open_onnx(path), network.preprocessing)
    with path.open("rb") as opened:  # not by its name, which torch wants in UTF-8
        program = torch.export.load(opened).module()

    def scores(x_nchw: NDArray[Any]) -> NDArray[np.float32]:
        x = _pixels_or_not(x_nchw, form, network)
        size = form.batch or len(x)
        with torch.inference_mode():
            parts = []
            for start in range(0, len(x), size):
                part = torch.from_numpy(x[start : start + size])
                filled = torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])])
                parts.append(program(filled)[: len(part)])
        y: NDArray[np.float32] = torch.cat(parts).numpy()
        return y

    return scores


def onnx_scores(
    file: OnnxFile, how: Preprocessing
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """A function from normalised images to an ONNX file's scores, whatever form it takes."""
    if not file.takes_pixels:
        return file.scores
    return lambda x_nchw: file.scores(as_pixels(x_nchw, how))


def evaluate_onnx(run: Run, file: OnnxFile, batches: Iterable[Batch]) -> Evaluation:
    """An exported file's closed-set accuracy on images of the mission's classes.

    Raises:
        InputError: the file is of other classes than the run.
    """
    expected, scored = list(run.mission.names), file.metadata.get("unknown")
    found = list(class_names(file))
    if (found[:-1] if scored else found) != expected:
        raise InputError(
            f"{file.path} scores the classes {found}; expected those of the run, {expected}. "
            "Export this run"
        )
    scores = onnx_scores(file, run.preprocessing)
    k = len(expected)  # closed set: what a file says of the unknown is not asked
    return evaluate_scores(
        run, file.path, lambda x: torch.from_numpy(scores(x.numpy())[:, :k]), batches
    )


def _pixels_or_not(x_nchw: NDArray[Any], form: Form, network: Deployable) -> NDArray[Any]:
    return as_pixels(x_nchw, network.preprocessing) if form.with_preprocessing else x_nchw


def some_images(images: ImageSet, network: Deployable, run: Run) -> Tensor:
    """A few images of each class, normalised (N, C, H, W), to calibrate on or to judge by."""
    per_class = max(1, _CALIBRATION_IMAGES // len(images.counts()))
    return _load(limit(images, per_class, 0), network, run).x_nchw


def read_val(images: ImageSet, network: Deployable, run: Run) -> tuple[Tensor, Tensor]:
    """All images, normalised (N, C, H, W), and the positions of their classes in the mission."""
    loaded = _load(images, network, run)
    positions = [run.mission.indices.index(int(label)) for label in loaded.labels_n]
    return loaded.x_nchw, torch.tensor(positions)


def _load(images: ImageSet, network: Deployable, run: Run) -> Loaded:
    """Images of a run, of which as many may be unreadable as when it was made."""
    most = allowed_unreadable(run.options)
    return load_all(images, network.preprocessing, max_unreadable_percent=most)


def _noise(network: Deployable) -> Tensor:
    """Noise that 8-bit images could show."""
    generator = torch.Generator().manual_seed(0)
    how = network.preprocessing
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (how.mean, how.std))
    pixels = torch.randint(0, 256, (8, *network.shape), generator=generator)
    return (pixels / how.divisor - mean) / std
