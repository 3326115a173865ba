"""Networks of torchvision and timm without their repetitions, whose structure is all there."""

from dataclasses import replace

import torch
from torch import nn
from torchvision.models import DenseNet

from distillnet.models import Model, random_model

__all__ = ["shallow_model"]

_WIDE, _NARROW = 4096, 128  # hidden linear layers of AlexNet and VGG


def shallow_model(spec: str, *, input_size: int) -> Model:
    """A random network of a family, in which no block follows another of the same shape.

    What tests of structure learn from the tenth equal block they know from the first, and of
    DenseNet's 58 layers a dozen stand for all.
    """
    model = random_model(spec, input_size=input_size)
    if isinstance(model.module, DenseNet):
        return replace(model, module=_densenet())
    for part in [*model.module.modules()]:
        if isinstance(part, nn.Sequential):
            _without_repetitions(part)
            _narrowed(part)
    return model


def _densenet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = DenseNet(block_config=(3, 3, 4, 2)).eval()
        for name, value in module.state_dict().items():
            if value.ndim == 1:  # biases, scales and statistics: zeros and ones hide mistakes
                value.uniform_(0.5, 1.5) if "bias" not in name else value.uniform_(-0.5, 0.5)
    return module


def _without_repetitions(blocks: nn.Sequential) -> None:
    """Of blocks in a row that are made alike, the first."""
    made = [(type(block), _shapes(block)) for block in blocks]
    for i in reversed(range(1, len(made))):
        if made[i][1] and made[i] == made[i - 1]:
            del blocks[i]


def _shapes(block: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in block.state_dict().items()]


def _narrowed(layers: nn.Sequential) -> None:
    """Hidden layers whose weights alone would take longer than all else."""
    narrow = 0
    for layer in (layer for layer in layers if isinstance(layer, nn.Linear)):
        with torch.no_grad():
            if narrow:
                layer.weight, layer.in_features = nn.Parameter(layer.weight[:, :narrow]), narrow
            narrow = _NARROW if layer.out_features == _WIDE else 0
            if narrow:
                layer.weight = nn.Parameter(layer.weight[:narrow])
                layer.bias, layer.out_features = nn.Parameter(layer.bias[:narrow]), narrow
