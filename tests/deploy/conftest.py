"""A run of an untrained network."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distillnet as dn
from commands import run_command
from distillnet.deploy import Deployable, distilled_network
from distillnet.engine import native
from untrained_run import CLASSES, NET, SIDE


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an untrained network, its images labelled by what it says of them."""
    home = tmp_path_factory.mktemp("deploy")
    (home / "net.py").write_text(NET)
    (home / "names.tsv").write_text(
        "index\tname\n" + "".join(f"{i}\t{name}\n" for i, name in enumerate(CLASSES))
    )
    generator = np.random.default_rng(0)
    for name in CLASSES[:3]:
        (home / "data" / name).mkdir(parents=True)
        for i in range(20):
            colour = generator.integers(0, 256, 3)
            noise = generator.integers(-40, 40, (SIDE, SIDE, 3))
            pixels = (colour + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / "data" / name / f"{i:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        run_command(
            patch, "distill", f"{home / 'net.py'}:Net", "--data", str(home / "data"), "--out",
            str(home / "run"), "--classes", ",".join(CLASSES[:3]), "--class-names",
            str(home / "names.tsv"), "--input-size", str(SIDE), "--mean", "0.5,0.4,0.3", "--std",
            "0.25,0.25,0.25", "--target-macs", "2",
        )  # fmt: skip
    return home / "run"


@pytest.fixture(scope="session")
def network(run: Path) -> Deployable:
    return distilled_network(dn.open_run(run))


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less time goes into making C quick; what it computes stays."""
    flags = tuple("-O1" if flag == "-O3" else flag for flag in native.FLAGS)
    monkeypatch.setattr(native, "FLAGS", flags)
