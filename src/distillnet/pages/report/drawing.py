"""The network drawn as a graph, from its input at the top to its scores at the bottom."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import networkx

from distillnet.graph import Graph
from distillnet.graph.operators import LAYERS
from distillnet.pages.layers import Layer
from distillnet.pages.report.charts import BOX, FAINT, FILL, TEXT, chart, shortened

__all__ = ["draw_network", "network_graph", "short_names"]

_WIDTH, _HEIGHT = 0.92, 0.66  # of a layer's box, in columns and rows
_ROW, _COLUMN = 0.4, 1.4  # inches
_MOST_ROWS = 200


def network_graph(graph: Graph) -> networkx.DiGraph:
    """Layers, and places where several of them meet; what lies between is left out."""
    drawn = networkx.DiGraph()
    stands_for: dict[str, tuple[str, ...]] = {}  # what a node's value comes from, of what is drawn
    for node in graph.nodes:
        sources = tuple(dict.fromkeys(s for name in node.inputs for s in stands_for[name]))
        if node.op == "input" or node.op in LAYERS or len(sources) > 1:
            drawn.add_node(node.name, op=node.op)
            drawn.add_edges_from((source, node.name) for source in sources)
            stands_for[node.name] = (node.name,)
        else:
            stands_for[node.name] = sources
    return drawn


def draw_network(graph: Graph, layers: Sequence[Layer]) -> str:
    """A box for each layer, as full as it still has MACs; "" where there are too many of them."""
    drawn = network_graph(graph)
    rows = [list(row) for row in networkx.topological_generations(drawn)]
    if len(rows) > _MOST_ROWS:
        return ""
    places = _places(drawn, rows)
    known = {layer.name: layer for layer in layers}
    total = sum(layer.macs[0] for layer in layers), sum(layer.macs[1] for layer in layers)
    labels = short_names([layer.name for layer in layers])
    left = min(x for x, _ in places.values()) - 0.6
    right = max(x for x, _ in places.values()) + 0.6

    def draw(axes: Any) -> None:
        axes.set_axis_off()
        axes.set_xlim(left, right)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        for one, other in drawn.edges:
            (x, y), (to_x, to_y) = places[one], places[other]
            axes.plot([x, to_x], [y, to_y], color=FAINT, linewidth=1.2, zorder=1)
        for name, (x, y) in places.items():
            _box(axes, x, y, labels.get(name, drawn.nodes[name]["op"]), known.get(name), total)

    return chart(draw, max(3.0, _COLUMN * (right - left)), _ROW * len(rows) + 0.2, "network")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The last parts of each name, as many as tell it from the others; no number by itself.

    >>> short_names(["features.0", "features.3.squeeze", "features.4.squeeze", "head"])
    {'features.0': 'features.0', 'features.3.squeeze': '3.squeeze', \
'features.4.squeeze': '4.squeeze', 'head': 'head'}
    """
    ends = Counter(end for name in names for end in _ends(name))
    return {
        name: next((end for end in _ends(name) if ends[end] == 1 and not end.isdecimal()), name)
        for name in names
    }


def _ends(name: str) -> list[str]:
    """What a name ends in, from its last part on."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]


def _places(drawn: networkx.DiGraph, rows: Sequence[list[str]]) -> dict[str, tuple[float, float]]:
    """(column, row) of each node: below what it reads, no two in one place."""
    order = {name: i for i, name in enumerate(drawn.nodes)}
    places: dict[str, tuple[float, float]] = {}
    for y, row in enumerate(rows):
        wanted: dict[str, float] = {}
        for name in row:
            above = [places[source][0] for source in drawn.predecessors(name)]
            wanted[name] = sum(above) / len(above) if above else 0.0
        row = sorted(row, key=lambda name: (round(wanted[name], 3), order[name]))
        at: list[float] = []
        for name in row:
            at.append(max(wanted[name], at[-1] + 1) if at else wanted[name])
        shift = (sum(wanted.values()) - sum(at)) / len(row)
        for name, x in zip(row, at, strict=True):
            places[name] = (x + shift, float(y))
    return places


def _box(
    axes: Any,
    x: float,
    y: float,
    label: str,
    layer: Layer | None,
    total: tuple[int, int],
) -> None:
    if layer is None:
        axes.annotate(
            label, (x, y), ha="center", va="center", fontsize=7, zorder=4,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": BOX, "edgecolor": "none"},
        )  # fmt: skip
        return
    share = layer.macs[1] / max(1, layer.macs[0])
    corner = (x - _WIDTH / 2, y - _HEIGHT / 2)
    _rectangle(axes, corner, _WIDTH, facecolor=BOX, edgecolor=TEXT, linewidth=0.6, zorder=2)
    _rectangle(axes, corner, _WIDTH * min(1.0, share), facecolor=FILL, zorder=3)
    was, now = (100 * macs / every for macs, every in zip(layer.macs, total, strict=True))
    text = f"{shortened(label, 18)}\n{was:.1f} → {now:.1f} %"
    axes.annotate(text, (x, y), ha="center", va="center", fontsize=6.5, zorder=4, linespacing=1.1)


def _rectangle(axes: Any, corner: tuple[float, float], width: float, **how: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(corner, width, _HEIGHT, **how))
