"""In 8 bits the C says what the reference says, bit by bit, and both say nearly what torch says."""

import ctypes
import math
from fractions import Fraction
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from architectures import ARCHITECTURES, SIDE, captured
from compiling import names
from distillnet.cut.surgery import compact
from distillnet.engine import MissionBits, build_native, noise_image, prepare_compact
from distillnet.engine.int8 import (
    CALIBRATIONS,
    Quantised,
    find_ranges,
    quantise,
    reference_scores,
    write_int8_folder,
)
from distillnet.engine.int8.fixed import Scale, byte_of, in_high_word, shifted
from distillnet.errors import InputError, UnsupportedError
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.images.preprocessing import Preprocessing, preprocess
from plans import random_plan, scores
from selection import exhaustive
from targets import STRICT, run_elsewhere, run_test_vector, vector_flags

REFUSED = {"layer_norm", "group_norm", "channel_conv", "channel_max"}
ALIGNMENT = 4  # NET_ERROR_ALIGNMENT of model.h
SAID = ("depthwise", "residual through concat", "grouped", "local response norm", "padding")
TARGETS = ("dot products", "neon", "sanitized", "sanitized, unpadded")


def in_8_bits(graph: Graph, block: int) -> tuple[Quantised, MissionBits]:
    """A compact graph with ranges from a few images of noise."""
    prepared = prepare_compact(graph, "only", names(graph[graph.output].shape[0]))
    x = torch.from_numpy(np.stack([noise_image((3, SIDE, SIDE), 1.5), _other_noise()]))
    x = x.to(next(iter(graph.params.values())).dtype)
    ranges = find_ranges(prepared.graph, x)["MinMax"]
    network, (mission,) = quantise(prepared.graph, prepared.missions, ranges, block)
    return network, mission


def _other_noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.5, 1.5, (3, SIDE, SIDE)).astype(np.float32)


def partial(name: str) -> Graph:
    _, graph, channels = captured(name)
    less = compact(graph, channels, random_plan(graph, channels, "partial", 5))
    return less.to(torch.float32)


def written(
    network: Quantised, mission: MissionBits, folder: Path, how: Preprocessing | None = None
) -> Path:
    image = noise_image((3, SIDE, SIDE), 1.5)
    wanted = reference_scores(network, image[None], mission)[0]
    folder.mkdir()
    write_int8_folder(
        network, [mission], {"only": wanted}, folder, "net", banner="b", scale=1.5,
        preprocessing=how,
    )  # fmt: skip
    return folder


def agrees(name: str, folder: Path) -> None:
    graph = partial(name)
    if found := REFUSED & {node.op for node in graph.nodes}:
        with pytest.raises(UnsupportedError, match=found.pop()):
            in_8_bits(graph, 16)
        return
    block, flags = (1, ("-O1",)) if len(name) % 3 == 0 else (16, vector_flags(name))
    flags = tuple(flag for flag in flags if not flag.startswith("-DLANES"))
    network, mission = in_8_bits(graph, block)
    written(network, mission, folder)
    native = build_native(
        folder, "net", (3, SIDE, SIDE), flags=(*flags, *STRICT), weights_type="u1"
    )
    bound, image = native.mission("only"), noise_image((3, SIDE, SIDE), 1.5)
    x = np.stack([image, _other_noise(), 3 * image])  # the last beyond what was calibrated on
    native.arena[:] = 0xFF
    got = native.scores(bound, x)
    want = reference_scores(network, x, mission)
    assert np.array_equal(got, want)
    real = scores(graph, torch.from_numpy(x[:2])).numpy()
    spread = max(float(np.ptp(real)), 1e-6)
    assert float(np.abs(want[:2] - real).max()) <= 0.25 * spread


@pytest.mark.parametrize("name", SAID)
def test_the_c_is_the_reference(name: str, tmp_path: Path) -> None:
    agrees(name, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in SAID])
def test_the_c_is_the_reference_whatever_the_structure(name: str, tmp_path: Path) -> None:
    agrees(name, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"), exhaustive(product(SAID, TARGETS), lambda c: c in zip(SAID, cycle(TARGETS)))
)
def test_other_targets_say_the_same(name: str, target: str, tmp_path: Path) -> None:
    network, mission = in_8_bits(partial(name), 1 if "unpadded" in target else 16)
    folder = written(network, mission, tmp_path / "c")
    said = run_elsewhere(folder, target)
    assert said.count("PASS") == 1


def test_damaged_and_misplaced_weights_are_told(tmp_path: Path) -> None:
    network, mission = in_8_bits(partial("padding"), 16)
    folder = written(network, mission, tmp_path / "c")
    native = build_native(folder, "net", (3, SIDE, SIDE), flags=("-O1",), weights_type="u1")
    bound = native.mission("only")
    bound.weights += 1
    assert native.check(ctypes.addressof(bound)) == ALIGNMENT
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    out = tmp_path / "again.so"
    again = build_native(folder, "net", (3, SIDE, SIDE), out, flags=("-O1",), weights_type="u1")
    with pytest.raises(InputError, match="damaged"):
        again.mission("only")


