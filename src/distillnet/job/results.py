"""The figures of a distillation as ``result.json`` holds them."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillnet.cut.cost import Cost
from distillnet.evaluate import Evaluation
from distillnet.graph import Graph
from distillnet.images import described
from distillnet.job.distillation import Distillation
from distillnet.search import Budget

__all__ = [
    "allowed_loss_pp",
    "budget_json",
    "class_warning",
    "finite_json",
    "finite_loss_pp",
    "model_name",
    "result_json",
    "warnings_of",
]

_FEW = 20  # images of a class
_SLIGHT = 0.2  # of what lies between chance and all right: Cohen's kappa that is called slight


def result_json(done: Distillation) -> dict[str, Any]:
    """The content of ``result.json``."""
    values = {
        "model": model_name(done.model.name),
        "method": done.options.method,
        "score": done.options.score_name,
        "classes": [
            {"index": i, "name": name}
            for i, name in zip(done.mission.indices, done.mission.names, strict=True)
        ],
        "n_classes": len(done.model.classes),
        "budget": budget_json(done.options.budget),
        "baseline": _network(done.graph, done.cost_before, done.baseline),
        "distilled": _network(done.found.graph, done.cost_after, done.distilled),
        "mac_ratio": done.mac_ratio,
        "mac_ratio_with_partial": done.mac_ratio_with_partial,
        "mac_ratio_c": done.mac_ratio_c,
        "mac_ratio_c_switchable": done.mac_ratio_c_switchable,
        "inception_mac_ratio": done.inception_mac_ratio,
        "param_ratio": done.param_ratio,
        "work_ratio": done.work_ratio,
        "loss_pp": done.loss_pp,
        "worst_class_loss_pp": done.worst_class_loss_pp,
        "loss_ci95_pp": list(done.loss_ci95_pp),
        "expected_loss_pp": done.found.expected.loss_pp,
        "expected_ci95_pp": list(done.found.expected.ci95_pp),
        "stopped_by": done.found.stopped_by,
        "tuned": done.found.tuned is not None,
        "warnings": list(warnings_of(done)),
        "n_images": dict(done.n_images),
        "seconds": {"tune": 0.0, **done.seconds},
        "peak_rss_mb": done.peak_rss_mb,
        "search": {
            **asdict(done.found.verdict),
            "worst_class_loss_pp": done.found.verdict.worst_class_loss_pp,
            "seen": done.found.seen,
            "budget_met": done.found.met,
        },
        "layers": [asdict(layer) for layer in done.layers],
        "unreadable": [_without_folders(message) for message in done.unreadable],
    }
    finite: dict[str, Any] = finite_json(values)
    return finite


def warnings_of(done: Distillation) -> tuple[str, ...]:
    """What a careful colleague would say of a result, the worst first."""
    said, budget, chance = [], done.options.budget, 1 / len(done.mission)
    if not done.n_images["val"]:
        said.append(
            "No image was read: the accuracies are estimated from the atlas's samples. Pass "
            "images with --data to measure them."
        )
    if done.baseline.accuracy < chance + _SLIGHT * (1 - chance):
        said.append(
            f"The original is right on {100 * done.baseline.accuracy:.0f} % of the images, hardly "
            "more than by chance: check weights, --mean, --std and the names of the classes."
        )
    beyond = class_warning(done.baseline.per_class, done.distilled.per_class, budget_json(budget))
    said += [] if beyond is None else [beyond]
    if done.unreadable:
        files = "1 image" if len(done.unreadable) == 1 else f"{len(done.unreadable)} images"
        said.append(f"{files} could not be read, and the figures leave them out.")
    if done.images.left_out:
        said.append(
            f"{described(done.images.left_out)} in the folders of these classes were left out: "
            "images of a kind that distillnet does not read. Convert them to JPEG or PNG."
        )
    if copies := len(done.provenance.val & done.provenance.made_of):
        said.append(
            f"{copies} of the images behind the figures are copies of images that the network "
            "was made from, and flatter it. Remove one of each pair."
        )
    if few := {name: n for name, n in done.baseline.counts.items() if n < _FEW}:
        fewest = min(few, key=lambda name: few[name])
        said.append(
            f"The figures rest on few images, {few[fewest]} of the class {fewest}; expected {_FEW} "
            f"or more of each class, since one image in {few[fewest]} is "
            f"{100 / few[fewest]:.0f} points."
        )
    if done.found.seen and done.options.seen is None and done.options.method == "best":
        said.append(
            "The network seems to have been trained on these images. It makes fewer errors there "
            "than elsewhere, so what a smaller network loses on them says less of what it loses on "
            "others. Photos that are new to it say more. If these are new, say --unseen."
        )
    return tuple(said)


def class_warning(
    baseline: Mapping[str, float], distilled: Mapping[str, float], budget: Mapping[str, Any]
) -> str | None:
    """What is said where a class loses more than a budget, as in ``result.json``, lets it."""
    if budget.get("target_macs") or budget.get("target_params"):
        return None
    losses = {name: 100 * (share - distilled[name]) for name, share in baseline.items()}
    worst, limit = max(losses, key=lambda name: losses[name]), budget["max_class_loss_pp"]
    if losses[worst] <= limit:
        return None
    return (
        f"The class {worst} loses {losses[worst]:.1f} points on the report images, more than the "
        f"{limit:g} that a class may be expected to lose."
    )


def budget_json(budget: Budget) -> dict[str, float | None]:
    """A budget as ``result.json`` holds it."""
    return {
        "max_loss_pp": budget.max_loss_pp,
        "max_class_loss_pp": budget.class_limit_pp,
        "confidence": budget.confidence,
        "target_macs": budget.target_macs,
        "target_params": budget.target_params,
    }


def allowed_loss_pp(result: Mapping[str, Any]) -> float:
    """What a result's budget lets it lose; no limit where a ratio was to be reached instead."""
    budget = result["budget"]
    reaches = budget.get("target_macs") or budget.get("target_params")  # older runs have neither
    return math.inf if reaches else float(budget["max_loss_pp"])


def finite_loss_pp(result: Mapping[str, Any]) -> float | None:
    """``allowed_loss_pp``; None where there is no limit."""
    allowed = allowed_loss_pp(result)
    return allowed if math.isfinite(allowed) else None


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


def model_name(spec: str) -> str:
    """A MODEL as files tell it that go elsewhere: of a user's file its name, without folders.

    >>> model_name("timm:resnet18"), model_name("/home/me/nets/small.py:Net")
    ('timm:resnet18', 'small.py:Net')
    """
    return Path(spec).name


def _without_folders(message: str) -> str:
    """A message that begins with an image's path, of which its class and its name stay.

    >>> _without_folders("/home/me/photos/cat/1.jpg: the file is empty")
    'cat/1.jpg: the file is empty'
    """
    path, colon, reason = message.partition(": ")
    return "/".join(Path(path).parts[-2:]) + colon + reason


def finite_json(value: Any) -> Any:
    """A value without what JSON has not.

    Infinity, the threshold that removes nothing, is null; bytes of file names that are no UTF-8 are
    spelled out.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {finite_json(key): finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
