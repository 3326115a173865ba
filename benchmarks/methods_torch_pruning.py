"""Torch-Pruning's side of methods.py: pruned copies of a network, and the largest ratio allowed."""

import copy
import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillnet.classes import Mission, parse_mission
from distillnet.cut.cost import Cost, cost
from distillnet.cut.plan import Plan
from distillnet.evaluate import (
    Evaluation,
    Scores,
    closed_set,
    evaluation,
    loss_interval_pp,
    loss_pp,
    worst_class_loss_pp,
)
from distillnet.graph import fast_layout
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.images import ImageSet, load_all, load_batches, open_images
from distillnet.job.distill import pick_device
from distillnet.job.partition import split_images
from distillnet.models import Model, load_model
from methods_jobs import Job, Row, Setting
from methods_training import Training, trained

Images = tuple[Tensor, Tensor]  # x_nchw, labels_n
Prune = Callable[[float], nn.Module]  # pruning ratio -> pruned copy of the network

BATCH = 32
GRADIENT_BATCH = 16  # a backward pass keeps every layer's output


def run_torch_pruning(job: Job, setting: Setting, images: Path) -> Row:
    """The row of Torch-Pruning: the largest ratio that search images allow, or so many MACs."""
    model = load_model(job.network.spec, weights=setting.data / "weights" / job.network.weights)
    mission = parse_mission(",".join(job.classes), model.classes)
    parts = split_images(open_images(images, model.classes, mission.indices), seed=job.seed)
    device = pick_device("auto")
    module = model.module.to(device)
    start = time.perf_counter()

    loaded = load_all(parts.search, model.preprocessing)
    search = [*zip(loaded.x_nchw.split(BATCH), loaded.labels_n.split(BATCH), strict=True)]
    prune = pruner(job.method.importance, model, mission, parts.statistics, setting.pruning_steps)
    before = evaluate(module, search, mission)

    training = training_images(parts.statistics, model, mission) if job.method.then else None

    def follow(pruned: nn.Module) -> nn.Module:
        """The network after the training that the method asks for, if any."""
        if training is None:
            return pruned
        student, teacher = copy.deepcopy(pruned).cpu(), copy.deepcopy(module).cpu()
        return trained(job.method.then, student, teacher, training, mission, job.seed).to(device)

    def search_loss(pruned: nn.Module) -> float:
        return loss_pp(before, evaluate(pruned, search, mission))

    def left_of(pruned: nn.Module) -> Cost:
        return count(pruned, model, Plan(outputs=mission.indices))

    whole = count(module, model, Plan())
    if job.method.mac_ratio:
        most = whole.macs / job.method.mac_ratio
        ratio, pruned = smallest_ratio(
            prune, lambda network: left_of(network).macs <= most, setting.search_steps
        )
    else:
        ratio, pruned, _ = largest_ratio(prune, search_loss, setting.max_loss, setting.search_steps)
    left, pruned = left_of(pruned), follow(pruned)
    val_before, val_after = (
        evaluate(network, read(parts.val, model, BATCH), mission) for network in (module, pruned)
    )
    found_loss = search_loss(pruned)
    seconds = time.perf_counter() - start
    return {
        "mac_ratio": whole.macs / left.macs,
        "mac_ratio_with_partial": whole.macs / left.macs_with_partial,
        "param_ratio": whole.params / left.params,
        "accuracy_before": val_before.accuracy,
        "accuracy_after": val_after.accuracy,
        "loss_pp": loss_pp(val_before, val_after),
        "loss_ci95_pp": loss_interval_pp(val_before, val_after),
        "worst_class_loss_pp": worst_class_loss_pp(val_before, val_after),
        "input_side": model.preprocessing.input_size[0],
        "seconds": seconds,
        "search_loss_pp": found_loss,
        "pruning_ratio": ratio,
        "torch_pruning": version("torch-pruning"),
        "n_images": {"statistics": len(parts.statistics), "search": len(loaded.refs)}
        | {"val": val_before.n},
    }


