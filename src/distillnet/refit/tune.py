"""A short distillation behind the closed-form refit: all layers learn together, without labels.

The refit fits each layer to what the original says in its place. Here all of them are trained for
what comes out in the end, by gradient descent on

    mean over views of  KL(p || q),   p, q: the original's and the student's probabilities

among the mission's classes. A view is an image as it is, mirrored, or a part of it under the same
part of another image: some for each image, drawn once, so that the original is asked once.

*Mixtures.* On few images a student learns the original's answers by heart, the more so where the
original knows the images by heart itself and has nothing to say but the class. Of two images in one
it has never seen the like, and what it answers there shows how it sees (mixup, Zhang et al. 2018;
as the teacher's question, Beyer et al. 2022, "A good teacher is patient and consistent").

*bfloat16.* A processor that multiplies it takes half the time with it. Weights, their steps and the
divergence stay in float32.

*Steps* are relative to the size of what they change: tensor by tensor the learning rate is a share
of the root mean square of the weights. So networks that see 0 to 255 and networks that see -2 to 2
take the same settings, and so do a layer's two thin halves.

*When to stop.* After as many steps as were planned, when the rate has fallen to nothing; and of the
way that all weights have come together, half is gone (Wortsman et al. 2022, "Robust fine-tuning of
zero-shot models"). What few images teach of their kind lies on the whole way, what they teach of
themselves towards its end: of most networks that were tried the middle answers unseen images
better than both ends. Whether it was for the better is told by images that were left out, and by
their labels; see ``job.tuning``.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.graph import Graph, fast_layout, images_at_once, run
from distillnet.graph.operators import LAYERS
from distillnet.refit.samples import evenly

__all__ = ["Lessons", "TuneSettings", "prepare", "tune"]

_TRAINED_OPS = LAYERS | {"affine", "layer_norm", "group_norm"}  # batch norm is an affine node
_TRAINED_ROLES = frozenset({"weight", "bias", "scale", "shift"})
_LEAST_SIZE = 1e-3  # of a tensor that begins at zero, for its steps
_KEPT_BYTES = 10**9  # of crops of the student's images
_Cut = Callable[[int, int, Sequence[int]], Tensor]  # crop, image, size -> a part of the image
_CHUNK = 32  # images computed at once on a CPU where nothing is trained


@dataclass(frozen=True)
class TuneSettings:
    """How to tune.

    Attributes:
        steps: of the training, about: whole epochs, in each of which every image is seen once, in
            one of its views.
        most_epochs: however few the images are.
        step: the largest learning rate, as a share of a tensor's root mean square.
        share: of the way from the weights that were fitted to those that were trained.
        temperature: by which scores are divided for the training: with few classes probabilities
            are next to 0 and 1, and say nothing of what else the original sees.
        warm_up: share of all steps in which the rate rises; then it falls as a cosine.
        crops: views of an image beside itself and its mirror image, each mixed with another's.
        least_area: of a crop, as a share of the image.
        groups: only images whose positions are the same modulo this are mixed, so that who leaves
            such a group out of the training leaves out all that was seen of it.
        most_images: that are trained on; more take time and change little.
    """

    steps: int = 300
    most_epochs: int = 100
    step: float = 0.0005
    share: float = 0.5
    warm_up: float = 0.1
    temperature: float = 4.0
    batch_size: int = 32
    crops: int = 4
    least_area: float = 0.5
    groups: int = 5
    most_images: int = 2000
    seed: int = 0

    def epochs(self, n_images: int) -> int:
        """How often so many images are seen."""
        n_batches = math.ceil(min(n_images, self.most_images) / self.batch_size)
        return max(1, min(self.most_epochs, round(self.steps / n_batches)))


@dataclass(frozen=True)
class Lessons:
    """Views of images, and what the original says of them: the same for all students.

    Attributes:
        x_nchw: the images as the original takes them.
        outputs: the mission's scores.
        aims: the original's scores (views, N, K).
    """

    x_nchw: Tensor
    outputs: tuple[int, ...]
    aims: Tensor
    settings: TuneSettings


def prepare(
    original: Graph, x_nchw: Tensor, outputs: Sequence[int], settings: TuneSettings | None = None
) -> Lessons:
    """Ask the original what it says of each view of each image (N, C, H, W)."""
    how = settings or TuneSettings()
    views, parts = _Views(x_nchw, x_nchw, how), []
    chunk = images_at_once(original, x_nchw.device, _CHUNK)
    with torch.no_grad():
        for view in range(views.count):
            for images in torch.arange(len(x_nchw)).split(chunk):
                x = views.of_teacher(torch.full_like(images, view), images)
                parts.append(_scores(original, original.params, x, outputs))
    aims = torch.cat(parts).unflatten(0, (views.count, len(x_nchw)))
    return Lessons(x_nchw, tuple(outputs), aims, how)


def tune(
    student: Graph,
    lessons: Lessons,
    x_nchw: Tensor,
    images: Tensor,
    on_epoch: Callable[[int, int], None] = lambda done, of: None,
) -> Graph:
    """Train a compact network for a while towards what the original says.

    Args:
        student: with all scores; those that do not belong to the mission stay as they are.
        x_nchw: the images of the lessons at the student's input size.
        images: positions of those that are trained on.

    Returns:
        The student with new weights; as it came where they grew beyond all numbers.
    """
    how = lessons.settings
    generator = torch.Generator().manual_seed(how.seed)
    views = _Views(x_nchw, lessons.x_nchw, how)
    train = evenly(images, how.most_images)
    params, groups = _trainable(student)
    optimiser = torch.optim.AdamW(
        groups,
        weight_decay=0.0,  # which would change all scores
        fused=x_nchw.device.type == "cuda",  # else a dozen small steps for each of many tensors
    )
    epochs, n_batches = how.epochs(len(train)), math.ceil(len(train) / how.batch_size)
    first_view = torch.randint(views.count, (len(train),), generator=generator)
    for epoch in range(epochs):
        order = torch.randperm(len(train), generator=generator)
        for number, batch in enumerate(order.split(how.batch_size)):
            done = (epoch * n_batches + number + 1) / (epochs * n_batches)
            for group in optimiser.param_groups:
                group["lr"] = how.step * group["size"] * _rate(done, how.warm_up)
            view = (first_view[batch] + epoch) % views.count
            optimiser.zero_grad(set_to_none=True)
            with torch.enable_grad():
                x = views.of_student(view, train[batch])
                aim = lessons.aims[view, train[batch]]
                now = _scores(student, params, x, lessons.outputs)
                _divergence(aim, now, how.temperature).backward()
            optimiser.step()
        on_epoch(epoch + 1, epochs)
    if not all(bool(params[name].isfinite().all()) for group in groups for name in group["names"]):
        return student
    for name in (name for group in groups for name in group["names"]):
        params[name] = student.params[name].lerp(params[name].detach(), how.share)
    return replace(student, params=params)


class _Views:
    """Each image in a fixed set of views: as it is, mirrored, and parts of it mixed with others'.

    The student sees parts of the teacher's image, made small: its own have fewer pixels to give.
    """

    def __init__(self, x_student: Tensor, x_teacher: Tensor, how: TuneSettings) -> None:
        generator = torch.Generator().manual_seed(how.seed)
        self.x_student, self.x_teacher = x_student, x_teacher
        self.count, n = 2 + how.crops, len(x_teacher)
        shape = (how.crops, n)
        area = how.least_area + (1 - how.least_area) * torch.rand(shape, generator=generator)
        self.side = area.sqrt()
        self.top = (1 - self.side) * torch.rand(shape, generator=generator)
        self.left = (1 - self.side) * torch.rand(shape, generator=generator)
        self.mirrored = torch.rand(shape, generator=generator) < 0.5
        # Whose part is mixed with an image's, and how much of the mixture is the image's own.
        self.partner = torch.empty(shape, dtype=torch.long)
        for crop, group in itertools.product(range(how.crops), range(how.groups)):
            members = torch.arange(group, n, how.groups)
            mixed = members[torch.randperm(len(members), generator=generator)]
            self.partner[crop, members] = mixed
        self.share = torch.rand(shape, generator=generator)
        self.kept: dict[tuple[int, int], Tensor] = {}  # crops of the student, made once
        self.most_kept = _KEPT_BYTES // (4 * x_student[0].numel())

    def of_student(self, views: Tensor, images: Tensor) -> Tensor:
        """(B, C, H, W) at the student's input size, of images by position."""
        return self._of(self.x_student, views, images, self._kept_crop)

    def of_teacher(self, views: Tensor, images: Tensor) -> Tensor:
        """The same at the teacher's."""
        return self._of(self.x_teacher, views, images, self._crop)

    def _of(self, whole: Tensor, views: Tensor, images: Tensor, cut: _Cut) -> Tensor:
        size = whole.shape[2:]
        made = []
        for view, i in zip(views.tolist(), images.tolist(), strict=True):
            if view < 2:
                made.append(whole[i].flip(-1) if view == 1 else whole[i])
                continue
            crop = view - 2
            other = int(self.partner[crop, i])
            one, two = (self._part(cut, size, crop, image) for image in (i, other))
            made.append(two.lerp(one, float(self.share[crop, i])))
        return fast_layout(torch.stack(made))

    def _part(self, cut: _Cut, size: Sequence[int], crop: int, i: int) -> Tensor:
        """A part of one image (C, H, W), perhaps mirrored."""
        x = cut(crop, i, size)
        return x.flip(-1) if bool(self.mirrored[crop, i]) else x

    def _kept_crop(self, crop: int, i: int, size: Sequence[int]) -> Tensor:
        x = self.kept.get((crop, i))
        if x is None:
            x = self._crop(crop, i, size)
            if len(self.kept) < self.most_kept:
                self.kept[crop, i] = x
        return x

    def _crop(self, crop: int, i: int, size: Sequence[int]) -> Tensor:
        x = self.x_teacher[i]
        side, top, left = (float(t[crop, i]) for t in (self.side, self.top, self.left))
        rows, columns = (max(1, round(side * full)) for full in x.shape[1:])
        first, start = int(top * x.shape[1]), int(left * x.shape[2])
        part = x[None, :, first : first + rows, start : start + columns]
        how = {"mode": "bilinear", "antialias": True, "align_corners": False}
        return F.interpolate(part, tuple(size), **how)[0]  # type: ignore[arg-type]


