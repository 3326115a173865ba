"""What the original network says at sampled places: the aim of every refitted layer.

The student may see the images smaller than the teacher. Then each of the student's places is
compared with the place of the teacher's map that shows the same part of the image. So a layer that
is refitted for small images learns to answer as the original does on large ones.

Nothing that sees another size can say exactly the same, so what is said to it is kept in half of
the bits: bfloat16, off by a thousandth.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.graph import Graph, fast_layout, images_at_once, run
from distillnet.graph.operators import LAYERS, Node
from distillnet.refit.samples import choose_places, outputs_at, rows_per_image, same_places

__all__ = ["Teacher", "bytes_to_teach", "refittable", "taught", "teach", "teach_all"]

_CHUNK = 16  # images computed at once on a CPU

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Teacher:
    """Pre-activations of the original network on some images, by layer.

    Attributes:
        rows: (N R, M) by layer, or (N, F); bfloat16 where the student sees another size.
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
    return tuple(node for node in _unshared(graph) if node.attrs.get("groups", 1) == 1)


def taught(graph: Graph) -> tuple[Node, ...]:
    """Those, and convolutions of a filter for each channel: all that a refit fits, as they run."""
    return tuple(
        node
        for node in _unshared(graph)
        if (groups := node.attrs.get("groups", 1)) == 1
        or (groups == node.shape[0] == graph[node.inputs[0]].shape[0] and "bias" in node.params)
    )


def _unshared(graph: Graph) -> Iterator[Node]:
    """Layers whose parameters are used nowhere else."""
    uses = Counter(name for node in graph.nodes for name in node.params.values())
    for node in graph.nodes:
        if node.op in LAYERS and all(uses[name] == 1 for name in node.params.values()):
            yield node


def teach_all(
    original: Graph,
    students: Mapping[Size, Graph],
    x_nchw: Tensor,
    *,
    max_bytes: int,
    seed: int = 0,
) -> dict[Size, Teacher]:
    """Run the original on images and keep what its layers say at places of the students' layers.

    Args:
        students: the same network, captured at input sizes.
        x_nchw: images as the original takes them.
        max_bytes: how much to keep for each student, as float32; it bounds the places per image,
            which are 40 at most and 2 at least where the images are many.
    """
    n = len(x_nchw)
    places = {
        size: {
            # Where the values are: to bring each part of them there would halt a GPU each time.
            layer: choose_places(student[layer].shape, n, per_image, seed).to(x_nchw.device)
            for layer, per_image in _per_image(student, n, max_bytes).items()
        }
        for size, student in students.items()
    }
    there = {
        size: {
            layer: same_places(of_student, students[size][layer].shape, original[layer].shape)
            for layer, of_student in mine.items()
        }
        for size, mine in places.items()
    }
    rows: dict[Size, dict[str, list[Tensor]]] = {
        size: {layer: [] for layer in mine} for size, mine in places.items()
    }
    kept_as = {size: _kept_as(original, student) for size, student in students.items()}
    start = 0

    def observe(name: str, y: Tensor) -> None:
        for size in students:
            if name in rows[size]:
                part = there[size][name][start : start + len(y)]
                rows[size][name].append(outputs_at(y, part).to(kept_as[size]))

    with torch.inference_mode():
        for part in x_nchw.split(images_at_once(original, x_nchw.device, _CHUNK)):
            run(original, {original.input.name: fast_layout(part)}, observe=observe)
            start += len(part)
    taught = {}
    for size in students:
        joined = {}
        for layer in places[size]:
            joined[layer] = torch.cat(rows[size][layer])
            rows[size][layer].clear()
        taught[size] = Teacher(joined, places[size])
    return taught


def teach(
    original: Graph, student: Graph, x_nchw: Tensor, *, max_bytes: int, seed: int = 0
) -> Teacher:
    """As ``teach_all``, for one student."""
    height, width = student.input.shape[1:]
    size = height, width
    return teach_all(original, {size: student}, x_nchw, max_bytes=max_bytes, seed=seed)[size]


def bytes_to_teach(original: Graph, student: Graph, n_images: int, max_bytes: int) -> int:
    """How much ``teach`` would keep for a student."""
    per_image = _per_image(student, n_images, max_bytes)
    values = sum(
        n_images * student[layer].shape[0] * min(count, math.prod(student[layer].shape[1:]))
        for layer, count in per_image.items()
    )
    return values * _kept_as(original, student).itemsize


def _kept_as(original: Graph, student: Graph) -> torch.dtype:
    same = original.input.shape == student.input.shape
    return next(iter(original.params.values())).dtype if same else torch.bfloat16


def _per_image(student: Graph, n_images: int, max_bytes: int) -> dict[str, int]:
    """How many places of each image are kept of each layer: enough to fit it, whatever is cut."""
    layers = taught(student)
    values = sum(layer.shape[0] for layer in layers if len(layer.shape) > 1)
    fitting = max_bytes // max(1, 4 * n_images * values)
    most = max(1, min(_MOST_PLACES, max(_LEAST_PLACES, _ROWS // n_images), fitting))
    columns = {node.name: student.params[node.params["weight"]][0].numel() for node in layers}
    return {name: min(most, rows_per_image(wide, n_images)) for name, wide in columns.items()}


# Rows of one image resemble each other: more of them cost time and memory and tell little.
_MOST_PLACES, _LEAST_PLACES = 40, 2
_ROWS = 26_000  # layers of few columns are fitted on a part of them
