"""The run folder: what ``distill`` leaves behind, and reading it again.

| file | holds |
|---|---|
| ``result.json`` | the figures |
| ``mission.json`` | everything needed to do it again |
| ``bitmaps.safetensors`` | bit-packed keep maps: ``fused/<site>`` and ``<class index>/<site>`` |
| ``model.pt2`` | the compact network, a torch.export programme that loads without this package |
| ``atlas/`` | the statistics |
| ``front/NN/`` | ``result.json``, bitmaps and ``model.pt2`` of the networks for other budgets |
"""

import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillnet.classes import ClassTable, Mission
from distillnet.cut.bitmaps import pack
from distillnet.cut.cost import Cost
from distillnet.errors import InputError
from distillnet.evaluate import Evaluation, Scores, evaluation
from distillnet.files import write_tensors
from distillnet.graph import Graph, GraphModule
from distillnet.images import Batch
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distillation import Distillation
from distillnet.models.programs import load_program
from distillnet.search import Budget, Verdict, beyond_memory, is_within

__all__ = [
    "RUN_MARKER",
    "Run",
    "allowed_loss_pp",
    "evaluate_run",
    "evaluate_scores",
    "open_run",
    "result_json",
    "save_program",
    "take_from_front",
    "write_run",
]

# What tells a run folder, which may be replaced, from a folder of somebody else's results.
RUN_MARKER = "mission.json"
_FRONT = "front"
_FORMAT = 2
_VERSIONS = ("distillnet", "torch", "torchvision", "numpy", "pillow")


