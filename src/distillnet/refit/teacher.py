"""What the original network says at sampled places: the aim of every refitted layer.

The student may see the images smaller than the teacher. Then each of the student's places is
compared with the place of the teacher's map that shows the same part of the image. So a layer that
is refitted for small images learns to answer as the original does on large ones.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.operators import LAYERS, Node
from distillnet.refit.samples import choose_places, outputs_at, same_places

__all__ = ["Teacher", "refittable", "teach"]


@dataclass(frozen=True)
class Teacher:
    """Pre-activations of the original network on some images, by layer.

    Attributes:
        rows: (N R, M) by layer, or (N, F).
        places: (N, R) by layer, in the student's output of that layer.
    """

    rows: Mapping[str, Tensor]
    places: Mapping[str, Tensor]

    def of(self, images: Tensor) -> "Teacher":
        """What it says of some of the images, by their positions, in their order."""
        rows = {}
        for layer, places in self.places.items():
            mine = self.rows[layer].unflatten(0, places.shape)
            rows[layer] = mine[images.to(mine.device)].flatten(0, 1)
        return Teacher(rows, {layer: places[images] for layer, places in self.places.items()})


def refittable(graph: Graph) -> tuple[Node, ...]:
    """Layers whose weights can be fitted on their own: one group, parameters used nowhere else."""
    uses = Counter(name for node in graph.nodes for name in node.params.values())
    return tuple(
        node
        for node in graph.nodes
        if node.op in LAYERS
        and node.attrs.get("groups", 1) == 1
        and all(uses[name] == 1 for name in node.params.values())
    )


def teach(
    original: Graph,
    student: Graph,
    x_nchw: Tensor,
    *,
    max_bytes: int,
    seed: int = 0,
    batch_size: int = 16,
) -> Teacher:
    """Run the original on images and keep what its layers say at places of the student's layers.

    Args:
        student: the same network, captured at another input size or at the same.
        x_nchw: images as the original takes them.
        max_bytes: how much to keep; it bounds the places per image, which are 40 at most and 2 at
            least where the images are many.
    """
    layers = refittable(student)
    n = len(x_nchw)
    values = sum(layer.shape[0] for layer in layers if len(layer.shape) > 1)
    fitting = max_bytes // max(1, 4 * n * values)
    per_image = max(1, min(_MOST_PLACES, max(_LEAST_PLACES, _ROWS // n), fitting))
    places = {layer.name: choose_places(layer.shape, n, per_image, seed) for layer in layers}
    rows: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    start = 0

    def observe(name: str, y: Tensor) -> None:
        if name in rows:
            mine = places[name][start : start + len(y)]
            there = same_places(mine, student[name].shape, original[name].shape)
            rows[name].append(outputs_at(y, there))

    with torch.inference_mode():
        for part in x_nchw.split(batch_size):
            run(original, {original.input.name: fast_layout(part)}, observe=observe)
            start += len(part)
    return Teacher({name: torch.cat(parts) for name, parts in rows.items()}, places)


# Rows of one image resemble each other: more of them cost time and memory and tell little.
_MOST_PLACES, _LEAST_PLACES = 40, 2
_ROWS = 26_000  # layers of few columns are fitted on a part of them
