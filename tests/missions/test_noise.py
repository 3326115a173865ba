"""Noise in sums: no image moves them farther than is said, and chance is what it should be."""

import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from atlases import N_CLASSES, SIDE, atlas_of, model, pictures
from distillnet.atlas import open_atlas
from distillnet.cli.main import app
from distillnet.errors import InputError
from distillnet.files.manifest import read_manifest
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import open_images
from distillnet.job.options import Options
from distillnet.missions.files import open_mission_atlas
from distillnet.missions.noise import (
    NOISE,
    Layout,
    SumVectors,
    add_noisy,
    collect_noisy,
    epsilon_of,
    noisy_atlas,
    read_noise,
    rho_for,
)
from distillnet.missions.noise.gaussian import check_epsilon, discrete_gaussian, variance_for
from distillnet.missions.noise.vectors import UNIT


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-9, 1.0, 1e9, 1e300, math.inf, math.nan])
def test_no_vector_is_longer_than_is_said(scale: float) -> None:
    draw = np.random.default_rng(0)
    layout = Layout({"a": 1, "b": 7, "c": 1000})
    for _ in range(200):
        means = {s: draw.normal(size=n) * draw.choice([scale, 1.0], n)
                 for s, n in layout.widths.items()}  # fmt: skip
        vector = layout.integers(means).astype(object)
        assert sum(x * x for x in vector) <= layout.squared_sensitivity
        at = 0
        for n in layout.widths.values():
            assert sum(x * x for x in vector[at : at + n]) <= UNIT**2
            at += n


def test_sums_of_neighbouring_sets_differ_by_one_image_alone() -> None:
    network = model()
    graph = capture_model(network)
    looking = SumVectors(graph, analyse(graph))
    x = 50 * torch.randn(9, 3, SIDE, SIDE)
    x[3] = 1e20
    vectors = [looking.of(image[None]) for image in x]
    again = [looking.of(image[None]) for image in x.flip(0)][::-1]
    for out in range(len(x)):
        with_it = sum(vectors)
        without = sum(v for i, v in enumerate(again) if i != out)
        away = (with_it - without).astype(object)
        assert 0 < sum(d * d for d in away) <= looking.layout.squared_sensitivity


