"""Exported programmes as files that tell nothing of the machine that made them."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

__all__ = ["ABOUT", "LICENCE", "write_program"]

ABOUT = "distillnet.json"  # the extra file that says what a programme is
# What a written network says of itself; nothing tells distillnet under what its weights stand.
LICENCE = "that of the weights which this network was made of; distillnet does not know it"
# Of what a node carries, what an archive needs; the rest is for people at this machine: traces of
# calls with the paths of its files.
_KEPT = frozenset({"val", "tensor_meta", "nn_module_stack"})


def write_program(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Write a programme, to be loaded with ``torch.export.load`` and without this package.

    Args:
        about: goes into the extra file ``distillnet.json``; values that JSON can hold.
    """
    for node in program.graph.nodes:
        for key in [key for key in node.meta if key not in _KEPT]:
            del node.meta[key]
    # Through memory: where the disk is full, PyTorch's own writer ends the process (2.9).
    archive = io.BytesIO()
    extra = {ABOUT: json.dumps(about, allow_nan=False)}
    torch.export.save(program, archive, extra_files=extra)
    path.write_bytes(archive.getbuffer())
