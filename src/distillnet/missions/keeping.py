"""Which classes keep which filters alive, told from an atlas.

A filter that always answers the same is replaced by its bias, and one whose answer a class's score
does not depend on is not missed. So what a class loses with a filter is, to first order,

    damage = Var(output) E[sum over places g^2],  g = d (score of the class, centred) / d output

both over the class's own images: what a search weighs filters by (``search.evidence``), of one
class. A class *keeps a filter alive* if it is among the fewest filters of its layer that make up a
share of all that the class would lose with the layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.missions.files import MissionAtlas
from distillnet.missions.records import records_of

__all__ = ["SHARE", "LayerKeepers", "keepers"]

SHARE = 0.95
_ROWS = 2000  # samples of a class that variances are of


@dataclass(frozen=True, eq=False)
class LayerKeepers:
    """The filters of a layer by the classes that keep them.

    Attributes:
        damage_km: what each class would lose with each filter, as a share of what it would lose
            with all of the layer: (K, M), rows sum to 1.
        keeps_km: whether it keeps it alive.
    """

    layer: str
    damage_km: Tensor
    keeps_km: Tensor

    @property
    def by_one(self) -> int:
        """How many filters one class alone keeps."""
        return int((self.keeps_km.sum(0) == 1).sum())

    @property
    def by_all(self) -> int:
        """How many filters every class keeps."""
        return int(self.keeps_km.all(0).sum())

    @property
    def by_none(self) -> int:
        """How many filters no class keeps."""
        return int((~self.keeps_km.any(0)).sum())

    def rank(self, class_: int, filter_: int) -> int:
        """How many filters the class would miss more, and 1."""
        row = self.damage_km[class_]
        return int((row > row[filter_]).sum()) + 1

    def check_filter(self, number: int) -> None:
        """Raise InputError unless the layer has such a filter."""
        count = self.keeps_km.shape[1]
        if not 0 <= number < count:
            raise InputError(
                f"found filter {number} of {self.layer}; expected 0 to {count - 1}, it has {count}"
            )


def keepers(
    graph: Graph,
    atlas: MissionAtlas,
    classes: Sequence[int],
    *,
    layers: Sequence[str] | None = None,
    share: float = SHARE,
) -> tuple[LayerKeepers, ...]:
    """Which filters some classes keep alive, layer by layer in the order of execution.

    Args:
        graph: the network that the atlas is of (``MissionAtlas.check_network``).
        layers: those to look at; by default all with weights of their own for each channel.
        share: of what a class would lose with a layer, in 0..1.

    Raises:
        InputError: there is no such layer, or the atlas lacks a class.
    """
    if not 0 < share <= 1:
        raise InputError(f"found a share of {share:g}; expected more than 0 and at most 1")
    records = [record for record in records_of(graph) if record.layers]
    known = [layer for record in records for layer in record.layers]
    wanted = known if layers is None else layers
    if strange := sorted(set(wanted) - set(known)):
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise InputError(f"found layer {strange[0]!r}; expected one of {shown}")
    if lacking := sorted(set(classes) - set(atlas.samples)):
        raise InputError(
            f"the atlas {atlas.directory} has no images of class {lacking[0]}; collect it, too, "
            "and merge"
        )
    spread = {name: torch.zeros(len(classes), graph[name].shape[0]) for name in wanted}
    for record in records:
        for i, index in enumerate(classes if spread.keys() & {*record.layers} else ()):
            rows = atlas.rows(record, [index], _ROWS)
            for name in spread.keys() & {*record.layers}:
                if record.kind == "patch":
                    weight = graph.params[graph[name].params["weight"]].cpu()
                    spread[name][i] = (rows @ weight.flatten(1).T).var(0, correction=0)
                else:
                    spread[name][i] = rows.var(0, correction=0)
    order = {node.name: i for i, node in enumerate(graph.nodes)}
    return tuple(
        _layer(name, spread[name], graph, atlas, classes, share)
        for name in sorted(spread, key=lambda name: order[name])
    )


def _layer(
    name: str,
    spread_km: Tensor,
    graph: Graph,
    atlas: MissionAtlas,
    classes: Sequence[int],
    share: float,
) -> LayerKeepers:
    size = graph[name].shape[0]
    felt = torch.stack([atlas.need(name, size, [index]).diagonal() for index in classes])
    damage = spread_km.double() * felt
    damage /= damage.sum(1, keepdim=True).clamp_min(1e-300)
    ordered, by = damage.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(1) - ordered
    keeps = torch.zeros_like(damage, dtype=torch.bool)
    keeps.scatter_(1, by, (before < share - 1e-12) & (ordered > 0))
    return LayerKeepers(name, damage, keeps)
