"""In which order channels go, and what their going costs the mission: optimal brain surgeon.

Hassibi and Stork's surgeon (1993) on whole channels, the consumers' weights refitted each time. For
a view with covariance H of its patches, weights W of all layers that read it and need N of
their outputs, removing the columns B and refitting the rest leaves the error

    damage(B) = tr( (P_BB)^-1 A_BB ),   P = (H + r)^-1,   A = W^T N W

in mean squared change of the mission's centred scores, to first order. Then P and W, and with it A,
are updated to the network without B, and the next channels are chosen. A channel class that is read
through several views (a residual stream, branches behind one concat) goes from all at once, and its
damages add up. The least damage per MAC saved goes first.

Any other order of going (a score's, random) is charged the same damages, so that orders compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.cost import class_savings
from distillnet.graph import Graph
from distillnet.graph.channels import Channels
from distillnet.search.evidence import Evidence, View, columns_of

__all__ = ["RIDGE", "Order", "elimination_orders"]

RIDGE = 1e-2  # in units of the mean variance; 1e-4 to 1e-2 differ little
_BURY = 0.85  # of the columns; fewer are copied into smaller matrices
_STEPS = 64  # a step removes one in so many of the channels that are left


@dataclass(frozen=True)
class Order:
    """Channel classes that are chosen among each other, in the order of their going.

    Attributes:
        classes: the first to go first; one is always left out of it.
        counts: (S,) how many classes are gone after each step, from 0 on.
        damages: (S,) in squared score units, of all steps so far.
    """

    classes: NDArray[np.int64]
    counts: NDArray[np.int64]
    damages: NDArray[np.float64]


def elimination_orders(
    graph: Graph,
    channels: Channels,
    evidence: Evidence,
    importance: NDArray[np.float64] | None = None,
) -> tuple[Order, ...]:
    """One order for each set of channel classes that share a view.

    Args:
        importance: by class (classes,), the least going first; None asks the surgeon.
    """
    nothing = np.zeros(channels.count, dtype=bool)
    saving = class_savings(graph, channels, nothing)
    sets = _sets(channels, evidence.views)
    orders = []
    for views, classes in sets:
        orders.append(_order(graph, channels, evidence, views, classes, saving, importance))
    return tuple(orders)


def _sets(channels: Channels, views: Sequence[View]) -> list[tuple[list[View], NDArray[np.int64]]]:
    """Views that share removable classes, and those classes."""
    pinned = np.array(sorted(channels.pinned), dtype=np.int64)
    result: list[tuple[list[View], set[int]]] = []
    for view in views:
        free = set(np.setdiff1d(channels.of[view.source], pinned).tolist())
        if not free:
            continue
        tied = [entry for entry in result if entry[1] & free]
        result = [entry for entry in result if not entry[1] & free]
        result.append(
            ([v for entry in tied for v in entry[0]] + [view], free.union(*(e[1] for e in tied)))
        )
    return [(members, np.array(sorted(classes))) for members, classes in result]


def _order(
    graph: Graph,
    channels: Channels,
    evidence: Evidence,
    views: Sequence[View],
    classes: NDArray[np.int64],
    saving: NDArray[np.float64],
    importance: NDArray[np.float64] | None,
) -> Order:
    patients = [
        (_Patient if view.covariance.ndim == 2 else _Independent)(
            graph, channels, evidence, view, classes
        )
        for view in views
    ]
    alive = np.ones(len(classes), dtype=bool)
    gone: list[int] = []
    damages, counts = [0.0], [0]
    while alive.sum() > 1:
        count = max(1, int(alive.sum()) // _STEPS)
        if importance is None:
            value = sum(patient.damages() for patient in patients) / np.maximum(saving[classes], 1)
        else:
            value = importance[classes]
        first = np.argsort(np.where(alive, value, np.inf), kind="stable")[:count]
        damages.append(damages[-1] + sum(patient.remove(first) for patient in patients))
        alive[first] = False
        gone += first.tolist()
        counts.append(len(gone))
    return Order(classes[gone], np.array(counts), np.array(damages))


class _Patient:
    """One view under the surgeon: P and A of what is left, in float64."""

    def __init__(
        self,
        graph: Graph,
        channels: Channels,
        evidence: Evidence,
        view: View,
        classes: NDArray[np.int64],
    ) -> None:
        covariance = view.covariance.clone()
        ridge = RIDGE * float(covariance.diagonal().mean().clamp_min(1e-30))
        covariance.diagonal().add_(ridge)
        lower, failed = torch.linalg.cholesky_ex(covariance)  # half the time of the inverse alone
        if failed:
            # Where nothing varies, rounding is all that there is of it, and this, by Gershgorin's
            # circles, is more than that.
            covariance.diagonal().add_(2 * len(covariance) * covariance.abs().max())
            lower = torch.linalg.cholesky(covariance)
        self.p = torch.cholesky_inverse(lower)
        self.a = torch.zeros_like(covariance)
        for name in view.layers:
            weight = graph.params[graph[name].params["weight"]].flatten(1).double()
            self.a += weight.T @ evidence.needs[name].double() @ weight
        of_column = columns_of(channels.of[view.source], len(covariance))
        self.columns = _columns_by_class(of_column, classes, covariance.device)
        self.sizes = np.zeros(len(classes), dtype=np.int64)
        for size, (which, _) in self.columns.items():
            self.sizes[which] = size
        stays = np.flatnonzero(~np.isin(of_column, classes))
        self.pinned = torch.from_numpy(stays).to(covariance.device)  # columns that never go
        self.alive = self.sizes > 0
        self.known: NDArray[np.float64] | None = None

    def damages(self) -> NDArray[np.float64]:
        """By class, what its going would add (classes,); zero where this view does not read it."""
        if self.known is None:
            self.known = np.zeros(len(self.sizes))
            for members, columns in self.columns.values():
                there = self.alive[members]
                if not there.any():
                    continue
                block = columns[torch.from_numpy(there).to(columns.device)]
                rows, columns = block[:, :, None], block[:, None, :]
                quotient = torch.linalg.solve(self.p[rows, columns], self.a[rows, columns])
                harm = quotient.diagonal(dim1=1, dim2=2).sum(1).clamp_min(0)
                self.known[members[there]] = harm.cpu().numpy()
        return self.known

    def remove(self, which: NDArray[np.int64]) -> float:
        """Take classes away and refit the others; the damage."""
        which = which[self.alive[which]]
        if len(which) == 0:
            return 0.0
        b = self._columns_of(which)
        p_b, a_b = self.p[b], self.a[b]
        refit = torch.linalg.solve(p_b[:, b], p_b)
        damage = float(torch.linalg.solve(p_b[:, b], a_b[:, b]).diagonal().sum().clamp_min(0))
        # a + refit^T a_bb refit - a_b^T refit - refit^T a_b, with half of it and that transposed.
        half = a_b[:, b] @ refit / 2 - a_b
        self.a.addmm_(torch.cat([refit, half]).T, torch.cat([half, refit]))
        self.p.addmm_(p_b.T, refit, alpha=-1)
        self.alive[which] = False
        self.known = None
        self._bury()
        return damage

    def _columns_of(self, which: NDArray[np.int64]) -> Tensor:
        """The columns of some classes."""
        parts = []
        for members, columns in self.columns.values():
            wanted = np.isin(members, which)
            parts.append(columns[torch.from_numpy(wanted).to(columns.device)].flatten())
        return torch.cat(parts)

    def _bury(self) -> None:
        """Leave out the columns of what is gone once they are many: updates cost their square."""
        alive = np.flatnonzero(self.alive)
        left = len(self.pinned) + int(self.sizes[alive].sum())
        if len(alive) == 0 or left > _BURY * len(self.p):
            return
        kept = torch.cat([self.pinned, self._columns_of(alive)])
        self.p, self.a = self.p[kept][:, kept], self.a[kept][:, kept]
        now_at = kept.new_zeros(int(kept.max()) + 1)
        now_at[kept] = torch.arange(left, device=kept.device)
        self.pinned = now_at[self.pinned]
        for size, (members, columns) in self.columns.items():
            there = self.alive[members]
            columns = columns[torch.from_numpy(there).to(columns.device)]
            self.columns[size] = members[there], now_at[columns]


class _Independent:
    """A view too wide for its covariances: channels are charged what they give, each by itself."""

    def __init__(
        self,
        graph: Graph,
        channels: Channels,
        evidence: Evidence,
        view: View,
        classes: NDArray[np.int64],
    ) -> None:
        n_blocks, size, _ = view.covariance.shape
        per_block = view.covariance.new_zeros(n_blocks)
        for name in view.layers:
            weight = graph.params[graph[name].params["weight"]].flatten(1).double()
            blocks = weight.reshape(len(weight), n_blocks, size)
            felt = torch.einsum("mn,nca->mca", evidence.needs[name].double(), blocks)
            per_block += torch.einsum("mca,cab,mcb->c", blocks, view.covariance, felt)
        of_block = columns_of(channels.of[view.source], n_blocks)
        harm = np.zeros(channels.count)
        np.add.at(harm, of_block, per_block.clamp_min(0).cpu().numpy())
        self.harm = harm[classes]

    def damages(self) -> NDArray[np.float64]:
        """By class (classes,)."""
        return self.harm

    def remove(self, which: NDArray[np.int64]) -> float:
        """The damage of taking classes away."""
        return float(self.harm[which].sum())


def _columns_by_class(
    of_column: NDArray[np.int64], classes: NDArray[np.int64], device: torch.device
) -> dict[int, tuple[NDArray[np.int64], Tensor]]:
    """By how many columns a class has: positions of such classes (n,), and their columns (n, c)."""
    order = np.argsort(of_column, kind="stable")
    starts = np.searchsorted(of_column[order], classes, side="left")
    sizes = np.searchsorted(of_column[order], classes, side="right") - starts
    found = {}
    for size in np.unique(sizes[sizes > 0]).tolist():
        members = np.flatnonzero(sizes == size)
        columns = order[starts[members, None] + np.arange(size)]
        found[size] = members, torch.from_numpy(columns).to(device)
    return found
