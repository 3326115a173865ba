"""Writing networks as torch.export programmes."""

import io
import json
from pathlib import Path

import torch

from distillnet.deploy.networks import Deployable

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
    program = network.exported(batch, with_preprocessing)
    # Through memory: where the disk is full, PyTorch's own writer ends the process (2.9).
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={_EXTRA: json.dumps(network.provenance)})
    path.write_bytes(archive.getbuffer())
