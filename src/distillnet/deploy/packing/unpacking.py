"""From a packed file back to weights, a programme or a run, exactly."""

import atexit
import shutil
import tempfile
from pathlib import Path

import torch

from distillnet.deploy.packing.packing import RUN_FILES
from distillnet.deploy.packing.programme import about_of, open_programme
from distillnet.errors import InputError
from distillnet.files.tensors import write_tensors
from distillnet.graph.saving import write_program
from distillnet.job.runs import open_run, seal_run
from distillnet.models.packed import Unpacked, read_packed

__all__ = ["KINDS_OF_FILES", "unpack", "unpacked_run"]

KINDS_OF_FILES = {
    "weights": "a safetensors file, for --weights",
    "programme": "a .pt2 file, a MODEL",
    "run": "a run folder",
}


def unpack(found: Unpacked, out: Path) -> None:
    """Write what was packed: a file, or into a folder that is there where it was a run.

    Raises:
        InputError: it does not hold what such a network has.
    """
    if found.kind == "weights":
        write_tensors({name: t.contiguous() for name, t in found.tensors.items()}, out)
    elif found.kind == "programme":
        _write_programme(found, out)
    else:
        _write_run(found, out)


def unpacked_run(path: Path) -> Path:
    """The run in a packed file, as a folder that is there until this process ends."""
    found = read_packed(path)
    if found.kind != "run":
        raise InputError(
            f"{path} holds a packed {found.kind}, expected a packed run; `distillnet unpack` turns "
            f"it into {KINDS_OF_FILES[found.kind]}"
        )
    above = Path(tempfile.mkdtemp(prefix="distillnet-"))
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    folder = above / (path.stem or "run")  # after which a mission in C is called
    folder.mkdir()
    _write_run(found, folder)
    return folder


def _write_programme(found: Unpacked, path: Path) -> None:
    others = {name: data for name, data in found.records.items() if name not in RUN_FILES}
    try:
        about = about_of(others)
    except (ValueError, RecursionError) as error:
        raise InputError("a packed network's description is not JSON; pack it again") from error
    program = open_programme(found.tensors, others)
    x = torch.zeros(2, *program.input_shape)
    exported = torch.export.export(
        program.module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    write_program(exported, path, about if isinstance(about, dict) else {"about": about})


def _write_run(found: Unpacked, folder: Path) -> None:
    if missing := [name for name in RUN_FILES if name not in found.records]:
        raise InputError(f"a packed run holds no {missing[0]}; pack it again")
    for name in RUN_FILES:
        (folder / name).write_bytes(found.records[name])
    _write_programme(found, folder / "model.pt2")
    seal_run(folder)
    open_run(folder)  # says what does not fit
