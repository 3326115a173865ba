"""What ``mission.json`` and ``result.json`` of a run hold, key by key.

What is written from dataclasses is read by them (``files.documents.document_of``), so a new option
or figure there needs no word here; what a run's own modules write is listed.
"""

from typing import Annotated, Literal

from msgspec import Meta

from distillnet.files.documents import (
    Count,
    Document,
    Positive,
    Sha256,
    Share,
    Side,
    Text,
    document_of,
)
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distillation import Options
from distillnet.job.layer_report import LayerReport
from distillnet.search import Budget, Verdict

__all__ = [
    "FORMAT",
    "NOT_NOTED",
    "ClassEntry",
    "MissionDocument",
    "NamedClass",
    "NetworkFigures",
    "PreprocessingDocument",
    "ResultDocument",
]

FORMAT = 4
NOT_NOTED = ("times",)  # options that lie in a file of their own
_LATER = ("labels", "partial", "reading", "views")  # options that runs of earlier versions lack
_MOST_CLASSES = 100_000  # ImageNet's largest form has 21,841

_NClasses = Annotated[int, Meta(ge=2, le=_MOST_CLASSES)]
_Index = Annotated[int, Meta(ge=0, lt=_MOST_CLASSES)]
_Size = tuple[Side, Side]
_SourceName = Literal["data", "val", "search", "atlas", "weights", "class_names", "from", "model"]


class NamedClass(Document, frozen=True):
    """A class of the mission in ``result.json``."""

    index: _Index
    name: Text


class ClassEntry(NamedClass, frozen=True):
    """A class with all its names."""

    aliases: list[Text]


class PreprocessingDocument(Document, frozen=True):
    """How images become a network's input."""

    input_size: _Size
    mean: Annotated[tuple[float, ...], Meta(min_length=1, max_length=3)]
    std: Annotated[tuple[Positive, ...], Meta(min_length=1, max_length=3)]
    resize: Side | None
    divisor: Positive
    channels: Literal["RGB", "BGR", "L"]
    interpolation: Literal["nearest", "bilinear", "bicubic"]

    def __post_init__(self) -> None:
        n = 1 if self.channels == "L" else 3
        if len(self.mean) != n or len(self.std) != n:
            raise ValueError(
                f"{len(self.mean)} means and {len(self.std)} deviations for {self.channels}, "
                f"expected {n} of each"
            )

    def preprocessing(self) -> Preprocessing:
        """As the package works with it."""
        return Preprocessing(**{name: getattr(self, name) for name in self.__struct_fields__})


class MissionDocument(Document, frozen=True):
    """``mission.json``: everything needed to do it again."""

    format: int
    versions: dict[Text, Text]
    model: Text
    weights_sha256: Sha256
    n_classes: _NClasses
    classes: Annotated[list[ClassEntry], Meta(min_length=1)]
    preprocessing: PreprocessingDocument
    options: document_of(  # type: ignore[valid-type]
        Options, without=NOT_NOTED, later=_LATER, budget=document_of(Budget)
    )
    seed: Count
    thresholds: dict[Text, float | None]
    sources: dict[_SourceName, Text | None]

    def __post_init__(self) -> None:
        _check_classes(self.classes, self.n_classes)


def _check_classes(classes: list[ClassEntry] | list[NamedClass], n_classes: int) -> None:
    """Raise ValueError for a class that there is not, or that is named twice."""
    for values in ([c.index for c in classes], [c.name for c in classes]):
        if len(set(values)) != len(values):
            raise ValueError(f"classes {values}, expected each once")
    for c in classes:
        if c.index >= n_classes:
            raise ValueError(f"class {c.index} of {n_classes}, expected 0 to {n_classes - 1}")


class NetworkFigures(Document, frozen=True):
    """What a network costs and how often it is right."""

    input_size: _Size
    params: Annotated[int, Meta(ge=1)]
    macs: Annotated[int, Meta(ge=1)]
    macs_with_partial: Count
    accuracy: Share
    accuracy_open: Share
    per_class: dict[Text, Share]


class _Budget(Document, frozen=True):
    max_loss_pp: float
    max_class_loss_pp: float
    confidence: float
    target_macs: float | None
    target_params: float | None


def _check_verdict(verdict: Verdict) -> None:
    if not verdict.class_losses_pp or not verdict.class_estimates_pp:
        raise ValueError("no losses of classes, expected one for each class")


class ResultDocument(Document, frozen=True):
    """``result.json``, the figures; docs and scripts of others rely on its keys."""

    model: Text
    method: Literal["best", "paper"]
    score: Text
    classes: Annotated[list[NamedClass], Meta(min_length=1)]
    n_classes: _NClasses
    budget: _Budget
    baseline: NetworkFigures
    distilled: NetworkFigures
    mac_ratio: Positive
    mac_ratio_with_partial: Positive | None
    inception_mac_ratio: Positive | None
    param_ratio: Positive
    loss_pp: float
    worst_class_loss_pp: float
    loss_ci95_pp: tuple[float, float]
    expected_loss_pp: float
    expected_ci95_pp: tuple[float, float]
    stopped_by: Text
    tuned: bool
    warnings: list[Text]
    n_images: dict[Text, Count]
    seconds: dict[Text, float]
    peak_rss_mb: float | None
    search: document_of(  # type: ignore[valid-type]
        Verdict,
        _check_verdict,
        later=("original_wrong_pp",),
        worst_class_loss_pp=float,
        seen=bool,
        budget_met=bool,
    )
    # A threshold that removes nothing, and a layer of which nothing is left, are infinite: null.
    layers: list[
        document_of(LayerReport, threshold=float | None, compression_ratio=float | None)  # type: ignore[valid-type]
    ]
    unreadable: list[Text]
    work_ratio: Positive | None = None  # older runs have none
    mac_ratio_c: Positive | None = None  # in both forms; runs of earlier versions lack them
    mac_ratio_c_switchable: Positive | None = None

    def __post_init__(self) -> None:
        _check_classes(self.classes, self.n_classes)
        names = {c.name for c in self.classes}
        for figures in (self.baseline, self.distilled):
            if set(figures.per_class) != names:
                raise ValueError(f"accuracies of {list(figures.per_class)}, expected of {names}")
