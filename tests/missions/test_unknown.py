"""The rule for unknown images: what it learns, where its threshold lies, what a file may hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from torch import nn

import distillnet as dn
from distillnet.classes import Mission, numbered_table
from distillnet.errors import ImageError, InputError, UnsupportedError
from distillnet.graph import GraphModule, run
from distillnet.graph.capture import capture
from distillnet.missions.unknown import (
    RULE,
    Rule,
    area_under_roc,
    fit_unknown,
    open_strangers,
    read_rule,
    regression,
    with_unknown,
    write_rule,
)
from distillnet.missions.unknown.features import Measured, feature_of, measure
from distillnet.missions.unknown.operating import false_accepts_at, operating_point


def _blobs(kinds: int, n: int, seed: int, far: float = 3.0, features: int = 12) -> Measured:
    """Kinds of images around centres of their own; the scores are of the first three."""
    draw = torch.Generator().manual_seed(seed)
    centres = far * torch.randn(8, features, generator=torch.Generator().manual_seed(7)).double()
    labels = torch.arange(kinds).repeat_interleave(n) + (0 if seed < 10 else 3)
    x = centres[labels] + torch.randn(len(labels), features, generator=draw).double()
    return Measured(x, x @ centres[:3].T / 10, labels - (0 if seed < 10 else 3))


def test_the_fit_is_the_minimum_that_another_optimiser_finds() -> None:
    known, unknown = _blobs(3, 30, 1, far=0.5), _blobs(2, 40, 11, far=0.5)
    rule = regression.fit(known, unknown)
    x = torch.cat([known.features_nf, unknown.features_nf]).numpy()
    y = torch.cat([known.scores_nk, unknown.scores_nk]).numpy()
    target = np.r_[known.labels_n.numpy(), np.full(80, 3)]
    w = np.r_[np.full(90, 1 / 180), np.full(80, 1 / 160)]
    mean = w @ x
    deviation = np.sqrt(w @ (x - mean) ** 2)
    scale = (deviation + 0.05 * deviation.mean()) * np.sqrt(12)

    def loss(theta: np.ndarray) -> float:
        z = np.c_[y * theta[-1], (x - mean) / scale @ theta[:12] + theta[12]]
        logs = (
            z
            - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True))
            - z.max(1, keepdims=True)
        )
        return -w @ logs[np.arange(len(z)), target] + regression._RIDGE * (theta[:12] ** 2).sum()

    best = minimize(loss, np.r_[np.zeros(13), 1.0], method="BFGS", options={"gtol": 1e-9})
    weight = best.x[:12] / scale
    torch.testing.assert_close(torch.tensor(rule.weight).double(), torch.tensor(weight), rtol=2e-3,
                               atol=2e-4)  # fmt: skip
    assert rule.bias == pytest.approx(best.x[12] - mean @ weight, rel=2e-3)
    assert 1 / rule.temperature == pytest.approx(best.x[-1], rel=2e-3)


def test_it_tells_kinds_that_it_was_not_shown_better_than_scores_alone() -> None:
    known = _blobs(3, 60, 1)
    without, _ = fit_unknown(known, None)
    rule, told = fit_unknown(known, _blobs(5, 60, 11))
    fresh, strangers = _blobs(3, 60, 2), _blobs(5, 60, 12)
    areas = [
        area_under_roc(regression.margins(fresh, r), regression.margins(strangers, r))
        for r in (without, rule)
    ]
    assert areas[1] > max(areas[0], 0.95)
    # Its own figure is of kinds that were left out, so it is below that of kinds it was shown.
    assert told.roc is not None
    assert told.roc < areas[1]


def test_the_threshold_is_part_of_the_rule() -> None:
    known, unknown = _blobs(3, 60, 1), _blobs(5, 60, 11)
    loose, at_5 = fit_unknown(known, unknown)
    tight, point = fit_unknown(known, unknown, max_false_accept=0.01)
    assert at_5.point.false_reject == pytest.approx(0.05, abs=1 / len(known))
    assert point.point.false_accept is not None
    assert point.point.false_accept <= 0.01
    assert tight.weight == loose.weight
    assert tight.bias - loose.bias == pytest.approx(point.point.threshold - at_5.point.threshold)


@pytest.mark.parametrize("allowed", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_no_more_false_accepts_than_allowed_and_no_false_reject_too_many(allowed: float) -> None:
    draw = torch.Generator().manual_seed(3)
    p, q = torch.randn(40, generator=draw) + 1, torch.randn(20, generator=draw)
    q[:5] = q[5]  # ties
    point = operating_point(p, q, max_false_accept=allowed)
    assert point.false_accept is not None
    assert point.false_accept <= allowed
    for lower in (p, q):  # any lower threshold that lets another image of the mission in
        for t in lower[lower < point.threshold]:
            fewer = (p < t).float().mean() < point.false_reject
            assert not fewer or (q >= t).float().mean() > allowed


def test_what_no_threshold_holds_is_refused() -> None:
    p, q = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([2.5, 1.5])
    with pytest.raises(InputError, match=r"75\.0 % of the mission's images are refused"):
        operating_point(p, q, max_false_accept=0, max_false_reject=0.5)
    with pytest.raises(InputError, match="--unknown"):
        operating_point(p, None, max_false_accept=0.1)


def test_areas_and_shares_are_those_of_all_pairs() -> None:
    draw = torch.Generator().manual_seed(5)
    p, q = (torch.randint(0, 9, (n,), generator=draw).double() for n in (40, 30))
    pairs = (p[:, None] > q).double() + 0.5 * (p[:, None] == q)
    assert area_under_roc(p, q) == pytest.approx(float(pairs.mean()))
    least = p.sort().values[2]  # two of forty are refused
    assert false_accepts_at(p, q, 0.05) == float((q >= least).double().mean())


class _Conv(nn.Module):
    """A head that is a convolution over the map, as SqueezeNet has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.head(self.body(x).relu()).relu().mean((2, 3))


