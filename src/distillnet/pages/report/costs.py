"""The section of layers: what each costs before and after, as a chart, a table and a drawing."""

from distillnet.pages.layers import Layer, layer_rows
from distillnet.pages.report.drawing import draw_network
from distillnet.pages.report.figures import layer_bars
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.subject import Subject

__all__ = ["costs"]


def costs(subject: Subject, command: str) -> Section | Absent:
    """The section; it needs the original's layers, but not its weights.

    Args:
        command: that names the original, ``distillnet report RUN --model MODEL``.
    """
    title = "Layer by layer"
    layers = layer_rows(subject)
    if not layers or subject.original is None:
        why = subject.lacks.get("original", "model.pt2 does not name the original's layers")
        return Absent(title, why, command)
    values = {
        "layers": layers,
        "chart": layer_bars(layers),
        "drawing": draw_network(subject.original.graph, layers),
        "timed": any(layer.ms is not None for layer in layers),
        "has_sites": any(layer.site is not None for layer in layers),
        "has_thresholds": any(_threshold(layer) is not None for layer in layers),
        "total": tuple(
            (sum(layer.macs[i] for layer in layers), sum(layer.params[i] for layer in layers))
            for i in range(2)
        ),
        "n_split": sum(layer.rank is not None for layer in layers),
        "n_narrower": sum(layer.channels[1] < layer.channels[0] for layer in layers),
    }
    return Section("costs", title, values)


def _threshold(layer: Layer) -> float | None:
    return None if layer.site is None else layer.site["threshold"]
