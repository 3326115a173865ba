"""Refitting a cut network without an image: its values are followed at the samples of an atlas.

As in ``refit.compensation``, layer by layer, each layer is fitted towards what the original says
(``z``) from what the cut network feeds it (``x'``). Of each sample both networks' values are known
at its place: the original's are recorded, and the cut network's follow from layer to layer, for the
samples of all layers are of the same places. What a sample does not tell is what the cut network
makes of the places *around*, of which a 3 x 3 kernel or a pool reads some. There the harm done so
far is taken to be what it is at the sample:

    x'(around) = T x(around) + t + r,   T, t: the regression of x' on x over all samples,
                                        r: what it leaves at this sample

Borders stay zero, and nothing falls below zero that the original never has below.

Layers that read the image itself have no input recorded, but their outputs: such a layer's new
weight is A W, with A (M, M) fitted to reproduce the outputs that stay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from distillnet.cut.plan import Plan, removed_classes
from distillnet.cut.surgery import compact
from distillnet.graph import Graph, Node, consumers, fast_layout
from distillnet.graph.channels import Channels
from distillnet.graph.operators import APPLY, LAYERS
from distillnet.missions.records import Record, is_aligned, is_told, nodes_of_image, records_of
from distillnet.refit.compensation import flat_parts, put_back, with_biases
from distillnet.refit.regression import Thin, fit_affine, fit_thin, gram
from distillnet.refit.teacher import refittable

__all__ = ["Followed", "follow", "follow_fitted"]

_RIDGE = 1e-3  # of a value's mean variance, for the regression of the harm


@dataclass(frozen=True)
class Followed:
    """A refitted network, and what both say of the samples.

    Attributes:
        graph: in the original shapes; ``compact`` carries the plan out on it.
        before_rk, after_rk: scores (R, classes) of the original and of the new network.
        features_rf: what the new network's last layer reads.
    """

    graph: Graph
    before_rk: Tensor
    after_rk: Tensor
    features_rf: Tensor


@dataclass(frozen=True)
class _Pair:
    """A value at the samples: the original's (R, C), the cut network's (R, C'), where it stays.

    Attributes:
        left: (C',) the channels that stay.
        same: whether nothing has been done to it so far, but for channels that went.
    """

    y: Tensor
    now: Tensor
    left: Tensor
    same: bool

    @cached_property
    def harm(self) -> tuple[Tensor, Tensor]:
        """T (C', C) and t (C',): see the module. r is what they leave of ``now``."""
        mean, away = self.y.mean(0), self.now - self.y[:, self.left]
        centred = self.y - mean
        matrix = gram(centred).double()
        matrix.diagonal().add_(_RIDGE * matrix.diagonal().mean().clamp_min(1e-30))
        cross = (centred.T @ (away - away.mean(0))).double()
        slope = torch.cholesky_solve(cross, torch.linalg.cholesky(matrix)).to(self.y.dtype).T
        slope = slope.contiguous()
        slope[torch.arange(len(self.left)), self.left] += 1
        return slope, self.now.mean(0) - slope @ mean

    def around(self, x_rcj: Tensor, middle: int | None, share: float = 1.0) -> Tensor:
        """What the cut network has (R, C', J) where the original has ``x_rcj``, around the samples.

        Args:
            middle: which of them is the sample's own place.
            share: of the harm at the sample that is found here.
        """
        if self.same:
            return x_rcj[:, self.left]
        if middle is not None and x_rcj.shape[2] == 1:  # there is nothing around
            return self.now[:, :, None]
        matrix, shift = self.harm
        # With r = now - T y - t,  T x + t + share r = T x + share (now - T y) + (1 - share) t.
        own = torch.add((1 - share) * shift, self.now, alpha=share)
        if x_rcj.shape[2] == 1:
            x_rcj = torch.sub(x_rcj[:, :, 0], self.y, alpha=share)[:, :, None]
        else:
            own.addmm_(self.y, matrix.T, alpha=-share)
        positive = not bool((self.y < 0).any())
        made = x_rcj.new_empty(len(own), own.shape[1], x_rcj.shape[2])
        for j in range(x_rcj.shape[2]):
            if j == middle:
                made[:, :, j] = self.now
                continue
            here = torch.addmm(own, x_rcj[:, :, j], matrix.T)
            if positive:
                here.clamp_min_(0)
            if x_rcj.shape[2] > 1:  # beyond the border all is zero
                here *= (x_rcj[:, :, j] != 0).any(1, keepdim=True)
            made[:, :, j] = here
        return made


def follow(
    graph: Graph,
    channels: Channels,
    plan: Plan,
    rows: Callable[[Record], Tensor],
    needs: Mapping[str, Tensor],
    on_layer: Callable[[int, int], None] = lambda done, of: None,
) -> Followed:
    """The network with weights that make up for ``plan``'s cuts, from samples of the original.

    Args:
        rows: what is recorded of the samples, (R, width) float32 by record; asked for once each.
        needs: by layer (M, M), what the mission feels of its outputs.
        on_layer: called as (done, of) before each layer is fitted; what it raises ends the work.
    """
    return _Follower(graph, channels, plan, rows, needs).followed(on_layer)


def follow_fitted(
    graph: Graph,
    channels: Channels,
    plan: Plan,
    fitted: Graph,
    rows: Callable[[Record], Tensor],
) -> Followed:
    """What a network that ``follow`` gave says of other samples; its weights stay as they are.

    Args:
        fitted: its graph.
    """
    return _Follower(graph, channels, plan, rows, {}, fitted).followed(lambda done, of: None)


class _Follower:
    def __init__(
        self,
        graph: Graph,
        channels: Channels,
        plan: Plan,
        rows: Callable[[Record], Tensor],
        needs: Mapping[str, Tensor],
        done: Graph | None = None,
    ) -> None:
        self.graph, self.channels, self.needs, self.done = graph, channels, needs, done
        self.splits = plan.splits
        plan = Plan(plan.keep)  # all scores, so that the open set can be told, too
        self.gone = removed_classes(channels, plan)
        device = next(iter(graph.params.values())).device
        self.left = {
            name: torch.from_numpy(np.flatnonzero(~self.gone[ids])).to(device)
            for name, ids in channels.of.items()
        }
        self.fitted = [layer.name for layer in refittable(graph)]
        self.whole = with_biases(graph, self.fitted)
        self.small = with_biases(compact(done or graph, channels, plan), self.fitted)
        self.params = dict(self.small.params)
        self.readers = consumers(self.small)
        records = records_of(graph)
        self.records = {n: r for r in records for n in (r.layers or (r.node,))}
        self.looked_at = {
            r.source: r for r in records if r.kind == "patch" and is_aligned(graph, graph[r.node])
        }
        self.of_image = nodes_of_image(graph)
        self.rows = rows
        self.latest: tuple[str, Tensor] | None = None
        self.pairs: dict[str, _Pair] = {}
        self.features = torch.zeros(0, 0)  # of the latest layer that does not read the image

    def followed(self, on_layer: Callable[[int, int], None]) -> Followed:
        """Go through the network once."""
        n_fitted = 0
        readers = consumers(self.graph)
        unread = {name: len(nodes) for name, nodes in readers.items()}
        with torch.no_grad():
            for node in self.graph.nodes[1:]:
                if node.name in self.fitted:
                    on_layer(n_fitted, len(self.fitted))
                    n_fitted += 1
                    self._fit(node)
                else:
                    self._pass(node)
                for name in dict.fromkeys(node.inputs):
                    unread[name] -= 1
                    if not unread[name] and name != self.graph.output:
                        self.pairs.pop(name, None)
        last = self.pairs[self.graph.output]
        if self.done is not None:
            return Followed(self.done, last.y, last.now, self.features)
        layers = [self.small[name] for name in self.fitted]
        fitted = put_back(
            self.graph, self.small, self.params, layers, self.left, self.channels, self.gone
        )
        return Followed(fitted, last.y, last.now, self.features)

    def _recorded(self, record: Record) -> Tensor:
        if self.latest is None or self.latest[0] != record.name:  # branches often read the same
            self.latest = record.name, self.rows(record)
        return self.latest[1]

    def _fit(self, node: Node) -> None:
        """Fit a layer, and tell both networks' outputs at the samples."""
        record, layer = self.records[node.name], self.small[node.name]
        roles = self.whole[node.name].params
        weight, bias = (self.whole.params[roles[role]] for role in ("weight", "bias"))
        left = self.left[node.name]
        flat = flat_parts(self.readers[node.name])
        start = self.params[layer.params["weight"]]
        if record.kind == "output":
            y = self._recorded(record)
            self._fit_outputs(node, layer, y, left, flat)
            return
        self.features = self.pairs[node.inputs[0]].now
        x_rd = self._recorded(record)
        y = torch.addmm(bias, x_rd, weight.flatten(1).T)
        now_rd, same = self._read(node, x_rd)
        w, b = start.flatten(1), self.params[layer.params["bias"]]
        if self.done is not None:
            self.pairs[node.name] = _Pair(y, torch.addmm(b, now_rd, w.T), left, same=False)
            return
        if node.name in self.splits:
            need = self.needs[node.name][left][:, left].to(y)
            thin = Thin(need, self.splits[node.name], tuple(start.shape))
            w, b = fit_thin(now_rd, y[:, left], w, b, thin, flat)
        elif not same or start[0].numel() < weight[0].numel():
            w, b = fit_affine(now_rd, y[:, left], w, b, flat)
        else:
            self.pairs[node.name] = _Pair(y, y[:, left], left, same=True)
            return
        self.params[layer.params["weight"]] = fast_layout(w.reshape(start.shape))
        self.params[layer.params["bias"]] = b
        self.pairs[node.name] = _Pair(y, torch.addmm(b, now_rd, w.T), left, same=False)

    def _fit_outputs(
        self,
        node: Node,
        layer: Node,
        y: Tensor,
        left: Tensor,
        flat: tuple[tuple[float, float], ...],
    ) -> None:
        """Fit a layer that reads the image, which leaves nothing out but by its rank."""
        if node.name not in self.splits:
            self.pairs[node.name] = _Pair(y, y[:, left], left, same=True)
            return
        weight, bias = (self.params[layer.params[role]] for role in ("weight", "bias"))
        if self.done is not None:
            roles = self.whole[node.name].params
            then = self.whole.params[roles["weight"]][left].flatten(1)
            mix = weight.flatten(1) @ torch.linalg.pinv(then)
            shift = bias - mix @ self.whole.params[roles["bias"]][left]
            now = torch.addmm(shift, y[:, left], mix.T)
            self.pairs[node.name] = _Pair(y, now, left, same=False)
            return
        need = self.needs[node.name][left][:, left].to(y)
        size = len(left)
        thin = Thin(need, self.splits[node.name], (size, size))
        aims = y[:, left]
        mix, shift = fit_thin(aims, aims, torch.eye(size).to(y), y.new_zeros(size), thin, flat)
        self.params[layer.params["weight"]] = fast_layout(
            (mix @ weight.flatten(1)).reshape(weight.shape)
        )
        self.params[layer.params["bias"]] = mix @ bias + shift
        self.pairs[node.name] = _Pair(y, torch.addmm(shift, aims, mix.T), left, same=False)

    def _read(self, node: Node, x_rd: Tensor) -> tuple[Tensor, bool]:
        """What the cut network feeds a layer at the samples (R, D')."""
        pair = self.pairs.get(node.inputs[0])
        if pair is None:
            raise AssertionError(f"{node.name} reads what is not followed")
        channels = pair.y.shape[1]
        per_channel = x_rd.shape[1] // channels
        middle = per_channel // 2 if is_aligned(self.graph, node) else None
        made = pair.around(x_rd.unflatten(1, (channels, per_channel)), middle)
        return made.flatten(1), pair.same

    def _pass(self, node: Node) -> None:
        """Both networks' values behind what is not fitted."""
        if node.name in self.of_image:
            return
        left = self.left[node.name]
        pairs = [self.pairs[name] for name in node.inputs if name in self.pairs]
        if is_told(self.graph, node) and len(pairs) == len(node.inputs):
            same = all(pair.same for pair in pairs)
            y = self._apply(node, self.graph, [pair.y for pair in pairs])
            now = self._apply(self.small[node.name], self.small, [pair.now for pair in pairs])
            self.pairs[node.name] = _Pair(y, now, left, same)
            return
        y = self._own(node)
        if all(pair.same for pair in pairs):
            self.pairs[node.name] = _Pair(y, y[:, left], left, same=True)
            return
        pair = pairs[0]
        n_channels = pair.y.shape[1]
        if node.op in LAYERS or y.shape[1] % n_channels:  # depthwise: what is left is as it was
            self.pairs[node.name] = _Pair(y, y[:, left], left, same=False)
            return
        x_rcj = y.unflatten(1, (n_channels, -1))
        now = pair.around(x_rcj, None, _share(pair.y, y))
        now = now.flatten(1)
        self.pairs[node.name] = _Pair(y, now, left, same=False)

    def _own(self, node: Node) -> Tensor:
        """The original's value at the samples, recorded as such or as what a layer reads."""
        if node.name in self.records:
            return self._recorded(self.records[node.name])
        record = self.looked_at[node.name]
        n_channels = node.shape[0]
        around_rcj = self._recorded(record).unflatten(1, (n_channels, -1))
        return around_rcj[:, :, around_rcj.shape[2] // 2]

    def _apply(self, node: Node, graph: Graph, values: list[Tensor]) -> Tensor:
        """A node's value (R, C) at the samples, from its inputs' there."""
        if node.op in ("flatten", "unflatten"):
            return values[0]
        params = {role: graph.params[name] for role, name in node.params.items()}
        one = [v[:, :, None, None] if len(node.shape) > 1 else v for v in values]
        made: Tensor = APPLY[node.op](node, params, *one)
        return made.flatten(1)


def _share(before: Tensor, after: Tensor) -> float:
    """How much of the harm at a place is left behind a pool: as of what varies at all."""
    deviations = [(x - x.mean(0)).square_().mean(0).sqrt_().mean() for x in (after, before)]
    return min(1.0, float(deviations[0] / deviations[1].clamp_min(1e-30)))
