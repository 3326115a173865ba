"""What a layer looks at (Figure 2): its strongest feature map projected back to pixels.

The deconvolutional network of Zeiler and Fergus, Visualizing and Understanding Convolutional
Networks, 2014: the largest value of a feature map goes back through the transposed filters and the
switches of the pools, and at each ReLU only what is positive goes on. Captum's ``Deconvolution``
does that for modules; ``Observed`` is the graph as one.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distillnet.deploy.extras import is_installed, need
from distillnet.graph import Graph
from distillnet.graph.operators import APPLY
from distillnet.pages.pictures import png
from distillnet.pages.report.sections import Absent
from distillnet.pages.subject import Original

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Observed", "looked_at", "project"]

_QUANTILE = 0.99  # of the strengths, which becomes full colour
_SIDE = 112  # pixels of a picture

Progress = Callable[[str, int, int], None]


class Observed(nn.Module):
    """A graph up to one of its nodes: (N, C, H, W) -> (N, channels), each channel's largest value.

    Its ReLUs are modules, which hooks can be put on.
    """

    def __init__(self, graph: Graph, site: str) -> None:
        super().__init__()
        self._graph, self._site = graph, site
        self._order = _before(graph, site)
        relus = [n for n in self._order if graph[n].op == "act" and _is_relu(graph, n)]
        self._at = {name: str(i) for i, name in enumerate(relus)}
        self.relus = nn.ModuleDict({at: nn.ReLU() for at in self._at.values()})

    def forward(self, x: Tensor) -> Tensor:
        """The largest value of each channel's map."""
        values = {self._graph.input.name: x}
        for name in self._order:
            node = self._graph[name]
            if node.op == "input":
                continue
            inputs = [values[i] for i in node.inputs]
            if name in self._at:
                values[name] = self.relus[self._at[name]](inputs[0])
                continue
            params = {role: self._graph.params[p] for role, p in node.params.items()}
            values[name] = APPLY[node.op](node, params, *inputs)
        return values[self._site].flatten(2).amax(2)


def _is_relu(graph: Graph, name: str) -> bool:
    return bool(graph[name].attrs["kind"] == "relu")


def _before(graph: Graph, site: str) -> list[str]:
    """The nodes that a value depends on, and itself, in the order of execution."""
    needed, open_ = set(), [site]
    while open_:
        name = open_.pop()
        if name not in needed:
            needed.add(name)
            open_.extend(graph[name].inputs)
    return [node.name for node in graph.nodes if node.name in needed]


def project(graph: Graph, site: str, x_1chw: Tensor, channel: int) -> Tensor:
    """Which pixels, and how, make a channel's largest value: (C, H, W)."""
    captum = need("captum.attr", "report")
    method = captum.Deconvolution(Observed(graph, site))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")  # which it is for
        made: Tensor = method.attribute(x_1chw.clone().requires_grad_(), target=channel)
    return made[0].detach()


def looked_at(
    original: Original,
    x_1chw: Tensor,
    strongest: Mapping[str, int],
    on_progress: Progress,
    absent: list[Absent],
) -> dict[str, str]:
    """A picture by site; what cannot be made is noted in ``absent``."""
    title = "What each layer looks at"
    if not is_installed("captum"):
        absent.append(Absent(title, "captum is not installed", "pip install 'distillnet[report]'"))
        return {}
    pictures = {}
    reversed_ = original.model.preprocessing.channels == "BGR"
    with torch.enable_grad():
        for i, (site, channel) in enumerate(strongest.items()):
            on_progress("project", i + 1, len(strongest))
            found = project(original.graph, site, x_1chw, channel)
            pictures[site] = png(_signed(found.flip(0) if reversed_ else found))
    return pictures


def _signed(values_chw: Tensor) -> "Image.Image":
    """Pixels around grey, cut out where there is anything, as Zeiler and Fergus show them."""
    from PIL import Image

    strength = values_chw.abs().amax(0)
    most = float(torch.quantile(strength[strength > 0], _QUANTILE)) if strength.any() else 1.0
    seen = (strength > most / 50).nonzero()
    if len(seen):
        (top, left), (bottom, right) = seen.amin(0).tolist(), seen.amax(0).tolist()
        values_chw = values_chw[:, top : bottom + 1, left : right + 1]
    scaled: Any = (0.5 + values_chw / (2 * most)).clamp(0, 1).mul(255).round().byte()
    array = scaled.movedim(0, -1).numpy()
    made = Image.fromarray(array if array.shape[-1] == 3 else array[..., 0])
    made.thumbnail((_SIDE, _SIDE))
    return made