class _Two(_Conv):
    def forward(self, x):
        f = self.body(x).relu()
        return self.head(f).mean((2, 3)) + self.head(f * f).mean((2, 3))


_LINEAR = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))


@pytest.mark.parametrize("module", [_LINEAR, _Conv()], ids=["linear", "convolution"])
def test_the_graph_says_what_the_formula_says(module: nn.Module) -> None:
    graph = capture(module.double(), (8, 8))
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    values = run(graph, {graph.input.name: x}, [feature_of(graph), graph.output])
    f = values[feature_of(graph)]
    f = f.mean((2, 3)) if f.ndim == 4 else f
    rule = Rule(2.5, tuple(np.random.default_rng(0).normal(size=f.shape[1])), 0.3)
    want = torch.cat(
        [values[graph.output] / 2.5, (f @ torch.tensor(rule.weight) + 0.3)[:, None]], 1
    )
    torch.testing.assert_close(GraphModule(with_unknown(graph, rule))(x), want)


def test_two_heads_are_refused() -> None:
    graph = capture(_Two(), (8, 8))
    with pytest.raises(UnsupportedError, match="expected one last layer"):
        feature_of(graph)


def test_features_are_measured_as_they_are() -> None:
    graph = capture(_Conv(), (8, 8))
    x = torch.randn(4, 3, 8, 8)
    batches = [
        dn.images.Batch(x[:3], torch.arange(3), ()),
        dn.images.Batch(x[3:], torch.zeros(1), ()),
    ]
    found = measure(graph, batches)
    module = _Conv()
    torch.testing.assert_close(found.features_nf.float(), module.body(x).relu().mean((2, 3)))
    torch.testing.assert_close(found.scores_nk.float(), module(x))


def test_folders_of_any_name_are_taken_but_the_missions(tmp_path: Path) -> None:
    for name in ("empty scene", "Class-1", "7", "2", "n123"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "1.png")
    table, mission = (
        numbered_table(9, [f"class {i}" for i in range(9)]),
        Mission((1, 2), ("a", "b")),
    )
    found = open_strangers(tmp_path, table, mission)
    by_label = {found.names[ref.label] for ref in found.report.refs}
    assert by_label == {"empty scene", "7", "n123"}
    assert {found.names[ref.label] == ref.path.parent.name for ref in found.train.refs} == {True}
    for name in ("empty scene", "7", "n123"):
        (tmp_path / name / "1.png").unlink()
    with pytest.raises(ImageError, match="only folders of the mission's classes"):
        open_strangers(tmp_path, table, mission)


def test_a_rule_is_read_as_written_and_only_for_its_network(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"network")
    rule, figures = Rule(1.5, (0.25, -1e-9, 3.0), -0.1), {"n": 3, "auroc": None}
    write_rule(rule, tmp_path / "model.pt2", tmp_path / RULE, figures)
    assert read_rule(tmp_path) == (rule, figures)
    (tmp_path / "model.pt2").write_bytes(b"another")
    with pytest.raises(InputError, match="another network"):
        read_rule(tmp_path)
    (tmp_path / RULE).unlink()
    with pytest.raises(InputError, match="no rule for unknown images"):
        read_rule(tmp_path)


def test_too_few_images_are_refused() -> None:
    known = _blobs(3, 3, 1)
    with pytest.raises(InputError, match="found 9 images of the mission"):
        fit_unknown(known, None)
    few = _blobs(1, 1, 11)
    with pytest.raises(InputError, match="and 1 of other things"):
        fit_unknown(_blobs(3, 30, 1), few)
