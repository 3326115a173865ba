"""Views of few images: what they show, where they are of use, and that they are no more images."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillnet.classes import Mission
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.refit.samples import folds_of
from distillnet.search import Budget, Judge, Sized
from distillnet.search.candidates import Workshop
from distillnet.search.roles import assign_roles
from distillnet.search.views import draw_moves, look, moved
from small_network import MISSION, Small, find, random


def _move(*rows: tuple[float, float, float], n: int = 3) -> Tensor:
    return torch.tensor(rows).expand(n, 2, 3)


def _nearer(x_nchw: Tensor) -> Tensor:
    """The middle half of an image, by torch's own resize."""
    return F.interpolate(x_nchw, scale_factor=2, mode="bilinear")[:, :, 16:-16, 16:-16]


@pytest.mark.parametrize(
    ("move_n", "expected"),
    [
        (_move((1, 0, 0), (0, 1, 0)), lambda x: x),
        (_move((-1, 0, 0), (0, 1, 0)), lambda x: x.flip(3)),
        (_move((0, 1, 0), (-1, 0, 0)), lambda x: torch.rot90(x, -1, (2, 3))),
        (_move((1, 0, 2 / 32), (0, 1, 0)), lambda x: torch.cat([x[..., 1:], x[..., -1:]], 3)),
        (_move((0.5, 0, 0), (0, 0.5, 0)), _nearer),
    ],
    ids=["as-it-is", "mirrored", "turned", "shifted", "nearer"],
)
def test_moves_are_those_that_slicing_and_resizing_make(move_n: Tensor, expected) -> None:
    x_nchw = random(3, 3, 32, 32)
    assert torch.allclose(moved(x_nchw, move_n), expected(x_nchw), atol=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
def test_drawn_moves_keep_shapes_and_stay_near(mirror: bool) -> None:
    """Turned, scaled alike in both directions, mirrored where that may be, moved a little."""
    move_n = draw_moves(400, mirror=mirror, seed=3)
    square, shift = move_n[:, :, :2], move_n[:, :, 2]
    area = torch.linalg.det(square)
    size = area.abs().sqrt()
    same = square.transpose(1, 2) @ square / area.abs()[:, None, None]
    assert torch.allclose(same, torch.eye(2).expand_as(same), atol=1e-5)
    assert 1 / 1.25 - 1e-5 <= float(size.min()) < 0.85 < 1.05 < float(size.max()) <= 1 / 0.9 + 1e-5
    assert 0.07 < float(shift.abs().max()) <= 0.08
    assert float((area < 0).double().mean()) == (pytest.approx(0.5, abs=0.1) if mirror else 0.0)
    assert torch.equal(move_n, draw_moves(400, mirror=mirror, seed=3))
    assert not torch.equal(move_n, draw_moves(400, mirror=mirror, seed=4))


def _symmetric() -> nn.Module:
    """A network that says the same of an image and its mirror image."""
    torch.manual_seed(1)
    net = Small().eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = (layer.weight.data + layer.weight.data.flip(3)) / 2
    return net


class Sided(nn.Module):
    """Tells on which side an image is bright: 0 on the left, 1 on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 1), nn.Linear(2 * 16 * 16, 2)
        self.conv.weight.data.fill_(1 / 3)
        self.conv.bias.data.zero_()
        side = torch.linspace(1, -1, 16).expand(2, 16, 16).flatten()
        self.fc.weight.data = torch.stack([side, -side]) / 50
        self.fc.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).flatten(1))


def _sized(net: nn.Module, x_nchw: Tensor, n_statistics: int) -> Sized:
    graph = capture(net, (16, 16))
    return Sized(graph, analyse(graph), x_nchw, n_statistics)


def _blobs(n: int) -> tuple[Tensor, Tensor]:
    """Images that are bright on one side, and on which."""
    of_n = torch.arange(n) % 2
    x_nchw = 0.1 * random(n, 3, 16, 16)
    for image, side in zip(x_nchw, of_n, strict=True):
        image[:, 3:13, slice(9, 15) if side else slice(1, 7)] += 1.0
    return x_nchw, of_n


@pytest.mark.parametrize("alike", [True, False])
def test_views_are_those_that_the_original_takes_for_the_same(alike: bool) -> None:
    x_nchw, of_n = _blobs(50)
    sided = _sized(Sided(), x_nchw, 20)
    mission = Mission((0, 1), ("left", "right"))
    views = look(sided, of_n if alike else of_n[20:], mission)
    # Mirrored, each image shows the other side; moved a little, the same.
    assert len(views.moves) == 3
    assert all(bool((torch.linalg.det(move[:, :, :2]) > 0).all()) for move in views.moves)
    pictures = views.at(sided)
    assert (pictures.views, pictures.n_statistics, len(pictures.x_nchw)) == (4, 80, 200)
    assert torch.equal(pictures.image_n[:40], torch.arange(20).repeat(2))
    labelled = slice(0 if alike else 80, None)
    assert torch.equal(views.labels_n, of_n[pictures.image_n][labelled])
    said = masked_scores(pictures.graph, pictures.x_nchw[labelled], {})
    assert torch.allclose(said, views.scores_nk, atol=1e-5)
    assert torch.equal(said.argmax(1), views.labels_n)


def test_mirror_images_are_of_use_to_a_network_that_takes_them_for_the_same() -> None:
    sized = _sized(_symmetric(), random(400, 3, 16, 16), 200)
    of_n = masked_scores(sized.graph, sized.x_nchw, {})[:, list(MISSION.indices)].argmax(1)
    (move_n,) = look(sized, of_n, MISSION).moves  # no more than 1,000 pictures
    assert torch.allclose(moved(sized.x_nchw, move_n), sized.x_nchw.flip(3), atol=1e-5)
    assert look(sized, of_n, MISSION, more=False).at(sized) is sized
    many = replace(sized, x_nchw=sized.x_nchw.repeat(2, 1, 1, 1))
    assert not look(many, of_n.repeat(2), MISSION).moves


def test_views_are_no_more_images_than_there_are() -> None:
    """Twice the same is no more evidence than once."""
    before, after = 3 * random(60, 5, seed=1), 3 * random(60, 5, seed=2)
    of_n = torch.arange(60) % 3
    once = Judge(before, of_n, MISSION).verdict(after)
    thrice = Judge(before.repeat(3, 1), of_n.repeat(3), MISSION, torch.arange(60).repeat(3))
    twice = asdict(thrice.verdict(after.repeat(3, 1)))
    assert twice == {name: pytest.approx(value) for name, value in asdict(once).items()}


def test_views_of_an_image_are_judged_by_weights_that_saw_none_of_them() -> None:
    image_n = torch.randperm(60, generator=torch.Generator().manual_seed(0)).repeat(3)
    folds = folds_of(image_n, 5)
    assert torch.bincount(folds).tolist() == [36] * 5
    assert all(len(folds[image_n == image].unique()) == 1 for image in range(60))


@pytest.mark.parametrize("per_class", [15, 30, 31, 40, 62])
@pytest.mark.parametrize("classes", [2, 5, 10])
def test_folds_hold_as_many_of_each_class(classes: int, per_class: int) -> None:
    """As a workshop numbers images: class by class, statistics images first, and mixes them."""
    first = per_class // 2
    of_n = torch.cat(
        [torch.arange(classes).repeat_interleave(n) for n in (first, per_class - first)]
    )
    roles = assign_roles(len(of_n), classes * first, alike=True)
    folds = folds_of(torch.arange(len(of_n)), 5)
    assert sorted(roles.fit.tolist()) == list(range(len(of_n)))
    for c in range(classes):
        counts = torch.bincount(folds[of_n == c], minlength=5)
        assert int(counts.max() - counts.min()) <= 2


@pytest.mark.parametrize(("net", "judging"), [(_symmetric(), 2), (Sided(), 1)])
def test_moved_views_teach_and_do_not_judge(net: nn.Module, judging: int) -> None:
    if judging == 2:
        x_nchw, mission = random(60, 3, 16, 16), MISSION
        of_n = net(x_nchw)[:, list(mission.indices)].argmax(1)
    else:
        (x_nchw, of_n), mission = _blobs(60), Mission((0, 1), ("left", "right"))
    sized = _sized(net, x_nchw, 20)
    workshop = Workshop(lambda size: sized, (16, 16), mission, of_n)
    views = workshop.original.views
    assert workshop.n_fitted == 60
    assert len(workshop.roles.judge) == judging * 60
    assert len(workshop.roles.fit.unique()) == views * 60
    assert workshop.original.view_n[workshop.roles.judge].unique().tolist() == list(range(judging))
    assert torch.equal(workshop.judge.labels_n, of_n[workshop.judge.image_n])


@pytest.mark.slow
def test_a_search_counts_images_and_not_views() -> None:
    net = _symmetric()
    with torch.inference_mode():
        of_n = net(random(150, 3, 16, 16, seed=3))[:, list(MISSION.indices)].argmax(1)
    budget = Budget(10.0)
    plain, more = (find(net, of_n, budget, more_views=more) for more in (False, True))
    assert plain.verdict.n_images == more.verdict.n_images == 150
    assert plain.verdict != more.verdict
