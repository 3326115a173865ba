"""Streamed statistics against naive means in float64."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from architectures import SIDE, build
from distillnet import atlas as atlas_module
from distillnet.atlas import Atlas, collect, open_atlas
from distillnet.errors import InputError
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse
from distillnet.images import Batch

LABELS = torch.tensor([7] * 9 + [2] * 5 + [30] + [11] * 6)


@pytest.fixture(scope="module")
def net() -> tuple[Graph, Channels]:
    graph = capture(build("residual through concat").float(), (SIDE, SIDE))
    return graph, analyse(graph)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(21, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def _batches(x: Tensor, size: int) -> Iterable[Batch]:
    for part, labels in zip(x.split(size), LABELS.split(size), strict=True):
        yield Batch(part, labels, ())


def _collect(net: tuple[Graph, Channels], x: Tensor, size: int, path: Path) -> Atlas:
    path.mkdir()
    return collect(*net, _batches(x, size), path, model="m", weights_sha256="0" * 64)


@pytest.mark.parametrize("size", [1, 3, 7, 32])
def test_heat_and_variance_equal_naive_means(
    net: tuple[Graph, Channels], images: Tensor, size: int, tmp_path: Path
) -> None:
    graph, channels = net
    atlas = _collect(net, images, size, tmp_path / "atlas")
    assert atlas.counts == {7: 9, 2: 5, 30: 1, 11: 6}
    wide = graph.to(torch.float64)
    values = run(wide, {wide.input.name: images.double()}, channels.sites)
    classes = (11, 30, 7)
    for site in channels.sites:
        per_class = [values[site][label == LABELS].numpy() for label in classes]
        for found, want in (
            (atlas.heat(site, classes), [v.mean(0) for v in per_class]),
            (atlas.variance(site, classes), [v.var(0) for v in per_class]),
        ):
            assert found.dtype == torch.float32
            scale = np.abs(values[site].numpy()).max() ** 2 + 1
            np.testing.assert_allclose(found.numpy(), np.stack(want), rtol=1e-5, atol=1e-6 * scale)
    assert open_atlas(tmp_path / "atlas") == atlas


@pytest.mark.parametrize("size", [1, 3, 21])
def test_small_variance_of_a_large_mean_is_not_lost(size: int, tmp_path: Path) -> None:
    layer = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(300.0)  # type: ignore[union-attr]
    graph = capture(nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)), (2, 2),
                    channels=1)  # fmt: skip
    x = 0.1 * torch.rand(21, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    batches = [Batch(part, torch.zeros(len(part), dtype=torch.int64), ()) for part in x.split(size)]
    channels = analyse(graph)
    atlas = collect(graph, channels, batches, tmp_path, model="m", weights_sha256="0" * 64)
    found = atlas.variance(channels.sites[0], [0])[0]
    want = (x + 300.0).double().var(0, correction=0)  # of what float32 makes of the outputs
    np.testing.assert_allclose(found.double().numpy(), want.numpy(), rtol=1e-5)


def test_the_accumulator_takes_16_bytes_a_neuron(net: tuple[Graph, Channels]) -> None:
    graph, channels = net
    moments = atlas_module.Moments(graph, channels.sites, torch.device("cpu"))
    held = [*moments.mean.values(), *moments.square.values()]
    neurons = sum(int(np.prod(graph[site].shape)) for site in channels.sites)
    assert sum(t.numel() * t.element_size() for t in held) == 16 * neurons


def test_nan_is_refused_with_site_and_class(
    net: tuple[Graph, Channels], images: Tensor, tmp_path: Path
) -> None:
    bad = images.clone()
    bad[11, 0, 3, 3] = torch.nan
    with pytest.raises(InputError, match=r"not finite on images of class 2"):
        _collect(net, bad, 4, tmp_path / "atlas")


def test_classes_must_be_together(net: tuple[Graph, Channels], tmp_path: Path) -> None:
    x = torch.zeros(3, 3, SIDE, SIDE)
    batch = Batch(x, torch.tensor([1, 2, 1]), ())
    with pytest.raises(ValueError, match="class 1 are not together"):
        collect(*net, [batch], tmp_path, model="m", weights_sha256="0" * 64)


@pytest.mark.parametrize(
    "text",
    [
        None, "", "{", "[]", "null", "7", '{"format": 1}', '{"format": 99}',
        '{"format": 1, "model": "m", "weights_sha256": "s", "input_size": [1], "sites": [],'
        ' "counts": {}}',
        '{"format": 1, "model": "m", "weights_sha256": "s", "input_size": [1, 1], "sites": [],'
        ' "counts": []}',
        '{"format": 1, "model": "m", "weights_sha256": "s", "input_size": [1, 1], "sites": [],'
        ' "counts": {"cat": 1}}',
    ],
)  # fmt: skip
def test_what_is_no_atlas_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "atlas.json").write_text(text)
    with pytest.raises(InputError, match="atlas"):
        open_atlas(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_broken_statistics_are_refused(
    damage: str, net: tuple[Graph, Channels], images: Tensor, tmp_path: Path
) -> None:
    atlas = _collect(net, images, 8, tmp_path / "atlas")
    path = tmp_path / "atlas" / "2.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"2\.safetensors"):
        atlas.heat(atlas.sites[0], [7, 2])
    with pytest.raises(InputError, match="no_such_site"):
        atlas.heat("no_such_site", [7])
