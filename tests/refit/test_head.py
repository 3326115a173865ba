"""Fitting the last layer to labels: the regression that others make, honest of its own images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from architectures import ARCHITECTURES, SIDE
from cases import random, with_images
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.graph.operators import Node
from distillnet.refit.compensation import refit
from distillnet.refit.head import RIDGE, FittedHead, Head, Labels, fit_head, head_of
from distillnet.refit.teacher import teach
from plans import check_plan, deviation, random_plan, scores

CLASSES = (1, 3, 4)
# Scores that are not each a row of weights of one layer's own.
UNFITTED = {
    "scores from a shared layer",
    "scores made of scores",
    "scores through local response norm",
    "two heads",
}


class Two(nn.Module):
    """Scores that come from two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) + self.b(x).relu()).mean((2, 3))


def last_layer(weight: Tensor) -> Head:
    """A linear layer that is a network by itself."""
    rows, columns = weight.shape
    layer = Node("last", "linear", ("x",), (rows,), params={"weight": "w", "bias": "b"})
    params = {"w": weight, "b": weight.new_zeros(rows)}
    head = head_of(Graph((Node("x", "input", (), (columns,)), layer), params, "last"), CLASSES)
    assert head is not None
    return head


def clouds(n: int, features: int, apart: float) -> tuple[Tensor, Tensor]:
    """Images of three classes by turns, as their features (N, F), and their labels (N,)."""
    of_n = torch.arange(n) % 3
    centres = random(3, features, seed=1)
    return random(n, features, seed=2) + apart * centres[of_n], of_n


def fit(head: Head, x_nf: Tensor, of_n: Tensor) -> FittedHead:
    """The rows that a head starts from are the same whoever is left out."""
    weight, bias = (p[list(CLASSES)] for p in head.whole.params.values())
    return fit_head(
        head, x_nf, Labels(of_n, CLASSES, torch.arange(len(of_n))), lambda held_n: (weight, bias)
    )


def test_the_regression_is_that_of_scikit_learn() -> None:
    """From weights of zero; the bias is the weight of one feature more, as its ridge asks for."""
    x_nf, of_n = clouds(60, 6, apart=1.0)
    x_nf[:, 0] += 2.0
    fitted = fit(last_layer(torch.zeros(5, 6).double()), x_nf, of_n).rows
    assert fitted is not None
    variance = float(x_nf.var(0, correction=0).mean())
    with_one = np.hstack([x_nf.numpy(), np.full((60, 1), variance**0.5)])
    # scikit-learn's loss: C x sum of cross-entropies + |w|^2 / 2
    c = 1 / (2 * RIDGE * variance * len(x_nf))
    theirs = LogisticRegression(C=c, fit_intercept=False, tol=1e-8, max_iter=10_000)
    theirs.fit(with_one, of_n.numpy())
    ours = torch.hstack([fitted[0], fitted[1][:, None] / variance**0.5]).numpy()
    assert ours == pytest.approx(theirs.coef_, abs=1e-3)


def test_labels_are_left_alone_where_the_original_tells_more() -> None:
    """Weights that are right for certain, of which few images with many features know little."""
    weight_kf = random(5, 50, seed=3)
    x_nf = random(60, 50, seed=4)
    of_n = (x_nf @ weight_kf[list(CLASSES)].T).argmax(1)
    faint = fit(last_layer(0.001 * weight_kf), x_nf, of_n)
    assert faint.rows is None
    assert bool((faint.unseen_nk.argmax(1) == of_n).all())


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6, 1e20])
def test_few_images_and_features_of_any_size_leave_numbers(n: int, scale: float) -> None:
    x_nf = scale * random(n, 6, seed=5).float()
    fitted = fit(last_layer(random(5, 6, seed=6).float()), x_nf, torch.arange(n) % 3)
    assert bool(fitted.unseen_nk.isfinite().all())
    assert all(bool(tensor.isfinite().all()) for tensor in fitted.rows or ())


@pytest.mark.parametrize(("apart", "least", "most"), [(0.0, 0.1, 0.6), (1.0, 0.95, 1.0)])
def test_images_are_judged_by_regressions_without_them(
    apart: float, least: float, most: float
) -> None:
    """Sixty images of two hundred features are told apart by heart, whether or not they differ."""
    x_nf, of_n = clouds(60, 200, apart)
    fitted = fit(last_layer(torch.zeros(5, 200).double()), x_nf, of_n)
    assert fitted.rows is not None
    weight, bias = fitted.rows
    assert bool(((x_nf @ weight.T + bias).argmax(1) == of_n).all())
    assert least <= float((fitted.unseen_nk.argmax(1) == of_n).double().mean()) <= most