def test_pictures_become_the_input_beside_the_network(tmp_path: Path) -> None:
    network, mission = in_8_bits(partial("padding"), 16)
    how = Preprocessing((SIDE, SIDE), (0.5,) * 3, (0.25,) * 3)
    folder = written(network, mission, tmp_path / "c", how)
    assert "net_preprocess(" in (folder / "model.h").read_text()
    assert run_test_vector(folder, ["cc", "-O1"]).count("PASS") == 1
    native = build_native(folder, "net", (3, SIDE, SIDE), flags=("-O1",), weights_type="u1")
    x = np.zeros((1, 3, SIDE, SIDE), np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    need = native.library.net_preprocess_bytes
    need.restype = ctypes.c_size_t
    work = np.empty(need(40, 30), np.uint8)
    call = native.library.net_preprocess
    call.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_size_t,
                     ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)  # fmt: skip
    status = call(rgb.ctypes.data, 40, 30, 120, work.ctypes.data, work.nbytes, x.ctypes.data)
    assert status == 0
    assert np.array_equal(x[0], preprocess(Image.fromarray(rgb), how).numpy())
    got = native.scores(native.mission("only"), x)
    assert np.array_equal(got, reference_scores(network, x, mission))


def test_rounding_is_half_up_of_the_exact_product() -> None:
    generator = np.random.default_rng(1)
    factors = 10.0 ** generator.uniform(-9, np.log10(0.2499), 50)
    multipliers, shift = in_high_word(factors)
    assert np.all(np.abs(multipliers / 2.0 ** (32 + shift) - factors) <= 2.0 ** -(33 + shift))
    for m in multipliers.tolist():
        for total in (*generator.integers(-(2**31), 2**31, 20).tolist(), 0, -1, 2**31 - 1):
            got = ((total * m >> 32) + (1 << shift >> 1)) >> shift
            assert got == math.floor(Fraction(total * m, 2 ** (32 + shift)) + Fraction(1, 2))


def test_scales_hold_zero_and_both_ends() -> None:
    for least, most in ((-1.0, 3.0), (0.0, 6.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        scale = Scale.of(least, most)
        assert byte_of(0.0, scale) == scale.zero
        for value in (least, most):
            back = scale.step * (byte_of(value, scale) - scale.zero)
            assert abs(back - value) <= scale.step
        coarser = scale.at_least(3 * scale.step)
        assert coarser.step == 3 * scale.step
        assert abs(coarser.zero * 3 - scale.zero) <= 3


def test_shifted_factors_fit_their_bits() -> None:
    factors = np.array([0.75, -0.1, 3.0])
    whole, shift = shifted(factors, 21)
    assert np.abs(whole).max() < 2**21 <= 2 * np.abs(whole).max()
    assert np.allclose(whole / 2.0**shift, factors, atol=2.0**-shift)


def test_ranges_hold_what_was_seen() -> None:
    _, graph, _ = captured("chain")
    graph = graph.to(torch.float32)
    x = torch.from_numpy(_other_noise())[None]
    found = find_ranges(graph, x)
    assert set(found) == set(CALIBRATIONS)
    for name, (least, most) in found["MinMax"].items():
        for narrower in CALIBRATIONS[1:]:
            low, high = found[narrower][name]
            assert min(least, 0) - 1e-6 <= low <= high <= max(most, 0) + 1e-6
    assert found["MinMax"][graph.input.name] == (float(x.min()), float(x.max()))


def test_infinite_padding_is_no_number_of_a_range(tmp_path: Path) -> None:
    """TensorFlow's maximum pools pad so."""

    class Padded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Linear(8 * 6 * 6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.pad(self.a(x), (0, 1, 0, 1), value=-math.inf)
            return self.b(F.max_pool2d(x, 3, 2).flatten(1))

    torch.manual_seed(0)
    graph = capture(Padded().eval(), (SIDE, SIDE))
    x = torch.stack([torch.from_numpy(_other_noise()) for _ in range(4)])
    found = find_ranges(graph, x)
    assert all(math.isfinite(v) for name in CALIBRATIONS for r in found[name].values() for v in r)
    prepared = prepare_compact(graph, "only", list("abcd"))
    network, missions = quantise(
        prepared.graph, prepared.missions, find_ranges(prepared.graph, x)["MinMax"]
    )
    want = scores(graph, x).numpy()
    got = reference_scores(network, x.numpy(), missions[0])
    assert float(np.abs(got - want).max()) < 0.05 * float(np.ptp(want))


def test_sums_that_may_not_fit_are_refused() -> None:
    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Linear(70_000, 2, bias=False)
            torch.nn.init.ones_(self.last.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(x.flatten(1))

    graph = capture(Wide().eval(), (100, 100), channels=7)
    ranges = find_ranges(graph, torch.rand(1, 7, 100, 100))["MinMax"]
    with pytest.raises(UnsupportedError, match="32 bits"):
        quantise(graph, [], ranges)
