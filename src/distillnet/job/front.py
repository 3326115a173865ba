"""Taking another network from the front that a run keeps, without a search and without images."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillnet.errors import InputError
from distillnet.files.documents import encode, read_document
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.job.documents import FORMAT, MissionDocument
from distillnet.job.front_points import verdict_of
from distillnet.job.layout import FRONT, RUN_MARKER, TIMES, relative_sources
from distillnet.job.provenance import PROVENANCE
from distillnet.job.results import budget_json, class_warning, finite_json
from distillnet.job.runs import Run, seal_run, write_json
from distillnet.search import Budget, estimate, is_within
from distillnet.search.budget import in_points

__all__ = ["fitting_point", "front_folders", "take_from_front"]

_COPIED = ("model.pt2", "bitmaps.safetensors")


def take_from_front(opened: Run, budget: Budget, directory: Path) -> dict[str, Any]:
    """Write a run of another network on a run's front, for another budget; its figures.

    Within a loss it is the smallest, as the search counts it: a smaller input counts for more, and
    so may time. Of those that reach a target it is the one of least divergence. Losses are those
    of the search images, as in the search itself.

    Raises:
        InputError: the run has no front, or nothing on it is within the budget.
    """
    points = front_folders(opened)
    if not points:
        raise InputError(
            f"{opened.directory} has no front of networks to choose from; expected a run of method "
            "best, distill again without --from"
        )
    folder, result = fitting_point(opened, points, budget)
    taken = [f"{FRONT}/{folder.name}/{name}" for name in (*_COPIED, "result.json")]
    check_sealed(opened.directory, read_manifest(opened.directory), taken)
    result["stopped_by"] = (
        "the ratio that was to be reached"
        if budget.has_target
        else "what the front of the other run has"
    )
    old, new = (_class_warning(result, told) for told in (result["budget"], budget_json(budget)))
    result["warnings"] = [*new, *(said for said in result["warnings"] if said not in old)]
    result["budget"] = budget_json(budget)
    result["search"]["budget_met"] = True
    for name in _COPIED:
        shutil.copyfile(folder / name, directory / name)
    # It is made of the same images, and for the same times.
    kept = [name for name in (PROVENANCE, TIMES) if (opened.directory / name).exists()]
    check_sealed(opened.directory, read_manifest(opened.directory), kept)
    for name in kept:
        shutil.copyfile(opened.directory / name, directory / name)
    write_json(result, directory / "result.json")
    mission = encode(
        read_document(
            opened.directory / RUN_MARKER, MissionDocument, "distill again", format_=FORMAT
        )
    )
    mission["options"]["budget"] = asdict(budget)
    height, width = result["distilled"]["input_size"]
    how = opened.preprocessing.with_input_size((height, width))
    mission["preprocessing"] = asdict(how)
    # As they are found from here: those beside the other run do not lie beside this one.
    sources = {**opened.sources, "from": opened.directory}
    mission["sources"] = relative_sources(sources, directory)
    write_json(finite_json(mission), directory / RUN_MARKER)
    seal_run(directory)
    return dict(result)


def front_folders(opened: Run) -> list[tuple[Path, dict[str, Any]]]:
    """The networks for other budgets, the smallest first: their folders and figures."""
    found = sorted((opened.directory / FRONT).glob("[0-9]*/result.json"))
    return [(path.parent, result) for path, result in zip(found, opened.front, strict=True)]


def _class_warning(result: dict[str, Any], budget: dict[str, Any]) -> list[str]:
    before, after = result["baseline"]["per_class"], result["distilled"]["per_class"]
    said = class_warning(before, after, budget)
    return [] if said is None else [said]


def fitting_point(
    opened: Run, points: Sequence[tuple[Path, dict[str, Any]]], budget: Budget
) -> tuple[Path, dict[str, Any]]:
    """The network of a front, its folder and figures, that a budget asks for.

    Raises:
        InputError: there is none; the message says what there is.
    """
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
            f"no network of {opened.directory} is within {in_points(budget.max_loss_pp)} (worst "
            f"class {budget.class_limit_pp:g}) by the search images; there are: "
            + "; ".join(_losses(budget, result) for _, result in points)
            + ". Allow more, or distill again without --from"
        )
    return fitting[0]


def _within(budget: Budget, search: dict[str, Any]) -> bool:
    """Whether a result's losses on the search images are within a budget, as the search counts."""
    return is_within(budget, verdict_of(search))


def _losses(budget: Budget, result: dict[str, Any]) -> str:
    """The losses that decide."""
    search = result["search"]
    expected = estimate(verdict_of(search))
    return (
        f"{result['mac_ratio']:.2f}x with {expected.loss_pp:.2f} +- {expected.uncertain_pp:.2f} "
        f"expected, worst class {expected.worst_class_pp:.2f}"
    )
