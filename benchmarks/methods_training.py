"""What may follow Torch-Pruning in methods.py: distillnet's --tune, or training with labels.

``tune`` is the training of ``distillnet distill --tune``, towards the original's scores and without
labels, but longer, in larger steps and all of the way: what was not refitted has far to go.
``labels`` is the loop of Torch-Pruning's own reproduce/main.py (SGD at 0.01 with momentum and
weight decay, a tenth of it after 60 and 80 % of the epochs), on the labels, among the mission's
classes, and with as many steps.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from distillnet.classes import Mission
from distillnet.graph import GraphModule
from distillnet.graph.capture import capture
from distillnet.refit.tune import TuneSettings, prepare, tune

Training = dict[str, Tensor]  # x_nchw, targets_n: places among the mission's classes


def trained(
    how: str, pruned: nn.Module, original: nn.Module, images: Training, mission: Mission, seed: int
) -> nn.Module:
    """The pruned network after training of one of both kinds, in inference mode."""
    x_nchw = images["x_nchw"]
    settings = TuneSettings(steps=600, step=0.002, share=1.0, seed=seed)
    if how == "labels":
        return _with_labels(pruned, images, mission, settings)
    channels, height, width = x_nchw.shape[1:]
    student, teacher = (
        capture(module.cpu(), (height, width), channels=channels) for module in (pruned, original)
    )
    lessons = prepare(teacher, x_nchw, mission.indices, settings)
    return GraphModule(tune(student, lessons, x_nchw, torch.arange(len(x_nchw))))


def _with_labels(
    pruned: nn.Module, images: Training, mission: Mission, settings: TuneSettings
) -> nn.Module:
    x_nchw, targets_n = images["x_nchw"], images["targets_n"]
    torch.manual_seed(settings.seed)  # of transforms and of dropout
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(
                list(x_nchw.shape[2:]), scale=(settings.least_area, 1.0), antialias=True
            ),
            v2.RandomHorizontalFlip(),
        ]
    )
    pruned.requires_grad_(True).train()
    optimiser = torch.optim.SGD(pruned.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    epochs = settings.epochs(len(x_nchw))
    milestones = [math.ceil(0.6 * epochs), math.ceil(0.8 * epochs)]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(x_nchw)).split(settings.batch_size):
            optimiser.zero_grad()
            x = torch.stack([augment(x_nchw[i]) for i in batch])
            with torch.enable_grad():
                scores = pruned(x.contiguous(memory_format=torch.channels_last))
                F.cross_entropy(scores[:, list(mission.indices)], targets_n[batch]).backward()
            optimiser.step()
        scheduler.step()
    return pruned.eval().requires_grad_(False)
