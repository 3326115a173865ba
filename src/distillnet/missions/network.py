"""The network that an atlas is of."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from distillnet.errors import InputError
from distillnet.job.layout import file_of
from distillnet.missions.files import MissionAtlas
from distillnet.models import Model, load_model

__all__ = ["model_of"]


def model_of(
    atlas: MissionAtlas, named: str | None = None, weights: str | Path | None = None
) -> Model:
    """The network that an atlas was collected with, its classes called as the atlas calls them.

    Args:
        named: the MODEL as the user names it now; by default what the atlas names, unless that is
            Python: an atlas may come from anybody, and never runs code.
        weights: by default where they lay, as seen from the atlas.

    Raises:
        InputError: weights or file are not where they were, or are others than they were.
    """
    spec = named or _spec(atlas.statistics.model, atlas.sources)
    weights = weights or atlas.sources.get("weights")
    if weights and not Path(weights).is_file():
        raise InputError(
            f"the weights of the atlas {atlas.directory} are not at {weights} any more; pass them "
            "with --weights"
        )
    how = atlas.preprocessing
    model = load_model(spec, weights=weights, preprocessing=how, run_code=named is not None)
    if model.weights_sha256 != atlas.statistics.weights_sha256:
        raise InputError(
            f"the atlas {atlas.directory} is of other weights than {spec} has here; pass those "
            "that it was collected with by --weights"
        )
    return replace(model, classes=atlas.classes)


def _spec(name: str, sources: Mapping[str, str | None]) -> str:
    """The MODEL; a user's file by where it lies now."""
    file = sources.get("model")
    if file is None or file_of(name) is None:
        return name
    part, colon, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    return f"{file}{colon}{function}" if Path(file).name == part else name
