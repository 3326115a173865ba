"""One image: what both networks say, whether it is refused, and which neurons fire."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.errors import InputError
from distillnet.graph import fast_layout, run
from distillnet.images import ImageRef, UnreadableImage, read_image
from distillnet.images.preprocessing import Preprocessing, preprocess
from distillnet.pages.pictures import thumbnail
from distillnet.pages.subject import Original

__all__ = ["Network", "ask"]

_BEST = 5  # classes that are named
_SIDE = 224  # pixels of what is shown

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Network:
    """A network that can be asked.

    Attributes:
        scores: normalised images (N, C, H, W) -> (N, K) of the mission's classes.
        keep: its keep maps by site; a site without one is kept whole.
        with_unknown: the same with one score more, of what is none of them, where a rule tells it.
    """

    mission: Mission
    preprocessing: Preprocessing
    scores: Score
    keep: Mapping[str, Tensor]
    with_unknown: Score | None = None


def ask(
    data: bytes, original: Original | None, network: Network, names: Sequence[str] | None = None
) -> dict[str, Any]:
    """What the original and a network cut from it say of an image, given as its file's bytes.

    Neurons that fire are those of the original above zero, by layer: of the ones that the
    network keeps, and of the ones that it does without.

    Args:
        names: of all that the original knows, where it does not know them itself.

    Raises:
        InputError: it cannot be read as an image.
    """
    image = _decoded(data)
    mission = network.mission
    x = preprocess(image, network.preprocessing)[None]
    with torch.inference_mode():
        scores = network.scores(x)[0]
    said: dict[str, Any] = {
        "picture": thumbnail(image, _SIDE),
        "distilled": _best(scores, mission.names),
        "refused": None,
        "original": None,
        "original_among_all": None,
        "layers": [],
    }
    if network.with_unknown is not None:
        with torch.inference_mode():
            calibrated = network.with_unknown(x)[0]
        said["distilled"] = _best(calibrated[:-1], mission.names)
        said["refused"] = {
            "is": bool(calibrated.argmax() == len(mission)),
            "share": float(calibrated.double().softmax(0)[-1]),
        }
    if original is not None:
        height, width = original.graph.input.shape[1:]
        how = original.model.preprocessing.with_input_size((height, width))
        x = fast_layout(preprocess(image, how)[None])
        fired: dict[str, Tensor] = {}

        def observe(name: str, y: Tensor) -> None:
            if name in original.channels.sites:
                fired[name] = y[0] > 0

        with torch.inference_mode():
            graph = original.graph
            all_scores = run(graph, {graph.input.name: x}, observe=observe)[graph.output][0]
        said["original"] = _best(all_scores[list(mission.indices)], mission.names)
        said["original_among_all"] = _best(all_scores, names or original.model.classes.names)
        said["layers"] = _layers(network.keep, fired)
    return said


def _decoded(data: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="distillnet-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        try:
            return read_image(ImageRef(path, 0))
        except UnreadableImage as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise InputError(f"this is not an image that can be read: {reason}") from None


def _best(scores: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The likeliest classes, and their probabilities among those that there are scores of."""
    likely = scores.double().softmax(0)
    order = likely.argsort(descending=True)[:_BEST].tolist()
    return [{"name": names[i], "share": float(likely[i])} for i in order]


def _layers(keep_maps: Mapping[str, Tensor], fired: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """By layer, how many channels fire somewhere, of those that are kept and of the others."""
    rows = []
    for site, fires in fired.items():
        channels = fires.reshape(len(fires), -1).any(1)
        keep = keep_maps.get(site)
        kept = torch.ones(len(channels), dtype=torch.bool)
        if keep is not None and len(keep) == len(channels):
            kept = keep.reshape(len(keep), -1).any(1)
        rows.append(
            {
                "name": site,
                "kept": int(kept.sum()),
                "kept_firing": int((channels & kept).sum()),
                "removed": int((~kept).sum()),
                "removed_firing": int((channels & ~kept).sum()),
            }
        )
    return rows