@pytest.mark.parametrize(("told", "least", "most"), [(True, 0.1, 0.6), (False, 0.7, 1.0)])
def test_views_of_one_image_are_left_out_together(told: bool, least: float, most: float) -> None:
    """Labels mean nothing here: only who saw another view of an image can know its label."""
    x_nf, of_n = clouds(60, 200, apart=0.0)
    views = torch.cat([x_nf, x_nf + 0.01 * random(60, 200, seed=7)])
    others = torch.randperm(120, generator=torch.Generator().manual_seed(8))
    image_n = torch.arange(60).repeat(2) if told else others
    of_n = of_n.repeat(2)
    head = last_layer(torch.zeros(5, 200).double())
    nothing = torch.zeros(3, 200).double(), torch.zeros(3).double()
    fitted = fit_head(head, views, Labels(of_n, CLASSES, image_n), lambda held_n: nothing)
    assert least <= float((fitted.unseen_nk.argmax(1) == of_n).double().mean()) <= most


@pytest.mark.parametrize("apart", [0.0, 0.2, 0.5])
def test_the_same_view_three_times_tells_as_much_as_once(apart: float) -> None:
    """Neither the fit nor whether labels are of use counts an image more often for its views."""
    x_nf, of_n = clouds(60, 30, apart)
    head = last_layer(0.2 * random(5, 30, seed=11).double())
    once = fit(head, x_nf, of_n)
    weight, bias = (p[list(CLASSES)] for p in head.whole.params.values())
    labels = Labels(of_n.repeat(3), CLASSES, torch.arange(60).repeat(3))
    thrice = fit_head(head, x_nf.repeat(3, 1), labels, lambda held_n: (weight, bias))
    assert (once.rows is None) == (thrice.rows is None)
    assert torch.allclose(once.unseen_nk.repeat(3, 1), thrice.unseen_nk, atol=1e-6)


def test_who_is_judged_did_not_fit() -> None:
    """Two images of one class change places, and so folds: only both folds are judged by others."""
    x_nf, of_n = clouds(60, 6, apart=0.5)
    other = x_nf.clone()
    other[[0, 3]] = x_nf[[3, 0]]
    head = last_layer(torch.zeros(5, 6).double())
    before, after = (fit(head, x, of_n).unseen_nk for x in (x_nf, other))
    same = torch.isclose(before, after, atol=1e-4).all(1)
    assert int(same.sum()) == 60 - 2 * 60 // 5


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_structures_last_layer_is_fitted_or_left_alone(name: str) -> None:
    """Masked equals compact, other scores stay, classes that differ in colour are told better."""
    graph, channels, _ = with_images(name)
    of_n = torch.arange(60) % 3
    x = random(60, 3, SIDE, SIDE, seed=1) + 2 * random(3, 3, 1, 1, seed=2)[of_n]
    teacher = teach(graph, graph, x, max_bytes=10**7)
    plan = random_plan(graph, channels, "channels", 0)
    assert plan.outputs is not None
    own = list(plan.outputs)
    labels = Labels(of_n, plan.outputs, torch.arange(len(of_n)))
    plain, _ = refit(graph, channels, plan, teacher, x)
    fitted, said = refit(graph, channels, plan, teacher, x, labels=labels)
    check_plan(fitted, analyse(fitted), plan, x)
    assert said.shape == scores(fitted, x).shape
    others = [k for k in range(said.shape[1]) if k not in own]
    before, after = (scores(mask(g, Plan(plan.keep)), x) for g in (plain, fitted))
    assert deviation(after[:, others], before[:, others]) < 1e-6
    assert deviation(said[:, others], before[:, others]) < 1e-6
    if deviation(after, before) < 1e-6:
        assert name in UNFITTED
    else:
        told, before_told = (F.cross_entropy(y[:, own], of_n) for y in (after, before))
        assert told < before_told


@pytest.mark.parametrize("known", [False, True])
def test_where_images_are_too_many_for_memory_the_first_ones_teach(known: bool) -> None:
    """Of 60 images 32 do. Of those that the network was trained on nothing is held out."""
    graph, channels, _ = with_images("chain")
    of_n = torch.arange(60) % 3
    x = random(60, 3, SIDE, SIDE, seed=1) + 2 * random(3, 3, 1, 1, seed=2)[of_n]
    teacher = teach(graph, graph, x, max_bytes=10**7)
    labels = Labels(of_n, (0, 1, 2), torch.arange(len(of_n)), known=known)
    plain, _ = refit(graph, channels, Plan(), teacher, x, max_bytes=1)
    fitted, said = refit(graph, channels, Plan(), teacher, x, labels=labels, max_bytes=1)
    before, now = scores(plain, x), scores(fitted, x)
    assert deviation(now, before) > 1e-3
    if known:
        assert deviation(said, before) < 1e-6
    else:
        assert deviation(said[32:], now[32:]) < 1e-6
        assert deviation(said[:32], now[:32]) > 1e-3


def test_what_two_layers_say_is_left_alone() -> None:
    assert head_of(capture(Two(), (8, 8)), CLASSES) is None
