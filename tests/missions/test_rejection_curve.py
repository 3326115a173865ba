"""The curve of a rule's errors, against counting, and the file that keeps it."""

from pathlib import Path

import pytest
import torch

from distillnet.errors import InputError
from distillnet.missions.unknown import Rule, read_curve, read_rule, write_rule
from distillnet.missions.unknown.operating import area_under_roc, operating_point, rejection_curve


def _margins(n: int, shift: float, seed: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)).double() + shift


def test_the_curve_is_what_counting_finds_and_has_the_area_of_its_ranks() -> None:
    known, unknown = _margins(80, 2.0, 0), _margins(120, 0.0, 1)
    curve = rejection_curve(known, unknown)
    assert len(curve) <= 101
    assert list(curve) == sorted(curve)
    for refused, accepted in curve:
        thresholds = [t for t in known.tolist() if float((known < t).double().mean()) == refused]
        assert accepted == sum(u >= thresholds[0] for u in unknown.tolist()) / 120
    assert [b for _, b in curve] == sorted((b for _, b in curve), reverse=True)
    # With all thresholds, the mean of what is accepted is what is not in the area.
    every = [float((unknown >= t).double().mean()) for t in known.tolist()]
    assert 1 - sum(every) / 80 == pytest.approx(area_under_roc(known, unknown))
    point = operating_point(known, unknown, max_false_reject=0.0)
    assert curve[0] == (0.0, point.false_accept)


def test_a_rule_s_file_keeps_the_curve_and_one_without_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"a network")
    rule, curve = Rule(1.0, (0.5,), 0.0), ((0.0, 0.5), (0.25, 0.125))
    for kept in (curve, ()):
        write_rule(rule, tmp_path / "model.pt2", tmp_path / "unknown.json", {"n": 4}, kept)
        assert read_curve(tmp_path) == kept
        assert read_rule(tmp_path) == (rule, {"n": 4})


def test_shares_that_cannot_be_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"a network")
    path = tmp_path / "unknown.json"
    write_rule(Rule(1.0, (0.5,), 0.0), tmp_path / "model.pt2", path, {}, [(0.0, 1.5)])
    with pytest.raises(InputError, match=r"unknown\.json"):
        read_curve(tmp_path)
