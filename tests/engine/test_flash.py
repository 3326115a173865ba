"""Weights packed for flash: the C that decodes them gives each bit of the array."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distillnet.engine import compile_compact, noise_image, write_folder
from distillnet.engine.flash import Flash, flash_of
from distillnet.graph.capture import capture
from distillnet.models.packed import Shared
from plans import scores
from targets import STRICT

SIDE = 9
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class _Net(nn.Module):
    """Filters of all kinds: more and fewer than a block, grouped ones, a layer with no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 20, 3, padding=1)
        self.b = nn.Conv2d(20, 33, 1, bias=False)
        self.c = nn.Conv2d(33, 33, 3, groups=33)
        self.d = nn.Conv2d(33, 5, (1, 3))
        self.fc = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu()
        return self.fc(self.d(self.c(x).relu()).mean((2, 3)))


def _shared(shape: tuple[int, ...], draw: np.random.Generator, codebook: bool) -> Shared:
    m, d = shape[0], int(np.prod(shape[1:]))
    # Mostly 0, a few beyond those that have a symbol of their own.
    levels = np.round(draw.standard_t(1.5, (m, d)) * draw.choice([0.3, 1.5], (m, 1))).astype(int)
    if codebook:
        values = np.sort(draw.standard_normal(64)).astype(np.float32)
        values[32] = 0
        return Shared(shape, levels.clip(-32, 31), np.zeros(m, np.int8), np.zeros(d, np.int8),
                      values)  # fmt: skip
    rows, columns = (draw.integers(-14, 3, n).astype(np.int8) for n in (m, d))
    return Shared(shape, levels.clip(-900, 900), rows, columns, np.zeros(0, np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Flash, np.ndarray]:
    """A folder with packed weights, what they are, and the array that they stand for."""
    draw = np.random.default_rng(3)
    torch.manual_seed(0)
    module = _Net().eval()
    shared = {
        name: _shared(tuple(getattr(module, name).weight.shape), draw, name == "b")
        for name in ("a", "b", "d", "fc")
    }
    with torch.no_grad():
        for name, s in shared.items():
            getattr(module, name).weight.copy_(s.value)
    graph = capture(module, (SIDE, SIDE))
    program, mission = compile_compact(graph, "all", tuple(map(str, range(7))))
    flash = flash_of(program.weights, shared.values())
    image = noise_image((3, SIDE, SIDE), 1.0)
    want = scores(graph, torch.from_numpy(image)[None])[0].numpy()
    path = tmp_path_factory.mktemp("flash") / "c"
    path.mkdir()
    write_folder(program, [mission], {mission.name: want}, path, "net", banner="b", flash=flash)
    return path, flash, program.weights


def test_levels_are_found_where_the_kernels_read_them(folder) -> None:
    _, flash, _ = folder
    assert [row[1:3] for row in flash.matrices] == [(20, 27), (33, 20), (5, 99), (7, 5)]
    assert flash.covered == 20 * 27 + 33 * 20 + 5 * 99 + 7 * 5
    # Of the rest, biases and the grouped filters are not 0.
    floats = 20 + 5 + 7 + 33 * 10
    assert 4 * floats <= len(flash.rest) <= 4 * floats + 1000


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
@pytest.mark.parametrize("flags", [("-O2", *SANITIZERS), ("-O3", "-march=native")], ids=str)
def test_the_decoder_gives_each_bit(folder, flags: tuple[str, ...], tmp_path: Path) -> None:
    """The network's own test says so by CRC-32 and by its scores."""
    path, _, _ = folder
    command = ["gcc", "-std=c11", "-ffp-contract=fast", "-fno-math-errno", *flags, *STRICT,
               "test_vector.c", "model.c", "weights.c", "missions/all.c", "-lm",
               "-o", str(tmp_path / "test")]  # fmt: skip
    subprocess.run(command, cwd=path, check=True)
    done = subprocess.run([tmp_path / "test"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout


_DUMP = """
#include <stdio.h>
#include "model.h"
static float weights[NET_N_WEIGHTS];
static _Alignas(8) char work[NET_UNPACK_BYTES];
int main(void)
{
    const int status = net_unpack(weights, work, sizeof work);
    if (net_unpack(weights, work, sizeof work - 1) != NET_ERROR_ARENA ||
        net_unpack(NULL, work, sizeof work) != NET_ERROR_NULL)
        return 99;
    fwrite(weights, sizeof *weights, NET_N_WEIGHTS, stdout);
    return status;
}
"""


def _dump(path: Path, into: Path) -> subprocess.CompletedProcess[bytes]:
    (into / "dump.c").write_text(_DUMP)
    subprocess.run(
        ["gcc", "-std=c11", "-O1", *SANITIZERS, f"-I{path}", "dump.c", "weights.c", "-o", "dump"],
        cwd=into, check=True,
    )  # fmt: skip
    return subprocess.run(["./dump"], cwd=into, capture_output=True)


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_flash_that_is_damaged_is_read_within_bounds(folder, tmp_path: Path) -> None:
    path, _, weights = folder
    text = (path / "weights.c").read_text()
    (tmp_path / "weights.c").write_text(text)
    done = _dump(path, tmp_path)
    assert (done.returncode, done.stdout) == (0, weights.astype("<f4").tobytes())
    begin = text.index("static const uint8_t packed")
    head, body = text[:begin], text[begin:]
    start = body.index('"') + 1
    octal = body.index("};") - start
    for where in (0.02, 0.3, 0.5, 0.6, 0.9, 0.99):
        at = body.index("\\", start + int(where * octal))
        spoilt = body[:at] + ("\\252" if body[at : at + 4] != "\\252" else "\\125") + body[at + 4 :]
        (tmp_path / "weights.c").write_text(head + spoilt)
        done = _dump(path, tmp_path)  # a sanitizer would end it with another status
        assert done.returncode in (0, 5), done.stderr.decode()[-500:]
        assert done.returncode == 5 or done.stdout != weights.astype("<f4").tobytes()
