"""The weights of a small network, written to a file."""

from pathlib import Path

from distillnet.models import Model
from distillnet.models.train import save_weights

__all__ = ["SMALL", "saved"]

SMALL = "torchvision:squeezenet1_1"


def saved(model: Model, path: Path) -> Path:
    save_weights(path, model.module.state_dict())
    return path
