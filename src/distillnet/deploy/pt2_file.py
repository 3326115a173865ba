"""Writing networks as torch.export programmes."""

import io
import json
from pathlib import Path

import torch

from distillnet.deploy.networks import Deployable, WithPreprocessing

__all__ = ["write_pt2"]

_EXTRA = "distillnet.json"  # where the programme says where it comes from


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
    channels, height, width = network.shape
    module: torch.nn.Module = network.module
    x = torch.zeros(batch or 2, channels, height, width)
    if with_preprocessing:
        module = WithPreprocessing(network)
        x = torch.zeros(batch or 2, height, width, 3, dtype=torch.uint8)
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(module, (x,), dynamic_shapes=shapes)
    # Through memory: where the disk is full, PyTorch's own writer ends the process (2.9).
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={_EXTRA: json.dumps(network.provenance)})
    path.write_bytes(archive.getbuffer())
