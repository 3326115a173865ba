"""Packages on a device: verified, put in place, compared.

A device's folder holds ``weights.safetensors``, the shared weights, and ``missions/NAME.mission``.
What is refused leaves it as it was; what is taken replaces the earlier package in one step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch

from distillnet.errors import DistillnetError, InputError
from distillnet.files import new_file
from distillnet.files.regular import read_regular
from distillnet.graph import Graph, GraphModule
from distillnet.job.runs import Run
from distillnet.missions.packages.graphs import Base, base_of, read_base
from distillnet.missions.packages.package import (
    Contents,
    contents_of,
    decode,
    encode,
    graph_of,
    keep_of,
)
from distillnet.missions.packages.signing import opened, read_public, signed

__all__ = [
    "WEIGHTS",
    "Opened",
    "apply_package",
    "diff_packages",
    "open_package",
    "pack_mission",
    "shared_weights",
]

WEIGHTS, _MISSIONS, _SUFFIX = "weights.safetensors", "missions", ".mission"
_AT_MOST = 2**30  # bytes of a package


@dataclass(frozen=True, eq=False)
class Opened:
    """A package whose signature holds, ``whole`` as it was read."""

    path: Path
    whole: bytes = field(repr=False)
    contents: Contents

    @property
    def told(self) -> dict[str, Any]:
        """What it is, for a person or as JSON."""
        c = self.contents
        changed = sum(1 for t in c.tensors.values() if t.coding != "same")
        return {
            "name": c.name,
            "serial": c.serial,
            "model": c.model,
            "classes": [{"index": x.index, "name": x.name} for x in c.classes],
            "unknown": c.unknown,
            "thresholds": len(c.thresholds),
            "tensors": len(c.tensors),
            "tensors_that_differ": changed,
            "bytes": len(self.whole),
            "base_sha256": c.base_sha256,
        }


def shared_weights(model: str, graph: Graph, weights_sha256: str, path: Path) -> Base:
    """The shared file of a network, written where there is none yet.

    Raises:
        InputError: the file there is of other weights.
    """
    content = base_of(f"{Path(model).name} {weights_sha256[:12]}", graph)
    if not path.exists():
        with new_file(path) as work:
            work.write_bytes(content)
    elif path.stat().st_size != len(content) or read_regular(path, len(content)) != content:
        raise InputError(
            f"{path} holds other weights than those of {Path(model).name}; expected the same for "
            "all missions of a device. Name another file with --base"
        )
    return read_base(path)


def pack_mission(
    run: Run, graph: Graph, base: Base, path: Path, key: Path, *, name: str, serial: int,
    keep: dict[str, torch.Tensor], unknown: bool,
) -> Opened:  # fmt: skip
    """Write a run as a signed package, and read it again.

    Args:
        graph: the run's network, as it is to be run.

    Raises:
        InputError: the key is none, or the name.
        DistillnetError: what was packed says something else than the network.
    """
    contents = contents_of(run, graph, base, name, serial, keep=keep, unknown=unknown)
    whole = signed(encode(contents), key)
    decoded = decode(whole[len(whole) - len(encode(contents)) - 64 : -64], str(path))
    again = graph_of(decoded, base, str(path))
    x = torch.randn(2, *graph.input.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want, found = GraphModule(graph)(x), GraphModule(again)(x)
        # The tensors are equal, bit by bit; sums over them run in another order in memory.
        if not torch.allclose(found, want, rtol=0, atol=1e-4 * float(want.abs().max())):
            raise DistillnetError("the package says something else than the run; report this")
    path.write_bytes(whole)
    return Opened(path, whole, decoded)


def open_package(path: Path, keys: Sequence[Path]) -> Opened:
    """A package that one of the public keys in PEM files has signed; InputError for any other."""
    trusted = [read_public(key) for key in keys]
    try:
        whole = read_regular(path, _AT_MOST)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a package") from error
    return Opened(path, whole, decode(opened(whole, trusted, str(path)), str(path)))


def apply_package(path: Path, device: Path, keys: Sequence[Path]) -> tuple[Opened, Opened | None]:
    """Put a package in its place on a device; what was there before beside it.

    Raises:
        InputError: it is not signed by a trusted key, not newer than the one there, or of other
            weights; the device keeps its mission.
    """
    package = open_package(path, keys)
    base = read_base(device / WEIGHTS)
    graph_of(package.contents, base, str(path))
    place = device / _MISSIONS / f"{package.contents.name}{_SUFFIX}"
    before = _installed(place, keys)
    if before is not None and before.contents.serial >= package.contents.serial:
        raise InputError(
            f"{path} is number {package.contents.serial} of mission {package.contents.name!r}, and "
            f"the device has number {before.contents.serial}; expected a larger number. Pack a "
            "newer one with --serial"
        )
    place.parent.mkdir(exist_ok=True)
    with new_file(place) as work:
        work.write_bytes(package.whole)
    return package, before


def _installed(place: Path, keys: Sequence[Path]) -> Opened | None:
    """The package in a place; None where there is none, or what is there would never run."""
    if not place.exists():
        return None
    try:
        return open_package(place, keys)
    except InputError:
        return None


def diff_packages(one: Opened, two: Opened) -> dict[str, Any]:
    """What another package changes: classes, thresholds, neurons that are kept, tensors."""
    a, b = one.contents, two.contents
    names = [{c.index: c.name for c in x.classes} for x in (a, b)]
    keeps = [keep_of(x) for x in (a, b)]
    sites = {}
    for site in sorted(set(keeps[0]) | set(keeps[1])):
        left, right = keeps[0].get(site), keeps[1].get(site)
        if left is None or right is None or left.shape != right.shape:
            sites[site] = "only one has a bitmap of this shape"
        elif int((left != right).sum()):
            sites[site] = f"+{int((right & ~left).sum())} -{int((left & ~right).sum())} neurons"
    same = {n for n in a.tensors if n in b.tensors and a.tensors[n] == b.tensors[n]}
    thresholds = sorted(set(a.thresholds) | set(b.thresholds))
    return {
        "names": [a.name, b.name],
        "serials": [a.serial, b.serial],
        "same_weights": a.base_sha256 == b.base_sha256,
        "classes_added": [n for i, n in names[1].items() if i not in names[0]],
        "classes_removed": [n for i, n in names[0].items() if i not in names[1]],
        "unknown": [a.unknown, b.unknown],
        "thresholds": {
            t: [a.thresholds.get(t), b.thresholds.get(t)]
            for t in thresholds
            if a.thresholds.get(t) != b.thresholds.get(t)
        },
        "bitmaps": sites,
        "tensors": {"same": len(same), "changed": len(set(a.tensors) | set(b.tensors)) - len(same)},
        "bytes": [len(msgspec.msgpack.encode(x)) for x in (a, b)],
    }
