"""From a graph to steps: what is fused, which values are views, and in which order all happens."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillnet.engine.packing import Store, Weights
from distillnet.engine.settings import (
    activation_settings,
    channel_conv_bands,
    lrn_settings,
    pool_settings,
)
from distillnet.engine.steps import BLOCK, Step, Strip
from distillnet.errors import UnsupportedError
from distillnet.graph import Graph, consumers
from distillnet.graph.operators import LAYERS, Node, clamp_of

__all__ = ["Lowered", "View", "lower"]

Shape = tuple[int, int, int]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class View:
    """A value that is part of another one: its channels from ``channel``, rows from ``y``, ..."""

    of: str
    channel: int = 0
    y: int = 0
    x: int = 0


@dataclass
class Lowered:
    """Steps over named values; ``concats`` are values made of others that lie side by side.

    Attributes:
        shapes: (C, H, W) by value.
        views: values that show a part of another.
        concats: by value, the values whose channels it holds.
        weights: all parameters.
    """

    steps: list[Step] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    concats: dict[str, tuple[str, ...]] = field(default_factory=dict)
    weights: Store = field(default_factory=Weights)
    input: str = ""
    output: str = ""


def lower(graph: Graph, weights: Store | None = None) -> Lowered:
    """Translate a graph into steps; parameters go into ``weights``, by default as float32.

    Masks become slots of the layer they follow, where nothing but a clamp stands between.

    Raises:
        UnsupportedError: an operator that the engine has no kernel for; nothing was written.
    """
    return _Lowering(graph, weights or Weights()).run()


def _map_shape(node: Node) -> Shape:
    """Features are maps of 1 x 1."""
    channels, *sides = node.shape
    height, width = sides or (1, 1)
    return channels, height, width


@dataclass
class _Fused:
    """What follows a layer and is computed with it."""

    end: str
    lo: float = -math.inf
    hi: float = math.inf
    slot: str | None = None
    scales: list[tuple[Floats, Floats]] = field(default_factory=list)

    @property
    def bounds(self) -> dict[str, float]:
        return {"lo": self.lo, "hi": self.hi}


class _Lowering:
    def __init__(self, graph: Graph, weights: Store) -> None:
        self.graph = graph
        self.readers = consumers(graph)
        self.done: set[str] = set()  # nodes that are part of an earlier node's step
        self.out = Lowered(weights=weights, input=graph.input.name, output=graph.output)

    def run(self) -> Lowered:
        handlers: Mapping[str, Callable[[Node], None]] = {
            "input": self._input, "conv": self._conv, "linear": self._linear,
            "affine": self._affine, "act": self._act, "add": self._binary, "mul": self._binary,
            "cat": self._cat, "gather": self._gather, "max_pool": self._pool,
            "avg_pool": self._pool, "adaptive_avg_pool": self._adaptive,
            "adaptive_max_pool": self._adaptive, "mean": self._adaptive, "flatten": self._flatten,
            "unflatten": self._reshape, "lrn": self._lrn, "layer_norm": self._layer_norm,
            "mask": self._mask, "pad": self._pad, "group_norm": self._group_norm,
            "channel_conv": self._channel_conv, "channel_max": self._channel_max,
            "sample": self._sample,
        }  # fmt: skip
        unknown = [node for node in self.graph.nodes if node.op not in handlers]
        if unknown:
            raise UnsupportedError(
                f"the C engine has no kernel for {unknown[0].op!r} of {unknown[0].name!r}; "
                "expected one of " + ", ".join(sorted(handlers)) + ". Use --format onnx"
            )
        for node in self.graph.nodes:
            self.out.shapes[node.name] = _map_shape(node)
        for node in self.graph.nodes:
            if node.name not in self.done:
                handlers[node.op](node)
        return self.out

    def _param(self, node: Node, role: str) -> Floats:
        return self.graph.params[node.params[role]].detach().cpu().double().numpy()

    def _sole_reader(self, name: str) -> Node | None:
        after = self.readers[name]
        return after[0] if len(after) == 1 and name != self.graph.output else None

    def _fuse(self, node: Node) -> _Fused:
        """Take in the constants, clamps and masks that follow a node and that only it feeds."""
        fused, clamped = _Fused(node.name), False
        while (after := self._sole_reader(fused.end)) is not None and fused.slot is None:
            bounds = clamp_of(after)
            if bounds is not None and not clamped:
                (fused.lo, fused.hi), clamped = bounds, True
            elif after.op == "affine" and node.op in LAYERS and not clamped:
                fused.scales.append((self._param(after, "scale"), self._param(after, "shift")))
            elif after.op == "mask" and node.op in LAYERS:
                fused.slot = after.name
            else:
                break
            self.done.add(after.name)
            fused.end = after.name
        return fused

    def _step(
        self,
        kernel: str,
        node: Node,
        writes: str,
        settings: Mapping[str, Any] | None = None,
        strips: tuple[Strip, ...] = (),
        slot: str | None = None,
        reads: tuple[str, ...] | None = None,
    ) -> None:
        reads = node.inputs if reads is None else reads
        self.out.steps.append(Step(kernel, node.name, reads, writes, settings or {}, strips, slot))

    def _input(self, node: Node) -> None:
        self._step("input", node, node.name)

    def _filters(self, node: Node, fused: _Fused) -> tuple[Floats, Floats]:
        """Weights and bias, with the constants that follow folded in."""
        weight = self._param(node, "weight")
        bias = self._param(node, "bias") if "bias" in node.params else np.zeros(len(weight))
        for scale, shift in fused.scales:
            weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            bias = bias * scale + shift
        return weight, bias

    def _conv(self, node: Node) -> None:
        fused = self._fuse(node)
        weight_mckk, bias = self._filters(node, fused)
        groups = node.attrs["groups"]
        settings = {
            "kernel": weight_mckk.shape[2:],
            "stride": tuple(node.attrs["stride"]),
            "padding": tuple(node.attrs["padding"]),
            "dilation": tuple(node.attrs["dilation"]),
            "source": weight_mckk.shape[1],
            **fused.bounds,
        }
        channels, *sides = self.out.shapes[node.name]
        if groups == channels == self.out.shapes[node.inputs[0]][0]:
            at = self.out.weights.add_filters(weight_mckk, bias)
            taps = weight_mckk[0].size
            size = 4 * BLOCK
            strips = tuple(
                Strip(
                    range(first, min(first + size, channels)), first,
                    at + first // BLOCK * (taps + 1) * BLOCK,
                )
                for first in range(0, channels, size)
            )  # fmt: skip
            self._step("depthwise", node, fused.end, settings, strips, fused.slot)
            return
        weight_mkkc = weight_mckk.transpose(0, 2, 3, 1)
        strips = self.out.weights.strips(weight_mkkc, bias, groups, math.prod(sides))
        self._step("conv", node, fused.end, settings, strips, fused.slot)

    def _linear(self, node: Node) -> None:
        fused = self._fuse(node)
        weight, bias = self._filters(node, fused)
        source = self.graph[node.inputs[0]]
        shape = (len(bias), weight.shape[1], 1, 1)
        if source.op == "flatten" and source.name in self.out.views:
            shape = (len(bias), *_map_shape(self.graph[source.inputs[0]]))
        weight_mkkc = weight.reshape(shape).transpose(0, 2, 3, 1)
        settings = {
            "kernel": shape[2:], "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1),
            "source": shape[1], **fused.bounds,
        }  # fmt: skip
        strips = self.out.weights.strips(weight_mkkc, bias, 1, 1)
        self._step("conv", node, fused.end, settings, strips, fused.slot)

    def _affine(self, node: Node) -> None:
        fused = self._fuse(node)
        settings = {
            "scale": self.out.weights.add(self._param(node, "scale")),
            "shift": self.out.weights.add(self._param(node, "shift")),
            **fused.bounds,
        }
        self._step("affine", node, fused.end, settings)

    def _act(self, node: Node) -> None:
        self._step("activation", node, node.name, activation_settings(node))

    def _binary(self, node: Node) -> None:
        fused = self._fuse(node)
        self._step("binary", node, fused.end, {"multiply": node.op == "mul", **fused.bounds},
                   reads=(node.inputs * 2)[:2])  # fmt: skip

    def _cat(self, node: Node) -> None:
        self.out.concats[node.name] = node.inputs

    def _gather(self, node: Node) -> None:
        index = node.attrs["index"]
        after = self._sole_reader(node.name)
        if after is not None and after.op == "lrn":
            return  # which picks its channels itself
        if index == tuple(range(index[0], index[0] + len(index))):
            self.out.views[node.name] = View(node.inputs[0], channel=index[0])
        else:
            self._step("copy", node, node.name, {"index": tuple(index)})

    def _pool(self, node: Node) -> None:
        self._step(node.op, node, node.name, pool_settings(node))

    def _adaptive(self, node: Node) -> None:
        kernel = "adaptive_max" if node.op == "adaptive_max_pool" else "adaptive_avg"
        self._step(kernel, node, node.name)

    def _reshape(self, node: Node) -> None:
        self.out.views[node.name] = View(node.inputs[0])

    def _flatten(self, node: Node) -> None:
        """A view where nobody minds the order: torch's is (C, H, W), the arena's (H, W, C)."""
        _, height, width = self.out.shapes[node.inputs[0]]
        readers = self.readers[node.name]
        fits = node.name != self.graph.output and all(r.op == "linear" for r in readers)
        if height * width == 1:
            self._reshape(node)
        elif fits:
            self.out.shapes[node.name] = self.out.shapes[node.inputs[0]]
            self._reshape(node)
        else:
            self._step("flatten", node, node.name)

    def _lrn(self, node: Node) -> None:
        settings, bands = lrn_settings(node, self._positions(node))
        settings["bands"] = self.out.weights.add(bands)
        source = self.graph[node.inputs[0]]
        picks = source.op == "gather" and self._sole_reader(source.name) is node
        if picks:
            settings["index"] = tuple(source.attrs["index"])
        reads = source.inputs if picks else node.inputs
        self._step("lrn", node, node.name, settings, reads=reads)

    def _layer_norm(self, node: Node) -> None:
        settings = {
            "scale": self.out.weights.add(self._param(node, "weight")),
            "shift": self.out.weights.add(self._param(node, "bias")),
            "eps": float(node.attrs["eps"]),
        }
        self._step("layer_norm", node, node.name, settings)

    def _group_norm(self, node: Node) -> None:
        settings = {
            "groups": node.attrs["groups"],
            "scale": self.out.weights.add(self._param(node, "weight")),
            "shift": self.out.weights.add(self._param(node, "bias")),
            "eps": float(node.attrs["eps"]),
        }
        self._step("group_norm", node, node.name, settings)

    def _channel_conv(self, node: Node) -> None:
        bands = channel_conv_bands(node, self._param(node, "kernel"), self._positions(node))
        settings = {"reach": len(bands) // 2, "bands": self.out.weights.add(bands)}
        self._step("channel_conv", node, node.name, settings)

    def _channel_max(self, node: Node) -> None:
        some_gone = self.graph[node.inputs[0]].shape[0] < node.attrs["channels"]
        settings = {"least": 0.0 if some_gone else -math.inf}
        self._step("channel_max", node, node.name, settings)

    def _sample(self, node: Node) -> None:
        self._step("sample", node, node.name, {k: node.attrs[k] for k in ("rows", "columns")})

    def _positions(self, node: Node) -> NDArray[np.integer]:
        """Where the channels of a node were before others were cut."""
        if "positions" not in node.params:
            return np.arange(node.shape[0])
        return self.graph.params[node.params["positions"]].cpu().numpy()

    def _mask(self, node: Node) -> None:
        self._step("mask", node, node.name, slot=node.name)

    def _pad(self, node: Node) -> None:
        left, right, top, bottom = (*node.attrs["pad"], 0, 0, 0, 0)[:4]
        value = float(node.attrs["value"])
        windows = {"conv", "max_pool", "avg_pool"}
        if (
            value == 0
            and min(left, right, top, bottom) >= 0
            and node.name != self.graph.output
            and all(reader.op in windows for reader in self.readers[node.name])
            and node.inputs[0] not in self.out.views
        ):
            self.out.views[node.name] = View(node.inputs[0], y=-top, x=-left)
        else:
            self._step("copy", node, node.name, {"top": top, "left": left, "value": value})
