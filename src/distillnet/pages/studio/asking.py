"""One image: what both networks say of it, and which neurons fire."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillnet.errors import InputError
from distillnet.graph import fast_layout, run
from distillnet.images import ImageRef, UnreadableImage, read_image
from distillnet.images.preprocessing import preprocess
from distillnet.pages.pictures import thumbnail
from distillnet.pages.studio.workroom import Workroom

__all__ = ["AT_MOST", "ask"]

AT_MOST = 32 * 2**20  # bytes of an image
_BEST = 5  # classes that are named
_SIDE = 224  # pixels of what is shown


def ask(room: Workroom, number: int, data: bytes) -> dict[str, Any]:
    """What the original and a candidate say of an image, given as its file's bytes.

    Neurons that fire are those of the original above zero, by layer: of the ones that the
    candidate keeps, and of the ones that it does without.

    Raises:
        InputError: it cannot be read as an image.
    """
    image = _decoded(data)
    _, as_run, network = room.network(number)
    with torch.inference_mode():
        scores = network(preprocess(image, as_run.preprocessing)[None])[0]
    said: dict[str, Any] = {
        "picture": thumbnail(image, _SIDE),
        "distilled": _best(scores, room.run.mission.names),
        "original": None,
        "original_among_all": None,
        "layers": [],
    }
    original = room.original
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
        said["original"] = _best(all_scores[list(room.run.mission.indices)], room.run.mission.names)
        said["original_among_all"] = _best(all_scores, original.model.classes.names)
        said["layers"] = _layers(room.kept(number), fired)
    return said


def _decoded(data: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="distillnet-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        try:
            return read_image(ImageRef(path, 0))
        except UnreadableImage as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise InputError(f"this is no image that can be read: {reason}") from None


def _best(scores: Tensor, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The likeliest classes, and their probabilities among those that there are scores of."""
    likely = scores.double().softmax(0)
    order = likely.argsort(descending=True)[:_BEST].tolist()
    return [{"name": names[i], "share": float(likely[i])} for i in order]


def _layers(keep_maps: dict[str, Tensor], fired: dict[str, Tensor]) -> list[dict[str, Any]]:
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