@pytest.mark.parametrize("variance", [1, 4, 30])
def test_draws_are_of_the_discrete_gaussian(variance: int) -> None:
    below, n = Random(7).randrange, 20_000
    drawn = np.array([discrete_gaussian(variance, below) for _ in range(n)])
    most = int(3 * variance**0.5)
    x = np.arange(-10 * most, 10 * most + 1)
    p = np.exp(-(x**2) / (2 * variance))
    p /= p.sum()
    found = [(drawn == k).sum() for k in range(-most, most + 1)]
    expected = [n * p[x == k].item() for k in range(-most, most + 1)]
    of, wanted = np.array([*found, n - sum(found)]), np.array([*expected, n - sum(expected)])
    chi_squared, freedom = float(((of - wanted) ** 2 / wanted).sum()), len(of) - 1
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 4.0, 16.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_noise_keeps_epsilon_and_delta(epsilon: float, delta: float) -> None:
    """By the definition, summed over all integers; and not with far more noise than it takes."""
    rho = rho_for(epsilon, delta)
    assert epsilon_of(rho, delta) <= epsilon
    change = 20

    def exact(variance: int) -> float:
        x = np.arange(-40 * int(variance**0.5) - 40, 40 * int(variance**0.5) + 40)
        p, q = (np.exp(-((x - at) ** 2) / (2 * variance)) for at in (0, change))
        return float(np.maximum(0, p / p.sum() - math.exp(epsilon) * q / q.sum()).sum())

    variance = variance_for(change**2, rho)
    assert exact(variance) <= delta
    assert exact(variance // 2) > delta


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    root = tmp_path_factory.mktemp("noisy")
    data = pictures(root / "data", 12)
    folders = []
    for name, epsilon in (("one", 500.0), ("two", 50.0)):
        folder = root / name
        folder.mkdir()
        network = model()
        images = open_images(data, network.classes).train
        collect_noisy(network, images, folder, epsilon, 1e-6, Options(batch_size=4))
        folders.append(folder)
    return data, folders[0], folders[1]


def test_an_atlas_with_noise_holds_noisy_sums_alone(noisy: tuple[Path, Path, Path]) -> None:
    data, folder, _ = noisy
    network = model()
    graph = capture_model(network)
    channels = analyse(graph)
    files = set(read_manifest(folder).files)
    assert files == {"atlas.json", NOISE, *(f"{c}.safetensors" for c in range(N_CLASSES))}
    assert json.loads((folder / "atlas.json").read_text())["images"] == []
    atlas, looking = open_atlas(folder), SumVectors(graph, channels)
    exact = dict.fromkeys(range(N_CLASSES), 0)
    images = open_images(data, network.classes).train
    for batch in Options(batch_size=1).batches(images, network.preprocessing):
        exact[int(batch.labels_n[0])] += looking.of(batch.x_nchw)
    note = read_noise(folder)
    assert note is not None
    for c, total in exact.items():
        assert abs(atlas.counts[c] - 12) <= 5 * note.deviation + 1
        count, heat = looking.layout.heat(total)
        assert count == 12
        for site, values in heat.items():
            found = atlas.heat(site, [c])[0]
            assert found.shape == graph[site].shape
            flat = found.reshape(len(found), -1)
            assert torch.equal(flat, flat[:, :1].expand_as(flat))
            assert (
                flat[:, 0] * atlas.counts[c] / 12 - values
            ).abs().max() < 6 * note.deviation / 12
            assert not torch.equal(flat[:, 0], values)


def test_two_passes_have_other_noise(noisy: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, folder, _ = noisy
    network = model()
    images = open_images(data, network.classes).train
    collect_noisy(network, images, tmp_path, 500.0, 1e-6, Options())
    one, two = open_atlas(folder), open_atlas(tmp_path)
    site = one.sites[0]
    assert not torch.equal(one.heat(site, [0]), two.heat(site, [0]))


def test_atlases_with_noise_add_up(noisy: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, *folders = noisy
    merged = add_noisy(folders, tmp_path)
    one, two = (open_atlas(folder) for folder in folders)
    for c in range(N_CLASSES):
        n = one.counts[c], two.counts[c]
        assert merged.counts[c] == sum(n)
        for site in one.sites:
            wanted = (n[0] * one.heat(site, [c]) + n[1] * two.heat(site, [c])) / sum(n)
            torch.testing.assert_close(merged.heat(site, [c]), wanted)
    note, (a, b) = read_noise(tmp_path), [read_noise(folder) for folder in folders]
    assert note is not None
    assert a is not None
    assert b is not None
    assert (note.epsilon, note.parts) == (500.0, 2)
    assert note.deviation == pytest.approx(math.hypot(a.deviation, b.deviation))


def test_what_has_no_samples_is_refused_where_they_are_needed(
    noisy: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    data, folder, _ = noisy
    with pytest.raises(InputError, match=r"noise of epsilon 500.*no samples"):
        open_mission_atlas(folder)
    plain = atlas_of(data, tmp_path / "plain").directory
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="no noise in it"):
        add_noisy([folder, plain], tmp_path / "out")
    text = (folder / NOISE).read_text()
    (folder / NOISE).write_text(text.replace("500.0", "1.0"))
    with pytest.raises(InputError, match="noise"):
        read_noise(folder)
    (folder / NOISE).write_text(text)


def test_classes_of_few_images_are_left_out_by_the_noisy_count(tmp_path: Path) -> None:
    network = model()
    graph = capture_model(network)
    channels = analyse(graph)
    vector = Layout.of(graph, channels).integers(
        {site: np.ones(n) for site, n in Layout.of(graph, channels).widths.items()}
    )
    sums = {0: 100 * vector, 1: 5 * vector}
    below = Random(3).randrange
    atlas = noisy_atlas(network, graph, channels, sums, tmp_path, 500.0, 1e-6, 50, below)
    assert set(atlas.counts) == {0}
    with pytest.raises(InputError, match="no class has 1000 images"):
        noisy_atlas(network, graph, channels, sums, tmp_path, 500.0, 1e-6, 1000, below)


def test_more_noise_than_there_are_numbers_for_is_refused_before_the_pass(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 1)
    network = model()
    images = open_images(data, network.classes).train
    with pytest.raises(InputError, match=r"found --noise 1e-06; .* expected 0\.000"):
        collect_noisy(network, images, tmp_path, 1e-6, 1e-6, Options(), on_progress=_never)
    check_epsilon(0.01, 1e-6)


def _never(stage: str, done: int, of: int) -> None:
    raise AssertionError("an image was read")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--samples", "10"], "values of single images"),
        (["--resume"], "Leave out"),
        (["--delta", "2"], "1e-12 to 0.1"),
    ],
)
def test_noise_is_refused_with_what_it_does_not_protect(
    tmp_path: Path, more: list[str], told: str
) -> None:
    data = pictures(tmp_path / "data", 1)
    command = ["collect", "torchvision:squeezenet1_0", "--data", str(data), "--noise", "8"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), *more])
    assert done.exit_code != 0
    assert told in str(done.exception) + done.output
    assert not (tmp_path / "out").exists()
