"""A folder to measure a device's table of times with: onnxruntime and numpy, or a C compiler."""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from distillnet.cut.times import CHAINS, FORMAT, KIT_MARKER, SIDE
from distillnet.deploy.c_folder import write_c
from distillnet.deploy.networks import Deployable
from distillnet.deploy.timings.measuring import chain_module, onnx_chain
from distillnet.images.preprocessing import Preprocessing

__all__ = ["write_kit"]


def write_kit(folder: Path) -> None:
    """Write ``measure.py`` and the networks that it times, as ONNX and C, into an empty folder.

    Raises:
        InputError: the extra onnx is missing.
    """
    for name in ("measure.py", "README.md"):
        (folder / name).write_text(_file(name), encoding="utf-8")
    about = {"format": FORMAT, "side": SIDE, "networks": list(CHAINS)}
    (folder / KIT_MARKER).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / "onnx").mkdir()
    (folder / "c").mkdir()
    (folder / "c" / "time.c").write_text(_file("time.c"), encoding="utf-8")
    for name, chain in CHAINS.items():
        (folder / "onnx" / f"{name}.onnx").write_bytes(onnx_chain(chain))
        (folder / "c" / name).mkdir()
        n_in, n_out = chain[0][0], chain[-1][1]
        with torch.random.fork_rng():
            torch.manual_seed(0)  # two kits are the same
            # The pool makes few scores of it and takes next to no time.
            module = nn.Sequential(*chain_module(chain), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        how = Preprocessing((SIDE, SIDE), (0.0,) * n_in, (1.0,) * n_in)
        network = Deployable("chain", module.eval(), how, tuple(map(str, range(n_out))), {})
        code = folder / "c" / name
        write_c(network, code, banner="Written by distillnet timings --kit")
        for path in code.iterdir():  # weights, which do not change the time, and what is for users
            if path.name in ("model.c", "model.h", "missions"):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _file(name: str) -> str:
    return files("distillnet.deploy").joinpath("kit", name).read_text(encoding="utf-8")
