"""Which classes keep which filters alive: against the network's own gradients and outputs."""

from pathlib import Path

import pytest
import torch

from atlases import N_CLASSES, atlas_of, model, pictures
from distillnet.errors import InputError
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture_model
from distillnet.images import load_batches, open_images
from distillnet.missions.files import MissionAtlas
from distillnet.missions.keeping import keepers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("photos") / "photos", 12)


@pytest.fixture(scope="module")
def atlas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MissionAtlas:
    return atlas_of(folder, tmp_path_factory.mktemp("atlas") / "atlas")


def _damage(graph: Graph, layer: str, folder: Path, label: int) -> torch.Tensor:
    """Var(output) E[sum g^2] over all places of a class's images, by autograd."""
    images = open_images(folder, model().classes).train.select([label])
    (batch,) = load_batches(images, model().preprocessing, batch_size=50)
    seen: dict[str, torch.Tensor] = {}
    x = batch.x_nchw.requires_grad_()
    y = run(graph, {graph.input.name: x}, observe=seen.__setitem__)[graph.output]
    (g,) = torch.autograd.grad((y[:, label] - y.mean(1)).sum(), [seen[layer]])
    felt = g.flatten(2).square().sum(2).mean(0) if g.ndim == 4 else g.square().mean(0)
    out = seen[layer].detach().transpose(0, 1).flatten(1)
    return out.var(1, correction=0) * felt


def test_it_is_what_the_network_says_of_all_places(atlas: MissionAtlas, folder: Path) -> None:
    graph = capture_model(model())
    for found in keepers(graph, atlas, range(N_CLASSES)):
        for label in range(N_CLASSES):
            want = _damage(graph, found.layer, folder, label).double()
            want /= want.sum()
            # 240 places of 12 images instead of all 3,072.
            torch.testing.assert_close(found.damage_km[label], want, rtol=0.4, atol=0.02)


def test_a_class_keeps_the_fewest_filters_that_make_up_the_share(atlas: MissionAtlas) -> None:
    graph = capture_model(model())
    for found in keepers(graph, atlas, [0, 2], share=0.8):
        for damage, keeps in zip(found.damage_km, found.keeps_km, strict=True):
            kept = damage[keeps]
            assert kept.sum() >= 0.8 - 1e-9
            assert kept.sum() - kept.min() < 0.8  # without the least of them it is not enough
            assert (~keeps).sum() == 0 or kept.min() >= damage[~keeps].max()
        assert found.by_one + found.by_all + found.by_none == found.keeps_km.shape[1]


def test_a_dead_filter_is_kept_by_nobody_and_comes_last(tmp_path: Path) -> None:
    network = model()
    with torch.no_grad():
        network.module[3].weight[5] = 0
    photos = pictures(tmp_path / "photos", 12)
    dead = atlas_of(photos, tmp_path / "atlas", network=network)
    found = {one.layer: one for one in keepers(capture_model(network), dead, [0, 1], share=1.0)}
    assert not found["3"].keeps_km[:, 5].any()
    assert found["3"].by_none >= 1
    assert found["3"].rank(0, 5) == 1 + found["3"].keeps_km[0].sum()


def test_what_is_not_there_is_refused(atlas: MissionAtlas) -> None:
    graph = capture_model(model())
    with pytest.raises(InputError, match="found layer 'conv9'; expected one of 0, 3, 5"):
        keepers(graph, atlas, [0], layers=["conv9"])
    with pytest.raises(InputError, match="no images of class 7"):
        keepers(graph, atlas, [0, 7])
    with pytest.raises(InputError, match="expected 0 to 15"):
        keepers(graph, atlas, [0], layers=["3"])[0].check_filter(16)
