"""Writing networks as torch.export programmes."""

from dataclasses import asdict
from pathlib import Path

from distillnet.deploy.networks import Deployable
from distillnet.graph.saving import write_program

__all__ = ["write_pt2"]

_AS_TEXT = ("class_names", "classes", "input_size", "preprocessing")  # JSON in ONNX's metadata


def write_pt2(
    network: Deployable,
    path: Path,
    *,
    batch: int | None = None,
    with_preprocessing: bool = False,
) -> None:
    """Write a network as a torch.export programme, to be loaded without this package.

    Args:
        batch: images at once; None leaves their number open.
        with_preprocessing: take uint8 (N, H, W, 3) RGB instead of normalised (N, C, H, W).
    """
    told = {key: value for key, value in network.provenance.items() if key not in _AS_TEXT}
    about = {
        **told,
        "classes": list(network.classes),
        "preprocessing": asdict(network.preprocessing),
    }
    write_program(network.exported(batch, with_preprocessing), path, about)
