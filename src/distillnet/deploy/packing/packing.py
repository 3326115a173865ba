"""From a network or a run to a packed file, and what each step makes of bytes and accuracy."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distillnet.classes import Mission
from distillnet.deploy.packing.programme import take_apart
from distillnet.deploy.packing.rounding import Pictures, Rounded, round_network
from distillnet.errors import InputError
from distillnet.evaluate import Evaluation, Scores, closed_set, evaluation, graph_scores
from distillnet.graph import Graph
from distillnet.graph.capture import capture, capture_model
from distillnet.images import (
    MAX_UNREADABLE_PERCENT,
    ImageSet,
    limit,
    load_all,
    load_batches,
)
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.options import allowed_unreadable
from distillnet.job.partition import Images
from distillnet.job.runs import RUN_MARKER, Run
from distillnet.models import Model
from distillnet.models.packed import Packed, Plain, Shared, write_packed
from distillnet.models.programs import load_program
from distillnet.refit.compensation import with_biases

__all__ = ["RUN_FILES", "Result", "Source", "Step", "of_model", "of_run", "pack"]

RUN_FILES = (RUN_MARKER, "result.json", "bitmaps.safetensors")  # beside the network
_FIT, _JUDGE = 400, 400  # images
_RUN_LENGTH = 4  # bits that tell how many zeros precede a weight (Han, Mao and Dally, section 2)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Source:
    """What is to be packed.

    Attributes:
        kind: as in the file; ``weights`` have the names of the network's own state dict.
        mission: the classes that images are of.
        positions: of these among the network's scores.
        beside: other files of a run.
        original_bytes: of the network that it all began with, in float32.
        original_accuracy: of that network, where this is a distilled one.
    """

    name: str
    kind: str
    graph: Graph
    preprocessing: Preprocessing
    mission: Mission
    positions: tuple[int, ...]
    beside: Mapping[str, bytes]
    about: Mapping[str, Any]
    original_bytes: int
    original_accuracy: float | None = None
    unreadable_percent: float = MAX_UNREADABLE_PERCENT  # of the images, at most


@dataclass(frozen=True)
class Step:
    """A network after a step: bytes on disk, accuracy among the mission's classes and among all.

    ``accuracy_open`` is None where the network knows the mission's classes alone.
    """

    name: str
    bytes: int
    accuracy: float
    accuracy_open: float | None


@dataclass(frozen=True)
class Result:
    """What was packed.

    Attributes:
        setting: the coarseness of ``best``, the threshold of ``paper``.
        kept: share of the weights that are not 0.
        loss_pp: from the first step to the last, the larger of closed and open set.
        n: val images.
    """

    kind: str
    method: str
    setting: float
    kept: float
    steps: tuple[Step, ...]
    expected_loss_pp: float
    loss_pp: float
    loss_open_pp: float | None
    n: int

    @property
    def bytes(self) -> int:
        """Of the file."""
        return self.steps[-1].bytes

    @property
    def ratio(self) -> float:
        """Of the first network's bytes in float32."""
        return self.steps[0].bytes / self.bytes


def of_model(model: Model, mission: Mission) -> Source:
    """A model to pack: its state dict where nothing of that was folded away, else a programme."""
    graph = capture_model(model)
    state = model.module.state_dict()
    own = set(graph.params) == set(state) and all(
        graph.params[name].shape == tensor.shape for name, tensor in state.items()
    )
    whole = with_biases(graph)
    kind = "weights" if own and set(whole.params) == set(state) else "programme"
    about = {"model": Path(model.name).name, "weights_sha256": model.weights_sha256}
    return Source(
        model.name, kind, whole, model.preprocessing, mission, mission.indices, {}, about,
        4 * sum(t.numel() for t in state.values()),
    )  # fmt: skip


def of_run(run: Run) -> Source:
    """A run to pack: its compact network, figures and bitmaps."""
    how = run.preprocessing
    module = load_program(run.directory / "model.pt2").module
    graph = with_biases(capture(module, how.input_size, channels=len(how.mean)))
    beside = {name: (run.directory / name).read_bytes() for name in RUN_FILES}
    baseline = run.result["baseline"]
    return Source(
        str(run.result["model"]), "run", graph, how, run.mission,
        tuple(range(len(run.mission))), beside, {"weights_sha256": run.weights_sha256},
        4 * int(baseline["params"]), float(baseline["accuracy"]), allowed_unreadable(run.options),
    )  # fmt: skip


