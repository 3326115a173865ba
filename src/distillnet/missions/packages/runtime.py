"""Several missions over one set of weights, chosen from image to image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.errors import InputError
from distillnet.graph import Graph, fast_layout, run
from distillnet.images.preprocessing import Preprocessing
from distillnet.missions.packages.device import WEIGHTS, open_package
from distillnet.missions.packages.graphs import Base, read_base
from distillnet.missions.packages.package import Contents, graph_of, keep_of
from distillnet.missions.unknown.rule import unknown_name

__all__ = ["Missions"]


class Missions:
    """The missions of a device: each image may be of another.

    A mission whose weights are the original's own is a set of bitmaps over the shared weights,
    which stand in memory once; one that was refitted brings what it changes.

    Attributes:
        names: of the missions.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._held: dict[str, tuple[Contents, Graph, tuple[int, ...] | None]] = {}

    @classmethod
    def of_device(cls, device: str | Path, keys: Sequence[str | Path]) -> "Missions":
        """All missions of a device's folder.

        Args:
            keys: PEM files of the public keys that are trusted.

        Raises:
            InputError: a package there is not signed by one of them, or of other weights.
        """
        missions = cls(read_base(Path(device) / WEIGHTS))
        for path in sorted((Path(device) / "missions").glob("*.mission")):
            missions.add(path, keys)
        return missions

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._held)

    def add(self, path: str | Path, keys: Sequence[str | Path]) -> str:
        """Take a package in, in place of an older one of its name, which is told.

        Raises:
            InputError: as ``apply_package``; what is held stays.
        """
        contents = open_package(Path(path), [Path(key) for key in keys]).contents
        held = self._held.get(contents.name)
        if held is not None and held[0].serial >= contents.serial:
            raise InputError(
                f"{path} is number {contents.serial} of mission {contents.name!r}, and number "
                f"{held[0].serial} is held; expected a larger number"
            )
        graph = graph_of(contents, self._base, str(path))
        outputs = None
        plain = all(stored.coding == "same" for stored in contents.tensors.values())
        size = self._base.graph.input.shape == graph.input.shape
        if plain and size and not contents.unknown:
            graph = mask(self._base.graph, Plan(keep_of(contents)))  # shares every weight
            outputs = tuple(c.index for c in contents.classes)
        self._held[contents.name] = (contents, graph, outputs)
        return contents.name

    def classes(self, name: str) -> tuple[str, ...]:
        """What a mission's scores are of, the unknown last where it has a score."""
        contents = self._of(name)[0]
        names = tuple(c.name for c in contents.classes)
        return (*names, unknown_name(names)) if contents.unknown else names

    def preprocessing(self, name: str) -> Preprocessing:
        """How an image becomes a mission's input."""
        return self._of(name)[0].preprocessing

    def scores(self, name: str, x_nchw: Tensor) -> Tensor:
        """A mission's scores (N, K) of normalised images (N, C, H, W).

        Raises:
            InputError: there is no such mission, or the images are of another size.
        """
        _, graph, outputs = self._of(name)
        if tuple(x_nchw.shape[1:]) != graph.input.shape:
            raise InputError(
                f"found images of shape {tuple(x_nchw.shape[1:])} for mission {name!r}; expected "
                f"{graph.input.shape}"
            )
        with torch.inference_mode():
            y = run(graph, {graph.input.name: fast_layout(x_nchw)})[graph.output]
        return y if outputs is None else y[:, list(outputs)]

    def _of(self, name: str) -> tuple[Contents, Graph, tuple[int, ...] | None]:
        if name not in self._held:
            raise InputError(f"found no mission {name!r}; expected one of {list(self._held)}")
        return self._held[name]