def pruner(
    importance: str, model: Model, mission: Mission, images: ImageSet, steps: int = 1
) -> Prune:
    """A function from a pruning ratio to a copy of the network that Torch-Pruning has pruned.

    In several steps, Taylor's gradients are taken anew before each. Those of the whole network
    are the same for every ratio and taken once.
    """
    tp = importlib.import_module("torch_pruning")  # not needed for distillnet's own rows
    criteria = {
        "taylor": lambda: tp.importance.GroupTaylorImportance(),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    }
    trainable = copy.deepcopy(model.module).requires_grad_(True)
    if importance == "taylor":
        add_gradients(trainable, read(images, model, GRADIENT_BATCH), mission)

    def prune(ratio: float) -> nn.Module:
        pruned = copy.deepcopy(trainable)
        for new, old in zip(pruned.parameters(), trainable.parameters(), strict=True):
            new.grad = None if old.grad is None else old.grad.clone()  # deepcopy leaves it out
        example = torch.zeros(1, len(model.preprocessing.mean), *model.preprocessing.input_size)
        tool = tp.pruner.BasePruner(
            pruned,
            example.to(next(pruned.parameters()).device),
            importance=criteria[importance](),
            global_pruning=True,
            pruning_ratio=ratio,
            iterative_steps=steps,
            ignored_layers=[head(pruned, len(model.classes))],
        )
        for step in range(steps):
            if step > 0 and importance == "taylor":
                pruned.zero_grad()
                add_gradients(pruned, read(images, model, GRADIENT_BATCH), mission)
            tool.step()
        pruned.zero_grad()
        return pruned.requires_grad_(False)

    return prune


def training_images(images: ImageSet, model: Model, mission: Mission) -> Training:
    """The statistics images; those of the search judge, as they do without training."""
    loaded = load_all(images, model.preprocessing)
    places = {index: place for place, index in enumerate(mission.indices)}
    targets = [places[int(label)] for label in loaded.labels_n]
    return {"x_nchw": loaded.x_nchw, "targets_n": torch.tensor(targets)}


def add_gradients(module: nn.Module, batches: Iterable[Images], mission: Mission) -> None:
    """Leave in ``.grad`` the gradients of the cross-entropy among the mission's classes."""
    device = next(module.parameters()).device
    for x_nchw, labels_n in batches:
        scores = Scores(module(fast_layout(x_nchw.to(device))), labels_n)
        closed = closed_set(scores, mission)
        # The sum over images, so that the size of batches does not matter.
        F.cross_entropy(closed.scores_nk, closed.labels_n.to(device), reduction="sum").backward()


def head(module: nn.Module, n_classes: int) -> nn.Module:
    """The layer that makes the scores, which has to keep its outputs."""
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if layers[-1].weight.shape[0] != n_classes:
        raise ValueError(f"the last layer makes {layers[-1].weight.shape[0]} of {n_classes} scores")
    return layers[-1]


def largest_ratio(
    prune: Prune, search_loss: Callable[[nn.Module], float], max_loss: float, steps: int
) -> tuple[float, nn.Module, float]:
    """Binary search for the largest pruning ratio within the loss: ratio, network and loss.

    Found to 2 ** -steps. The loss need not rise with the ratio everywhere, as for any such search.
    """
    low, high = 0.0, 1.0
    best, best_loss = prune(0.0), 0.0
    for _ in range(steps):
        ratio = (low + high) / 2
        pruned = prune(ratio)
        loss = search_loss(pruned)
        # Losses are differences of shares; 1 % of 100 images must not be more than 1 point.
        if loss <= max_loss + 1e-9:
            low, best, best_loss = ratio, pruned, loss
        else:
            high = ratio
    return low, best, best_loss


def smallest_ratio(
    prune: Prune, is_enough: Callable[[nn.Module], bool], steps: int
) -> tuple[float, nn.Module]:
    """Binary search for the smallest pruning ratio that is enough, to 2 ** -steps."""
    low, high = 0.0, 1.0
    found: nn.Module | None = None
    for _ in range(steps):
        ratio = (low + high) / 2
        pruned = prune(ratio)
        if is_enough(pruned):
            high, found = ratio, pruned
        else:
            low = ratio
    if found is None:
        raise ValueError(f"no ratio below {high:g} is enough")
    return high, found


def read(images: ImageSet, model: Model, batch_size: int) -> Iterator[Images]:
    """Images from disk, batch by batch."""
    for batch in load_batches(images, model.preprocessing, batch_size=batch_size):
        yield batch.x_nchw, batch.labels_n


def evaluate(module: nn.Module, batches: Iterable[Images], mission: Mission) -> Evaluation:
    """Closed-set accuracy of a module."""
    device = next(module.parameters()).device
    with torch.inference_mode():
        pairs = [(module(fast_layout(x.to(device))).cpu(), labels) for x, labels in batches]
    scores, labels_n = (torch.cat(part) for part in zip(*pairs, strict=True))
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the network's scores are NaN or infinite")
    return evaluation(closed_set(Scores(scores, labels_n), mission), mission)


def count(module: nn.Module, model: Model, plan: Plan) -> Cost:
    """What a module costs, counted as distillnet counts its own."""
    how = model.preprocessing
    graph = capture(copy.deepcopy(module).cpu(), how.input_size, channels=len(how.mean))
    return cost(graph, analyse(graph), plan)