def pack(
    source: Source,
    images: Images,
    path: Path,
    *,
    method: str = "best",
    max_loss_pp: float = 1.0,
    setting: float | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Result:
    """Write a packed file of a network whose weights share as few values as the budget allows.

    Args:
        images: weights are fitted on the statistics images and judged on the search images.
        max_loss_pp: from the network as it is, among all that it knows, expected on the latter.
        setting: instead of a search, see ``Result``.

    Raises:
        InputError: no layer's weights can be rounded.
    """
    fit, _ = _load(images.statistics, _FIT, source)
    judge, labels = _load(images.search, _JUDGE, source)
    rounded = round_network(
        source.graph, Pictures(fit, judge, labels), method=method, max_loss_pp=max_loss_pp,
        setting=setting, on_progress=on_progress,
    )  # fmt: skip
    if not rounded.shared:
        raise InputError(
            f"{source.name} has no layer whose weights can be rounded by themselves; expected "
            "convolutions of one group or linear layers that share no parameters"
        )
    packed = _packed(source, rounded, method)
    try:
        write_packed(packed, path)
    except ValueError as error:
        raise InputError(
            f"{source.name} cannot be packed as coarsely as {rounded.setting:g} ({error}); choose "
            "another --coarseness"
        ) from error
    before, pruned, after = (
        _evaluate(graph, source, images.val)
        for graph in (source.graph, rounded.pruned, rounded.graph)
    )
    steps = [Step(name, size, e.accuracy, e.accuracy_open) for name, size, e in (
        ("as it was", 4 * _numbers(source.graph), before),
        ("pruned", _pruned_bytes(rounded, source.graph), pruned),
        ("shared values", _shared_bytes(rounded, source.graph), after),
        ("entropy-coded", path.stat().st_size, after),
    )]  # fmt: skip
    if source.original_accuracy is not None:
        first = Step("the original", source.original_bytes, source.original_accuracy, None)
        steps = [first, *steps]
    levels = [s.levels for s in rounded.shared.values()]
    kept = sum(int((m != 0).sum()) for m in levels) / sum(m.size for m in levels)
    open_ = (before.accuracy_open, after.accuracy_open)
    return Result(
        source.kind, method, rounded.setting, kept, tuple(steps), rounded.expected_loss_pp,
        100 * (steps[0].accuracy - after.accuracy),
        None if None in open_ else 100 * (open_[0] - open_[1]),  # type: ignore[operator]
        after.n,
    )  # fmt: skip


def _packed(source: Source, rounded: Rounded, method: str) -> Packed:
    about = {
        "producer": f"distillnet {version('distillnet')}",
        "method": method,
        "setting": rounded.setting,
        **source.about,
    }
    if source.kind == "weights":
        tensors: dict[str, Shared | Plain] = {
            name: rounded.shared.get(name) or Plain(_halved(tensor))
            for name, tensor in rounded.graph.params.items()
        }
        return Packed("weights", tensors, {}, about)
    told = {"classes": list(source.mission.names), **source.about}
    tensors, records = take_apart(rounded.graph, rounded.shared, told)
    return Packed(source.kind, tensors, {**records, **source.beside}, about)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    """In half precision, where that says the same."""
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def _load(images: ImageSet, most: int, source: Source) -> tuple[torch.Tensor, torch.Tensor]:
    per_class = math.ceil(most / len(images.counts()))
    loaded = load_all(
        limit(images, per_class, 0),
        source.preprocessing,
        max_unreadable_percent=source.unreadable_percent,
    )
    return loaded.x_nchw, torch.tensor([_position(source, int(i)) for i in loaded.labels_n])


def _position(source: Source, index: int) -> int:
    """Of a class of the model among this network's scores."""
    return source.positions[source.mission.indices.index(index)]


def _evaluate(graph: Graph, source: Source, images: ImageSet) -> Evaluation:
    most = source.unreadable_percent
    batches = load_batches(images, source.preprocessing, max_unreadable_percent=most)
    scores = graph_scores(graph, batches)
    if source.kind == "run":
        labels = torch.tensor([_position(source, int(i)) for i in scores.labels_n])
        return evaluation(Scores(scores.scores_nk, labels), source.mission)
    return evaluation(closed_set(scores, source.mission), source.mission, scores)


def _numbers(graph: Graph) -> int:
    return sum(tensor.numel() for tensor in graph.params.values())


def _pruned_bytes(rounded: Rounded, graph: Graph) -> int:
    """A float32 and four bits of run length for each weight that is left, and all else."""
    kept = sum(int((s.levels != 0).sum()) for s in rounded.shared.values())
    return _rest(rounded, graph) + math.ceil(kept * (32 + _RUN_LENGTH) / 8)


def _shared_bytes(rounded: Rounded, graph: Graph) -> int:
    """For each weight that is left as many bits as tell its layer's values apart, and the same."""
    bits = 0
    for s in rounded.shared.values():
        kept = s.levels[s.levels != 0]
        values = len(set(kept.ravel().tolist()))
        bits += kept.size * (math.ceil(math.log2(max(values, 2))) + _RUN_LENGTH)
        bits += 32 * len(s.codebook) or 8 * (len(s.rows) + len(s.columns))
    return _rest(rounded, graph) + math.ceil(bits / 8)


def _rest(rounded: Rounded, graph: Graph) -> int:
    """Bytes of biases and what else is not rounded."""
    return 4 * (_numbers(graph) - sum(s.levels.size for s in rounded.shared.values()))
