"""A short distillation behind the closed-form refit: all layers learn together, without labels.

The refit fits each layer to what the original says in its place. Here all of them are trained for
what comes out in the end, by gradient descent on

    mean over views of  KL(p || q),   p, q: the original's and the student's probabilities

among the mission's classes. A view is an image as it is, mirrored, or a part of it: some for each
image, drawn once, so that the original is asked once.

*Steps* are relative to the size of what they change: tensor by tensor the learning rate is a share
of the root mean square of the weights. So networks that see 0 to 255 and networks that see -2 to 2
take the same settings, and so do a layer's two thin halves.

*When to stop.* A part of the images is held out. After each epoch they tell the divergence and how
often decisions are expected to differ, probabilities sharpened as in ``search.judge``: the former
alone is ruled by the few images of which nobody is sure. The epoch with the least sum of both is
taken, of those in which neither is larger than it was; where there is none, the student stays as it
came.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.operators import LAYERS
from distillnet.refit.samples import evenly

__all__ = ["HeldOut", "TuneSettings", "Tuned", "tune"]

_TRAINED_OPS = LAYERS | {"affine", "layer_norm", "group_norm"}  # batch norm is an affine node
_TRAINED_ROLES = frozenset({"weight", "bias", "scale", "shift"})
_LEAST_SIZE = 1e-3  # of a tensor that begins at zero, for its steps
_CHUNK = 32  # images computed at once where nothing is trained


@dataclass(frozen=True)
class TuneSettings:
    """How to tune.

    Attributes:
        epochs: in each of which every image is seen once, in one of its views.
        step: the largest learning rate, as a share of a tensor's root mean square.
        temperature: by which scores are divided for the training: with few classes probabilities
            are next to 0 and 1, and say nothing of what else the original sees.
        warm_up: share of all steps in which the rate rises; then it falls as a cosine.
        crops: views of an image beside itself and its mirror image.
        least_area: of a crop, as a share of the image.
        most_images: that are trained on; more take time and change little.
    """

    epochs: int = 20
    step: float = 0.0001
    warm_up: float = 0.1
    temperature: float = 4.0
    batch_size: int = 32
    crops: int = 2
    least_area: float = 0.5
    most_images: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class HeldOut:
    """How far a student is from the original on held-out images.

    Attributes:
        divergence: KL in nats per view.
        disagreement: share of decisions expected to differ.
    """

    divergence: float
    disagreement: float

    @property
    def total(self) -> float:
        return self.divergence + self.disagreement

    def beats(self, other: "HeldOut") -> bool:
        """Whether it is nearer in sum, and farther in nothing."""
        return (
            self.total < other.total
            and self.divergence <= other.divergence
            and self.disagreement <= other.disagreement
        )


@dataclass(frozen=True)
class Tuned:
    """What came of tuning.

    Attributes:
        graph: the student with new weights; as it came where it was not ``kept``.
        epochs: how many were taken; 0 where it was not kept.
        kept: whether the held-out images speak for the new weights.
    """

    graph: Graph
    epochs: int
    before: HeldOut
    after: HeldOut
    kept: bool


def tune(
    student: Graph,
    teacher: Graph,
    x_student_nchw: Tensor,
    x_teacher_nchw: Tensor,
    outputs: Sequence[int],
    held_out_n: Tensor,
    settings: TuneSettings | None = None,
    on_epoch: Callable[[int, int], None] = lambda done, of: None,
) -> Tuned:
    """Train a compact network for a while towards what the original says.

    Args:
        student: with all scores, those that do not belong to the mission stay as they are.
        x_student_nchw, x_teacher_nchw: the same images at both input sizes.
        outputs: the mission's scores.
        held_out_n: bool (N,), the images that are not trained on.
    """
    how = settings or TuneSettings()
    generator = torch.Generator().manual_seed(how.seed)
    views = _Views(x_student_nchw, x_teacher_nchw, how, generator)
    train = evenly(torch.nonzero(~held_out_n)[:, 0], how.most_images)
    held_out = torch.nonzero(held_out_n)[:, 0]
    chosen = list(outputs)

    def told(view: int, images: Tensor) -> Tensor:
        parts = []
        with torch.no_grad():
            for part in images.split(_CHUNK):
                x = views.of_teacher(torch.full_like(part, view), part)
                parts.append(_scores(teacher, teacher.params, x, chosen))
        return torch.cat(parts)

    # Scores of the original (views, N, K); held-out images are shown as they are and mirrored.
    aims = torch.stack([told(view, train) for view in range(views.count)])
    held_out_aims = [told(view, held_out) for view in range(2)]

    def judged(params: Mapping[str, Tensor]) -> HeldOut:
        now = []
        with torch.no_grad():
            for view in range(2):
                for part in held_out.split(_CHUNK):
                    x = views.of_student(torch.full_like(part, view), part)
                    now.append(_scores(student, params, x, chosen))
        return _distance(torch.cat(held_out_aims), torch.cat(now))

    params, groups = _trainable(student)
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)  # which would change all scores
    n_batches = math.ceil(len(train) / how.batch_size)
    before = best = judged(student.params)
    taken, weights = 0, dict(student.params)
    first_view = torch.randint(views.count, (len(train),), generator=generator)
    for epoch in range(how.epochs):
        order = torch.randperm(len(train), generator=generator)
        for number, batch in enumerate(order.split(how.batch_size)):
            done = (epoch * n_batches + number + 1) / (how.epochs * n_batches)
            for group in optimiser.param_groups:
                group["lr"] = how.step * group["size"] * _rate(done, how.warm_up)
            view = (first_view[batch] + epoch) % views.count
            optimiser.zero_grad(set_to_none=True)
            with torch.enable_grad():
                x = views.of_student(view, train[batch])
                aim = aims[view.to(aims.device), batch.to(aims.device)]
                now = _scores(student, params, x, chosen)
                _divergence(aim, now, how.temperature).backward()
            optimiser.step()
        found = judged(params)
        if found.beats(before) and found.total < best.total:
            best, taken = found, epoch + 1
            weights = {name: tensor.detach().clone() for name, tensor in params.items()}
        on_epoch(epoch + 1, how.epochs)
    if not taken:
        return Tuned(student, 0, before, before, kept=False)
    return Tuned(replace(student, params=weights), taken, before, best, kept=True)


class _Views:
    """Each image in a fixed set of views: as it is, mirrored, and parts of it.

    The student sees parts of the teacher's image, made small: its own have fewer pixels to give.
    """

    def __init__(
        self, x_student: Tensor, x_teacher: Tensor, how: TuneSettings, generator: torch.Generator
    ) -> None:
        self.x_student, self.x_teacher = x_student, x_teacher
        self.count, n = 2 + how.crops, len(x_teacher)
        shape = (how.crops, n)
        area = how.least_area + (1 - how.least_area) * torch.rand(shape, generator=generator)
        self.side = area.sqrt()
        self.top = (1 - self.side) * torch.rand(shape, generator=generator)
        self.left = (1 - self.side) * torch.rand(shape, generator=generator)
        self.mirrored = torch.rand(shape, generator=generator) < 0.5

    def of_student(self, views: Tensor, images: Tensor) -> Tensor:
        """(B, C, H, W) at the student's input size, of images by position."""
        return self._of(self.x_student, views, images)

    def of_teacher(self, views: Tensor, images: Tensor) -> Tensor:
        """The same at the teacher's."""
        return self._of(self.x_teacher, views, images)

    def _of(self, whole: Tensor, views: Tensor, images: Tensor) -> Tensor:
        size = whole.shape[2:]
        made = []
        for view, i in zip(views.tolist(), images.tolist(), strict=True):
            x = whole[i] if view < 2 else self._crop(view - 2, i, size)
            made.append(x.flip(-1) if self._is_mirrored(view, i) else x)
        return fast_layout(torch.stack(made))

    def _is_mirrored(self, view: int, i: int) -> bool:
        return view == 1 or (view > 1 and bool(self.mirrored[view - 2, i]))

    def _crop(self, crop: int, i: int, size: Sequence[int]) -> Tensor:
        x = self.x_teacher[i]
        side, top, left = (float(t[crop, i]) for t in (self.side, self.top, self.left))
        rows, columns = (max(1, round(side * full)) for full in x.shape[1:])
        first, start = int(top * x.shape[1]), int(left * x.shape[2])
        part = x[None, :, first : first + rows, start : start + columns]
        how = {"mode": "bilinear", "antialias": True, "align_corners": False}
        return F.interpolate(part, tuple(size), **how)[0]  # type: ignore[arg-type]


def _trainable(graph: Graph) -> tuple[dict[str, Tensor], list[dict[str, object]]]:
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
        groups.append({"params": [params[name]], "size": size})
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
    y = run(replace(graph, params=params), {graph.input.name: x})[graph.output]
    return y[:, list(outputs)]


def _distance(aim_nk: Tensor, now_nk: Tensor) -> HeldOut:
    aim, now = aim_nk.double(), now_nk.double()
    sure_aim, sure_now = ((2 * scores).softmax(1) for scores in (aim, now))
    return HeldOut(
        float(_divergence(aim, now)),
        float(1 - (sure_aim * sure_now).sum(1).mean()),
    )


def _divergence(aim_nk: Tensor, now_nk: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(aim || now) of scores at a temperature, times its square: so gradients stay as large."""
    aim, now = (F.log_softmax(scores / temperature, 1) for scores in (aim_nk, now_nk))
    return temperature**2 * F.kl_div(now, aim, reduction="batchmean", log_target=True)
