"""The whole job for callers from Python, who pass things in the forms that they have them in."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from distillnet.atlas import Atlas
from distillnet.classes import Mission, parse_mission
from distillnet.errors import InputError, as_path, expect
from distillnet.images import Folders, open_images
from distillnet.job.distill import Progress
from distillnet.job.distill import distill as distill_strictly
from distillnet.job.distillation import Distillation, Options
from distillnet.job.partition import Images, split_images
from distillnet.models import Model

__all__ = ["distill"]


def distill(
    model: Model,
    mission: Mission | str | Sequence[str | int],
    images: Images | Folders | str | Path,
    atlas_dir: str | Path | None = None,
    options: Options | None = None,
    *,
    atlas: Atlas | None = None,
    whole_front: bool = True,
    on_progress: Progress = lambda stage, done, of: None,
) -> Distillation:
    """Cut a network down to a mission within a budget; with no training, unless options ask for it.

    Args:
        model: what ``load_model`` gives, of a name, a file or a module of your own.
        mission: the classes to keep: a ``Mission``, names with commas between, or a sequence of
            names and indices.
        images: a folder, what ``open_images`` found in one, or what ``split_images`` made of that;
            the val images are used for the final figures only.
        atlas_dir: an existing folder to keep the statistics in; by default they are not kept.
        atlas: statistics that are there already.
        whole_front: evaluate all networks of the front, and not the chosen one alone.
        on_progress: called as (stage, done, of) with the stages collect, read (the search
            images), search, tune and evaluate.

    Raises:
        InputError: a class is missing, images cannot be read, or the network cannot be followed.
    """
    if isinstance(model, nn.Module):
        raise InputError(
            "found a torch.nn.Module as the network; expected distillnet.load_model(module, "
            "preprocessing=...), which knows how images become its input"
        )
    expect(model, Model, "the network", "what distillnet.load_model gives")
    expect(options, (Options, type(None)), "options", "distillnet.Options or nothing")
    options = options or Options()
    wanted = _mission(mission, model)
    parts, sources = _images(images, wanted, model, options, atlas)
    if atlas is not None or atlas_dir is not None:
        folder = Path() if atlas_dir is None else as_path(atlas_dir, "the folder for statistics")
        done = distill_strictly(
            model, wanted, parts, folder, options,
            atlas=atlas, whole_front=whole_front, on_progress=on_progress,
        )  # fmt: skip
        return replace(done, sources=sources)
    with tempfile.TemporaryDirectory(prefix="distillnet-") as kept_until_then:
        done = distill_strictly(
            model, wanted, parts, Path(kept_until_then), options,
            whole_front=whole_front, on_progress=on_progress,
        )  # fmt: skip
    return replace(done, sources=sources)


def _mission(mission: Mission | str | Sequence[str | int], model: Model) -> Mission:
    if isinstance(mission, Mission):
        return mission
    kinds = "class names with commas between, a list of names or indices, or a Mission"
    expect(mission, (str, Sequence), "the mission", kinds)
    for item in () if isinstance(mission, str) else mission:
        expect(item, (str, int), "a class of the mission", "a name or an index")
    return parse_mission(mission, model.classes)


def _images(
    images: Images | Folders | str | Path,
    mission: Mission,
    model: Model,
    options: Options,
    atlas: Atlas | None,
) -> tuple[Images, dict[str, Any]]:
    """The parts, and where the images lie if that is known."""
    kinds = "a folder's path, or what open_images or split_images gives"
    expect(images, (Images, Folders, str, Path), "images", kinds)
    if isinstance(images, Images):
        for name, part in (("search", images.search), ("val", images.val)):
            seen = [ref for ref in part.refs if atlas is not None and atlas.has_seen(ref)]
            if seen:
                raise InputError(
                    f"{len(seen)} of the {name} images, such as {seen[0]}, are among those that "
                    "the atlas was made of; expected others, or split_images(..., atlas=atlas), "
                    "which takes others"
                )
        return images, {}
    sources: dict[str, Any] = {}
    if not isinstance(images, Folders):
        sources = {"data": str(images)}
        images = open_images(images, model.classes, mission)
    wanted = Folders(
        images.train.select(mission.indices),
        images.val.select(mission.indices) if images.val else None,
        images.left_out,
    )
    return split_images(wanted, atlas=atlas, seed=options.seed), sources