def _trainable(graph: Graph) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All parameters, those of layers as leaves, and the latter as groups with their sizes."""
    names = {
        name
        for node in graph.nodes
        if node.op in _TRAINED_OPS
        for role, name in node.params.items()
        if role in _TRAINED_ROLES
    }
    params, groups = dict(graph.params), []
    for name in sorted(names):
        params[name] = params[name].detach().clone().requires_grad_(True)
        size = max(_LEAST_SIZE, float(params[name].detach().square().mean().sqrt()))
        groups.append({"params": [params[name]], "names": [name], "size": size})
    return params, groups


def _rate(done: float, warm_up: float) -> float:
    """The learning rate's share of its largest, after a share of all steps."""
    if done < warm_up:
        return done / warm_up
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def _scores(
    graph: Graph, params: Mapping[str, Tensor], x: Tensor, outputs: Sequence[int]
) -> Tensor:
    """Of the mission's classes (B, K)."""
    with _quickly(x.device):
        y = run(replace(graph, params=params), {graph.input.name: x})[graph.output]
    return y[:, list(outputs)].float()


def _quickly(device: torch.device) -> AbstractContextManager[object]:
    """Products in bfloat16 where the processor has instructions for them, else nothing."""
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    does = device.type == "cpu" and asked is not None and bool(asked())
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=does)


def _divergence(aim_nk: Tensor, now_nk: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(aim || now) of scores at a temperature, times its square: so gradients stay as large."""
    aim, now = (F.log_softmax(scores / temperature, 1) for scores in (aim_nk, now_nk))
    return temperature**2 * F.kl_div(now, aim, reduction="batchmean", log_target=True)
