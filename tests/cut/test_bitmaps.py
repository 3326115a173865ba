"""Equations 7, 8 and 13 to 16 on numbers worked out by hand."""

import math

import pytest
import torch

from distillnet.cut.bitmaps import (
    bitmap,
    complete_removal,
    compression_ratio,
    dormant_density,
    fuse,
    pack,
    quantile_threshold,
    unpack,
)


def test_a_neuron_at_the_threshold_is_kept() -> None:
    heat = torch.tensor([[[0.1, 0.2], [0.3, -1.0]]])
    assert bitmap(heat, 0.2).tolist() == [[[False, True], [True, False]]]


def test_fusion_keeps_what_any_class_needs_and_does_not_depend_on_their_order() -> None:
    maps = torch.tensor([[[True, False, False]], [[False, False, True]], [[False, False, False]]])
    assert fuse(maps).tolist() == [[True, False, True]]
    assert torch.equal(fuse(maps), fuse(maps.flip(0)))


@pytest.mark.parametrize(
    ("keep", "gone"),
    [
        (torch.zeros(2, 3, 3, dtype=torch.bool), [True, True]),
        (torch.ones(2, 3, 3, dtype=torch.bool), [False, False]),
        (torch.tensor([True, False, False]), [False, True, True]),
        (torch.tensor([[[False, True]], [[False, False]]]), [False, True]),
    ],
)
def test_complete_removal(keep: torch.Tensor, gone: list[bool]) -> None:
    assert complete_removal(keep).tolist() == gone


def test_compression_ratio_counts_complete_and_partial_removal() -> None:
    keep = torch.ones(4, 2, 3, dtype=torch.bool)  # H W M = 24
    keep[0] = False  # cr = 1: 6 neurons
    keep[1, 0, 0] = keep[2, 1, 2] = False  # pr = 2
    assert compression_ratio(keep) == 24 / (24 - (1 * 6 + 2)) == 1.5
    assert compression_ratio(torch.zeros(3, dtype=torch.bool)) == math.inf


def test_dormant_density_is_that_of_the_worst_tile() -> None:
    # Two channels, 3 x 3; tiles of 2 x 2: zeros per tile of 8 are 3, 3, 3 and 2.
    maps = torch.tensor(
        [[[[0.0, 1, 0], [0, 1, 1], [0, 0, 1]], [[1, 0.0, 1], [2, 2, 0], [3, 3, 0.5]]]]
    )
    assert dormant_density(maps, kernel=2) == pytest.approx(3 / 8)
    assert dormant_density(maps[..., 1:, 1:], 0.6, kernel=2) == pytest.approx(3 / 8)
    assert dormant_density(maps, 1.5, kernel=2) == pytest.approx(7 / 8)
    assert dormant_density(maps, kernel=2, stride=2) == pytest.approx(3 / 8)
    assert dormant_density(maps, kernel=9) == pytest.approx(7 / 18)  # the tile is the map
    assert dormant_density(torch.tensor([[0.0, 1.0, -0.2, 0.0]])) == 0.5
    assert dormant_density(torch.tensor([[0.0, 1.0, -0.2, 0.0]]), 0.3) == 0.75


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.99, 1.0])
def test_the_quantile_threshold_removes_the_share_but_never_everything(share: float) -> None:
    heat = torch.stack([torch.arange(12.0).reshape(3, 2, 2), torch.zeros(3, 2, 2)])
    threshold = quantile_threshold(heat, share)
    removed = int((~fuse(bitmap(heat, threshold))).sum())
    assert removed == min(int(share * 12), 11)


@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (3, 5, 7), (64, 1, 1), (2, 4, 4)])
def test_pack_round_trip(shape: tuple[int, ...]) -> None:
    bits = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    packed = pack({"layer1.0:relu#2": bits, "other": ~bits})
    assert packed["other"].numel() == math.ceil(bits.numel() / 8)
    back = unpack(packed)
    assert set(back) == {"layer1.0:relu#2", "other"}
    assert torch.equal(back["layer1.0:relu#2"], bits)
    assert torch.equal(back["other"], ~bits)


def test_the_first_neuron_is_the_most_significant_bit() -> None:
    assert pack({"a": torch.tensor([True] + [False] * 8)})["a"].tolist() == [128, 0]
