"""What an interrupted search keeps in the run folder, and going on from it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.images.keys import files_digest
from distillnet.job.distillation import Options
from distillnet.job.layout import UNFINISHED
from distillnet.job.partition import Images
from distillnet.job.results import model_name
from distillnet.models import Model
from distillnet.search.store import Store, open_store

__all__ = ["search_store"]

# What decides among candidates, not what they are, and what may change nothing at all.
_FREE = ("budget", "tune", "seen", "batch_size", "workers", "device")
_VERSIONS = ("distillnet", "torch", "torchvision", "pillow")


def search_store(
    out: Path,
    model: Model,
    mission: Mission,
    images: Images,
    options: Options,
    *,
    resume: bool = False,
    best_so_far: bool = False,
    on_best: Callable[[float, float], None] = lambda ratio, loss_pp: None,
    on_front: Callable[[Sequence[tuple[float, float, bool]]], None] = lambda points: None,
) -> Store:
    """Where a search keeps what it computes, in the folder of its run.

    Args:
        resume: go on from what an interrupted search left there.
        best_so_far: compute no more, take the best of it.
        on_best, on_front: see ``Store``.

    Raises:
        InputError: there is nothing of that kind, it cannot be read, or is of another search.
    """
    if (resume or best_so_far) and options.method != "best":
        raise InputError(
            f"found --resume with the method {options.method}, which keeps nothing; only best does"
        )
    if best_so_far and options.budget.has_target:
        raise InputError(
            "found --best-so-far with a ratio to reach; expected a loss. --resume goes on searching"
        )
    fixed = {name: value for name, value in asdict(options).items() if name not in _FREE}
    settings: dict[str, Any] = {
        "network": model_name(model.name),
        "weights": model.weights_sha256,
        "preprocessing": asdict(model.preprocessing),
        "classes": list(mission.indices),
        "statistics images": files_digest(images.statistics),
        "search images": files_digest(images.search),
        "largest image": images.search.max_pixels,
        "options": fixed,
        "versions": {name: version(name) for name in _VERSIONS},
    }
    store = open_store(
        out / UNFINISHED, settings, resume=resume or best_so_far, only_known=best_so_far
    )
    return replace(store, on_best=on_best, on_front=on_front)
