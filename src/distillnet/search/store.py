"""What a search has computed, kept in files, so that an interrupted one can be gone on with.

A search is the same each time, so it needs no notes of where it was: it starts again, and what
takes long in it, refitted networks and their scores, is looked up by what it was computed of.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from safetensors import SafetensorError
from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.errors import InputError
from distillnet.files.documents import Document, read_document
from distillnet.files.tensors import read_tensors, write_tensors
from distillnet.files.writing import replace_file
from distillnet.graph import Graph
from distillnet.images.preprocessing import Size

__all__ = ["NOWHERE", "NotKnown", "Store", "key_of", "open_store"]

_INDEX = "search.json"
_FORMAT = 1
_REMEDY = "leave out --resume or --best-so-far to search from the beginning"
_Key = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]  # of key_of; a file's name


class _Index(Document, frozen=True):
    """Which results a folder holds, and what all of them depend on."""

    format: int
    settings: dict[str, Any]
    known: list[_Key]


class NotKnown(Exception):  # noqa: N818 - not an error: it ends a search that is to compute nothing
    """What a search would have to compute."""


@dataclass
class Store:
    """Scores and networks by key, in a folder that is made with the first of them.

    Attributes:
        folder: None keeps nothing.
        settings: what all of them depend on.
        known: keys of what is there.
        only_known: raise NotKnown instead of computing anything.
        on_best: called whenever a smaller network within the budget was found: how many times less
            there is to do, and the loss that is expected, in points.
        on_front: called after each candidate with the best so far, the smallest first: how many
            times less there is to do, the loss that is expected, in points, and whether it is
            within the budget.
    """

    folder: Path | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    only_known: bool = False
    on_best: Callable[[float, float], None] = lambda ratio, loss_pp: None
    on_front: Callable[[Sequence[tuple[float, float, bool]]], None] = lambda points: None

    def tensors(
        self, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """What belongs to a key, on the CPU where it was known."""
        if self.folder is not None and key in self.known:
            return self._read(key)
        if self.only_known:
            raise NotKnown
        tensors = compute()
        if self.folder is not None:
            self._write(key, tensors)
        return tensors

    def network(
        self, key: str, template: Graph, compute: Callable[[], tuple[Graph, Tensor]]
    ) -> tuple[Graph, Tensor]:
        """A network of the template's nodes and what it says of images."""
        computed: list[Graph] = []

        def named() -> dict[str, Tensor]:
            graph, scores = compute()
            computed.append(graph)
            return {"scores": scores} | {f"param/{n}": p for n, p in graph.params.items()}

        tensors = dict(self.tensors(key, named))
        scores = tensors.pop("scores", torch.empty(0))
        if computed:
            return computed[0], scores
        params = {name.removeprefix("param/"): tensor for name, tensor in tensors.items()}
        shapes = {name: param.shape for name, param in template.params.items()}
        if {name: param.shape for name, param in params.items()} != shapes:
            raise self._damaged(f"{key} is of another network")
        device = {name: param.device for name, param in template.params.items()}
        placed = {name: params[name].to(device[name]) for name in template.params}
        return replace(template, params=placed), scores

    def _read(self, key: str) -> dict[str, Tensor]:
        assert self.folder is not None
        try:
            tensors = read_tensors(self.folder / f"{key}.safetensors")
        except (OSError, SafetensorError) as error:
            raise self._damaged(str(error)) from error
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise self._damaged(f"{key} holds NaN or infinity")
        return tensors

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"{self.folder} cannot be read ({why}); expected what an interrupted search left "
            f"there; {_REMEDY}"
        )

    def _write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        assert self.folder is not None
        if not self.known:  # of other settings, or not wanted any more
            self.folder.resolve().mkdir(exist_ok=True, parents=True)  # --out may be a link
            for path in (self.folder / _INDEX, *self.folder.glob("*.safetensors")):
                path.unlink(missing_ok=True)
        with replace_file(self.folder / f"{key}.safetensors") as work:
            write_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, work)
        self.known.add(key)
        index = {"format": _FORMAT, "settings": self.settings, "known": sorted(self.known)}
        with replace_file(self.folder / _INDEX) as work:
            work.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


NOWHERE = Store(None)


def open_store(
    folder: Path, settings: Mapping[str, Any], *, resume: bool = False, only_known: bool = False
) -> Store:
    """A store in a folder; with ``resume`` it knows what another search has put there.

    Raises:
        InputError: there is nothing to resume, it cannot be read, or is of other settings.
    """
    settings = json.loads(json.dumps(settings))
    if not resume:
        return Store(folder, settings)
    if not (folder / _INDEX).exists():
        raise InputError(
            f"found no {folder / _INDEX}; expected what an interrupted search left there; {_REMEDY}"
        )
    index = read_document(folder / _INDEX, _Index, _REMEDY, format_=_FORMAT)
    found = index.settings
    for name in sorted({*found, *settings}):
        if found.get(name) != settings.get(name):
            raise InputError(
                f"{folder} is of a search that differs in its {name} "
                f"({str(found.get(name))[:100]} instead of {str(settings.get(name))[:100]}); give "
                f"the same, or {_REMEDY}"
            )
    store = Store(folder, settings, set(index.known), only_known)
    for key in index.known:
        store._read(key)  # now rather than after minutes
    return store


def key_of(what: str, size: Size, plan: Plan, **more: object) -> str:
    """What a result is looked up by: all that it is computed of, but for the settings."""
    text = hashlib.sha256(repr((what, size, plan.outputs, sorted(more.items()))).encode())
    for site, keep in sorted(plan.keep.items()):
        text.update(f"{site} {tuple(keep.shape)}".encode())
        text.update(keep.cpu().numpy().tobytes())
    text.update(repr(sorted(plan.splits.items(), key=lambda pair: pair[0])).encode())
    return text.hexdigest()[:32]
