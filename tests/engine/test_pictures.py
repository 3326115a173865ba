"""Preprocessing in C gives the bits that it gives in Python; damaged weights are refused."""

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from architectures import captured
from compiling import STRICT, export, names
from distillnet.engine import Native, build_native, compile_compact
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.operators import Node
from distillnet.images.preprocessing import Preprocessing, preprocess

_IMAGENET = Preprocessing(
    (24, 20), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=27, interpolation="bilinear"
)
_CASES = {
    "imagenet": _IMAGENET,
    "squashed": replace(_IMAGENET, resize=None),
    "caffe": Preprocessing((24, 24), (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), divisor=1.0,
                           channels="BGR"),
    "bicubic": replace(_IMAGENET, interpolation="bicubic"),
    "nearest": replace(_IMAGENET, interpolation="nearest"),
    "smaller than the crop": replace(_IMAGENET, resize=17, interpolation="bicubic"),
    "grey": Preprocessing((28, 28), (0.1307,), (0.3081,), channels="L"),
}  # fmt: skip
_SIZES = ((20, 24), (24, 20), (28, 28), (27, 27), (1, 1), (3, 200), (211, 97), (64, 301), (640, 9))


def _native(how: Preprocessing, folder: Path, *flags: str) -> Native:
    """A network that takes its images so and does nothing."""
    channels = len(how.mean)
    image = Node("x", "input", (), (channels, *how.input_size))
    mean = Node("mean", "mean", ("x",), (channels, 1, 1), {"keepdim": True})
    program, mission = compile_compact(Graph((image, mean), {}, "mean"), "m", names(channels))
    export(program, [mission], [np.zeros(channels)], folder, preprocessing=how)
    return build_native(folder, "net", image.shape, flags=(*flags, *STRICT))


@pytest.mark.parametrize("case", _CASES)
def test_a_picture_becomes_the_same_bits_in_c(case: str, tmp_path: Path) -> None:
    how = _CASES[case]
    library = _native(how, tmp_path / "c", "-O2").library
    library.net_preprocess_bytes.restype = ctypes.c_size_t
    rng = np.random.default_rng(0)
    for width, height in _SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if width % 2:  # flat parts and edges overshoot
            pixels = np.where(pixels > 128, 255, 0).astype(np.uint8)
        stride = 3 * width + 5
        rows = np.zeros((height, stride), np.uint8)
        rows[:, : 3 * width] = pixels.reshape(height, -1)
        size = library.net_preprocess_bytes(width, height)
        work = np.full(size // 4 + 2, -1, np.int32)
        found = np.full((len(how.mean), *how.input_size), np.nan, np.float32)

        def call(size: int = size, stride: int = stride, out: int = found.ctypes.data) -> int:
            return library.net_preprocess(
                rows.ctypes.data_as(ctypes.c_void_p), width, height, ctypes.c_size_t(stride),  # noqa: B023
                work.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(size), ctypes.c_void_p(out),  # noqa: B023
            )  # fmt: skip

        assert call() == 0
        assert work[-1] == -1
        wanted = preprocess(Image.fromarray(pixels), how).numpy()
        assert np.array_equal(found, wanted), f"{width} x {height}"
        assert call(size=size - 1) == call(stride=3 * width - 1) == 6
        assert call(out=found.ctypes.data + 2) == 4
    assert library.net_preprocess_bytes(0, 5) == library.net_preprocess_bytes(5, 20_000) == 0


_PICTURES = """
#include <stdlib.h>
#include <string.h>
#include "model.h"
int main(void)
{
    static const int32_t sides[][2] = {SIDES};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        const int32_t w = sides[i][0], h = sides[i][1];
        const size_t bytes = net_preprocess_bytes(w, h), pixels = 3 * (size_t)w * (size_t)h;
        uint8_t *rgb = malloc(pixels), *work = malloc(bytes);
        float *out = malloc(sizeof(float) * NET_CHANNELS * NET_HEIGHT * NET_WIDTH);
        memset(rgb, 255, pixels);
        if (net_preprocess(rgb, w, h, 3 * (size_t)w, work, bytes, out) != NET_OK)
            return 1;
        free(rgb), free(work), free(out);
    }
    return 0;
}
"""


@pytest.mark.parametrize("case", ["imagenet", "smaller than the crop", "grey", "nearest"])
def test_nothing_is_read_or_written_beyond_a_picture(case: str, tmp_path: Path) -> None:
    _native(_CASES[case], tmp_path / "c", "-O0")
    sides = ", ".join(f"{{{width}, {height}}}" for width, height in _SIZES)
    (tmp_path / "c" / "main.c").write_text(_PICTURES.replace("SIDES", sides))
    command = ["cc", "-std=c11", "-O1", "-fsanitize=address,undefined",
               "-fno-sanitize-recover=all", "main.c", "preprocess.c", "-o", "main"]  # fmt: skip
    subprocess.run(command, cwd=tmp_path / "c", check=True)
    done = subprocess.run(["./main"], cwd=tmp_path / "c", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:2000]


def test_addresses_between_numbers_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    _, graph, _ = captured("chain")
    program, mission = compile_compact(graph, "all", names(7))
    folder = export(program, [mission], [np.zeros(7)], tmp_path / "c")
    native = build_native(folder, "net", graph.input.shape, flags=("-O1", *STRICT))
    bound = native.mission("all")
    size, arena = native.arena.nbytes, native.arena.ctypes.data
    x, y = np.zeros(3 * 12 * 12 + 1, np.float32), np.zeros(8, np.float32)
    at = ctypes.addressof(bound)
    assert native.run(at, arena, size, x.ctypes.data, y.ctypes.data) == 0
    assert native.run(at, arena, size, x.ctypes.data + 1, y.ctypes.data) == 4
    assert native.run(at, arena, size, x.ctypes.data, y.ctypes.data + 2) == 4
    library = native.library
    good = (folder / "weights.bin").read_bytes()

    def load(data: bytes, shift: int = 0) -> int:
        room = ctypes.create_string_buffer(len(data) + 8)
        begin = ctypes.addressof(room) + -ctypes.addressof(room) % 4 + shift
        ctypes.memmove(begin, data, len(data))
        mission = native.mission("all")
        before = mission.weights
        status: int = library.net_load(
            ctypes.byref(mission), ctypes.c_void_p(begin), ctypes.c_size_t(len(data))
        )
        assert mission.weights == (begin if status == 0 else before)
        return status

    assert load(good) == 0
    assert load(good, 2) == 4
    assert load(good[:-4]) == 5
    for place in (0, len(good) // 2, len(good) - 1):
        assert load(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]) == 5
    (folder / "weights.bin").write_bytes(good[:-1000] + bytes(1000))
    with pytest.raises(InputError, match="damaged"):
        build_native(folder, "net", graph.input.shape, flags=("-O1",)).mission("all")


def test_the_header_tells_classes_and_version(tmp_path: Path) -> None:
    _, graph, _ = captured("chain")
    program, mission = compile_compact(graph, "all", ('a "b"', *names(6)))
    folder = export(program, [mission], [np.zeros(7)], tmp_path / "c", version="distillnet 9.9")
    header = (folder / "model.h").read_text()
    assert '#define NET_VERSION "distillnet 9.9"' in header
    assert "#define NET_ALL_N_CLASSES 7" in header
    assert '#define NET_ALL_CLASSES {"a \\042b\\042", "class 0"' in header