def save_program(graph: Graph, path: Path) -> None:
    """Save a graph as a ``torch.export`` programme with a dynamic batch: (N, C, H, W) -> (N, K)."""
    module = GraphModule(graph).eval()
    x = torch.zeros(2, *graph.input.shape)
    program = torch.export.export(
        module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    # Through memory: where the disk is full, PyTorch's own writer ends the process (2.9).
    archive = io.BytesIO()
    torch.export.save(program, archive)
    path.write_bytes(archive.getbuffer())


def result_json(done: Distillation) -> dict[str, Any]:
    """The content of ``result.json``."""
    values = {
        "model": done.model.name,
        "method": done.options.method,
        "score": done.options.score_name,
        "classes": [
            {"index": i, "name": name}
            for i, name in zip(done.mission.indices, done.mission.names, strict=True)
        ],
        "n_classes": len(done.model.classes),
        "budget": _budget_json(done.options.budget),
        "baseline": _network(done.graph, done.cost_before, done.baseline),
        "distilled": _network(done.found.graph, done.cost_after, done.distilled),
        "mac_ratio": done.mac_ratio,
        "mac_ratio_with_partial": done.mac_ratio_with_partial,
        "inception_mac_ratio": done.inception_mac_ratio,
        "param_ratio": done.param_ratio,
        "loss_pp": done.loss_pp,
        "worst_class_loss_pp": done.worst_class_loss_pp,
        "loss_ci95_pp": list(done.loss_ci95_pp),
        "n_images": dict(done.n_images),
        "seconds": dict(done.seconds),
        "peak_rss_mb": done.peak_rss_mb,
        "search": {
            **asdict(done.found.verdict),
            "worst_class_loss_pp": done.found.verdict.worst_class_loss_pp,
            "light": asdict(done.found.light) if done.found.light else None,
            "budget_met": done.found.met,
        },
        "layers": [asdict(layer) for layer in done.layers],
        "unreadable": list(done.unreadable),
    }
    finite: dict[str, Any] = _finite(values)
    return finite


def _budget_json(budget: Budget) -> dict[str, float | None]:
    return {
        "max_loss_pp": budget.max_loss_pp,
        "max_class_loss_pp": budget.class_limit_pp,
        "target_macs": budget.target_macs,
        "target_params": budget.target_params,
    }


def allowed_loss_pp(result: Mapping[str, Any]) -> float:
    """What a result's budget lets it lose; no limit where a ratio was to be reached instead."""
    budget = result["budget"]
    reaches = budget.get("target_macs") or budget.get("target_params")  # older runs have neither
    return math.inf if reaches else float(budget["max_loss_pp"])


def _network(graph: Graph, cost: Cost, result: Evaluation) -> dict[str, Any]:
    return {
        "input_size": list(graph.input.shape[1:]),
        "params": cost.params,
        "macs": cost.macs,
        "macs_with_partial": cost.macs_with_partial,
        "accuracy": result.accuracy,
        "accuracy_open": result.accuracy_open,
        "per_class": dict(result.per_class),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity; a threshold that removes nothing is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_json(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _mission_json(done: Distillation, sources: dict[str, Any]) -> dict[str, Any]:
    table = done.model.classes
    values = {
        "format": _FORMAT,
        "versions": {name: version(name) for name in _VERSIONS},
        "model": done.model.name,
        "weights_sha256": done.model.weights_sha256,
        "n_classes": len(table),
        "classes": [
            {"index": i, "name": table.names[i], "aliases": list(table.aliases[i])}
            for i in done.mission.indices
        ],
        "preprocessing": asdict(done.preprocessing),
        "options": asdict(done.options),
        "seed": done.options.seed,
        "thresholds": dict(done.found.thresholds),
        "sources": sources,
    }
    finite: dict[str, Any] = _finite(values)
    return finite


def write_run(done: Distillation, directory: Path, sources: dict[str, Any] | None = None) -> None:
    """Write a run into ``directory``, an existing folder (see ``files.new_folder``).

    ``sources`` is kept in ``mission.json`` as it is: where weights and images came from.
    """
    _write_network(done, directory)
    for i, point in enumerate(done.front):
        folder = directory / _FRONT / f"{i:02}"
        folder.mkdir(parents=True)
        _write_network(point, folder)
    _write_json(_mission_json(done, sources or {}), directory / RUN_MARKER)


def _write_network(done: Distillation, directory: Path) -> None:
    save_program(done.compact, directory / "model.pt2")
    bitmaps = {f"fused/{site}": keep for site, keep in done.plan.keep.items()}
    for site, keep_k in done.found.class_bitmaps.items():
        if len(keep_k) == len(done.mission):
            for index, keep in zip(done.mission.indices, keep_k, strict=True):
                bitmaps[f"{index}/{site}"] = keep
    write_tensors(pack(bitmaps), directory / "bitmaps.safetensors")
    _write_json(result_json(done), directory / "result.json")


def take_from_front(opened: "Run", budget: Budget, directory: Path) -> dict[str, Any]:
    """Write a run of another network on a run's front, for another budget; its figures.

    Within a loss it is the smallest, as the search counts it: a smaller input counts for more, and
    so may time. Of those that reach a target it is the one of least divergence. Losses are those
    of the search images, as in the search itself.

    Raises:
        InputError: the run has no front, or nothing on it is within the budget.
    """
    points = []
    for path in sorted((opened.directory / _FRONT).glob("*/result.json")):
        points.append((path.parent, json.loads(path.read_text(encoding="utf-8"))))
    if not points:
        raise InputError(
            f"{opened.directory} has no front of networks to choose from; expected a run of method "
            "best, distill again without --from"
        )
    folder, result = _fitting(opened, points, budget)
    result["budget"] = _budget_json(budget)
    result["search"]["budget_met"] = True
    for name in ("model.pt2", "bitmaps.safetensors"):
        shutil.copyfile(folder / name, directory / name)
    _write_json(result, directory / "result.json")
    mission = json.loads((opened.directory / RUN_MARKER).read_text(encoding="utf-8"))
    mission["options"]["budget"] = asdict(budget)
    height, width = result["distilled"]["input_size"]
    how = opened.preprocessing.with_input_size((height, width))
    mission["preprocessing"] = asdict(how)
    # As they are found from here: those beside the other run do not lie beside this one.
    mission["sources"] = {**opened.sources, "from": str(opened.directory)}
    _write_json(mission, directory / RUN_MARKER)
    return dict(result)


def _fitting(
    opened: "Run", points: Sequence[tuple[Path, dict[str, Any]]], budget: Budget
) -> tuple[Path, dict[str, Any]]:
    """The point of a front that a budget asks for; InputError where there is none."""
    for name, target in (("mac_ratio", budget.target_macs), ("param_ratio", budget.target_params)):
        if target is None:
            continue
        reached = [point for point in points if point[1][name] >= target]
        if not reached:
            raise InputError(
                f"no network of {opened.directory} reaches a {name.replace('_', ' ')} of "
                f"{target:g}; there are: "
                + ", ".join(f"{result[name]:.2f}" for _, result in points)
                + ". Ask for less, or distill again without --from"
            )
        return min(reached, key=lambda point: float(point[1]["search"]["divergence"]))
    # The front is in the search's order, the smallest first.
    fitting = [point for point in points if _within(budget, point[1]["search"])]
    if not fitting:
        raise InputError(
            f"no network of {opened.directory} is within {budget.max_loss_pp:g} points (worst "
            f"class {budget.class_limit_pp:g}) by the search images; there are: "
            + "; ".join(_losses(budget, result) for _, result in points)
            + ". Allow more, or distill again without --from"
        )
    return fitting[0]


def _within(budget: Budget, search: dict[str, Any]) -> bool:
    """Whether a result's losses on the search images are within a budget, as the search counts."""
    return is_within(budget, *_verdicts(search))


def _losses(budget: Budget, result: dict[str, Any]) -> str:
    """The losses that decide."""
    loss = beyond_memory(budget, *_verdicts(result["search"]))
    return (
        f"{result['mac_ratio']:.2f}x with {loss.expected_pp:.2f} expected, {loss.counted_pp:.2f} "
        f"counted, worst class {loss.worst_class_pp:.2f}"
    )


def _verdicts(search: dict[str, Any]) -> tuple[Verdict, Verdict | None]:
    """Of the network itself and of the lightly cut one."""

    def verdict(values: dict[str, Any]) -> Verdict:
        known = {field.name: values[field.name] for field in fields(Verdict)}
        return Verdict(**known | {"class_losses_pp": tuple(known["class_losses_pp"])})

    return verdict(search), verdict(search["light"]) if search["light"] else None


@dataclass(frozen=True)
class Run:
    """A run folder, read: the compact network and what it needs to be fed and understood.

    ``options`` are those of ``distillation.Options`` by name; ``sources`` are paths as they were
    given, or within the run where they lie there: data, val, search, atlas, weights, class_names.
    """

    directory: Path
    result: dict[str, Any]
    mission: Mission
    classes: ClassTable
    preprocessing: Preprocessing
    weights_sha256: str
    seed: int
    options: Mapping[str, Any]
    sources: Mapping[str, str | None]


def open_run(directory: Path) -> Run:
    """Read a run folder; InputError where there is none, or one of another version."""
    try:
        mission = json.loads((directory / RUN_MARKER).read_text(encoding="utf-8"))
        result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        if mission["format"] != _FORMAT:
            raise InputError(
                f"{directory} is a run of format {mission['format']}, this version reads "
                f"{_FORMAT}; distill again"
            )
        n_classes = int(mission["n_classes"])
        names = [str(i) for i in range(n_classes)]
        aliases: list[tuple[str, ...]] = [()] * n_classes
        indices = []
        for entry in mission["classes"]:
            index = int(entry["index"])
            names[index] = str(entry["name"])
            aliases[index] = tuple(map(str, entry["aliases"]))
            indices.append(index)
        how = dict(mission["preprocessing"])
        for key in ("input_size", "mean", "std"):
            how[key] = tuple(how[key])
        return Run(
            directory,
            result,
            Mission(tuple(indices), tuple(names[i] for i in indices)),
            ClassTable(tuple(names), tuple(aliases)),
            Preprocessing(**how),
            str(mission["weights_sha256"]),
            int(mission["seed"]),
            dict(mission["options"]),
            {name: _beside(directory, path) for name, path in mission["sources"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{directory} is not a run folder ({type(error).__name__}: {error}); expected a folder "
            "that `distillnet distill` wrote"
        ) from error


def _beside(directory: Path, path: str | None) -> str | None:
    """A source that lies in the run's own folder, as the demo's do, wherever that was moved to."""
    inside = directory / path if path else directory
    return str(inside) if path and inside.exists() else path


def evaluate_run(opened: Run, batches: Iterable[Batch]) -> Evaluation:
    """The compact network's closed-set accuracy on images of the mission's classes.

    Its head has only the mission's scores, so there is no open set to measure.
    """
    path = opened.directory / "model.pt2"
    module = load_program(path).module

    def scores(x_nchw: Tensor) -> Tensor:
        try:
            y: Tensor = module(x_nchw)
        except (RuntimeError, AssertionError) as error:  # its guards are assertions
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path} fails on images of shape {tuple(x_nchw.shape)} ({reason[:200]}); expected "
                "the run's own network, distill again"
            ) from error
        return y

    return evaluate_scores(opened, path, scores, batches)


def evaluate_scores(
    opened: Run, path: Path, scores: Callable[[Tensor], Tensor], batches: Iterable[Batch]
) -> Evaluation:
    """Closed-set accuracy of a run's network in whatever form ``path`` holds it.

    Args:
        scores: normalised images (N, C, H, W) -> the mission's scores (N, K).

    Raises:
        InputError: the scores are of another shape, NaN or infinite.
    """
    position = {index: i for i, index in enumerate(opened.mission.indices)}
    parts, labels = [], []
    with torch.inference_mode():
        for batch in batches:
            y, shape = scores(batch.x_nchw), (len(batch.x_nchw), len(position))
            if y.shape != shape or not bool(torch.isfinite(y).all()):
                found = f"the shape {tuple(y.shape)}" if y.shape != shape else "NaN or infinity"
                raise InputError(
                    f"{path} gives {found} as scores; expected finite ones of shape {shape}. "
                    "Distill or export again"
                )
            parts.append(y)
            labels += [position[int(label)] for label in batch.labels_n]
    return evaluation(Scores(torch.cat(parts), torch.tensor(labels)), opened.mission)
