"""From images of the mission and of other things to a rule, and what is known of it.

What the rule does to kinds of images that it has not seen is what counts in the field. So the
threshold and all figures are of margins of images that their rule was not fitted on: kinds of
unknown images are left out one part after the other, whole, and so are parts of the mission's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from distillnet.errors import InputError
from distillnet.missions.unknown.features import Measured
from distillnet.missions.unknown.operating import (
    OperatingPoint,
    area_under_roc,
    false_accepts_at,
    operating_point,
    rejection_curve,
)
from distillnet.missions.unknown.regression import fit, margins
from distillnet.missions.unknown.rule import Rule

__all__ = ["Rejection", "compared", "fit_unknown", "judged", "rejection_of", "simple_scores"]

_PARTS = 5
_FEW = 20  # images of the mission


@dataclass(frozen=True)
class Rejection:
    """How a rule does on images; shares in 0..1.

    Attributes:
        n_known: images of the mission; ``n_unknown`` of other things.
        roc: area under the ROC curve; None without unknown images.
        at_5: false accepts where 5 % of the mission's images are refused.
        per_kind: false accepts by folder.
        simple: area under the ROC curve of scores without a rule, by their name.
        curve: see ``operating.rejection_curve``; empty without unknown images.
    """

    n_known: int
    n_unknown: int
    point: OperatingPoint
    roc: float | None
    at_5: float | None
    per_kind: Mapping[str, float] = field(default_factory=dict)
    simple: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def figures(self) -> dict[str, float | int | None]:
        """As ``unknown.json`` and ``--json`` hold them."""
        return {
            "n": self.n_known,
            "n_unknown": self.n_unknown,
            "auroc": self.roc,
            "false_accepts_at_5_percent_false_rejects": self.at_5,
            "false_reject": self.point.false_reject,
            "false_accept": self.point.false_accept,
        }


def fit_unknown(
    known: Measured,
    unknown: Measured | None,
    *,
    max_false_accept: float | None = None,
    max_false_reject: float | None = None,
    seed: int = 0,
) -> tuple[Rule, Rejection]:
    """A rule with its threshold in it, and how it did on what it was not fitted on.

    Args:
        known: images of the mission, labels are positions in it.
        unknown: of anything else, labels tell kinds; with two or more, kinds are left out whole.
            Without any the rule is a threshold on the largest score.
        max_false_accept: share; see ``operating_point``.

    Raises:
        InputError: there are too few images, or no threshold holds what is asked.
    """
    if len(known) < _FEW or (unknown is not None and len(unknown) < 2):
        raise InputError(
            f"found {len(known)} images of the mission and "
            f"{0 if unknown is None else len(unknown)} of other things to fit a rule on; expected "
            f"{_FEW} and 2 or more. Add images"
        )
    shuffled = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    known_parts = [shuffled[i::_PARTS] for i in range(_PARTS)]
    unknown_parts = [None] * _PARTS if unknown is None else _parts(unknown.labels_n, seed)
    p = torch.empty(len(known), dtype=torch.float64)
    q = None if unknown is None else torch.empty(len(unknown), dtype=torch.float64)
    for known_part, unknown_part in zip(known_parts, unknown_parts, strict=True):
        rest = None
        if unknown is not None and unknown_part is not None:
            rest = _without(unknown, unknown_part)
        rule = fit(_without(known, known_part), rest)
        p[known_part] = margins(_rows(known, known_part), rule)
        if unknown is not None and unknown_part is not None and q is not None:
            q[unknown_part] = margins(_rows(unknown, unknown_part), rule)
    point = operating_point(
        p, q, max_false_accept=max_false_accept, max_false_reject=max_false_reject
    )
    rule = fit(known, unknown)
    rule = replace(rule, bias=rule.bias + point.threshold)
    return rule, rejection_of(p, q, point)


def judged(
    known_nk: Tensor, unknown_mk: Tensor, labels_m: Tensor, names: Sequence[str]
) -> Rejection:
    """How often scores (N, K + 1), of which the last is that of the unknown, are wrong.

    Args:
        labels_m: of unknown images, positions in ``names``.
    """
    known_nk, unknown_mk = known_nk.double(), unknown_mk.double()
    p, q = (y[:, :-1].amax(1) - y[:, -1] for y in (known_nk, unknown_mk))
    point = OperatingPoint(0.0, float((p < 0).double().mean()), float((q >= 0).double().mean()))
    per_kind = {
        names[int(label)]: float((q[labels_m == label] >= 0).double().mean())
        for label in labels_m.unique()
    }
    simple = compared(known_nk[:, :-1], unknown_mk[:, :-1])
    return replace(rejection_of(p, q, point), per_kind=per_kind, simple=simple)


def compared(
    known_nk: Tensor, unknown_mk: Tensor, mission: Sequence[int] | None = None
) -> dict[str, float]:
    """Area under the ROC curve of each of ``simple_scores``."""
    of_unknown = simple_scores(unknown_mk.double(), mission)
    return {
        name: area_under_roc(score, of_unknown[name])
        for name, score in simple_scores(known_nk.double(), mission).items()
    }


def simple_scores(scores_nk: Tensor, mission: Sequence[int] | None = None) -> dict[str, Tensor]:
    """Scores of being known that need no fit, larger for the known.

    Args:
        scores_nk: of the mission's classes, or of all that a network knows.
        mission: of all, those that are the mission's; then there are more: the share that they
            have among all, and scores of all classes, which tell what is an image of any class.
    """
    own = scores_nk if mission is None else scores_nk[:, list(mission)]
    found = {
        # Hendrycks and Gimpel, 2017, and Liu et al., 2020
        "maximum softmax": own.log_softmax(1).amax(1),
        "energy": own.logsumexp(1),
    }
    if mission is not None:
        logs = scores_nk.log_softmax(1)
        found |= {
            "maximum softmax of the mission among all": logs[:, list(mission)].amax(1),
            "maximum softmax of all": logs.amax(1),
            "energy of all": scores_nk.logsumexp(1),
        }
    return found


def rejection_of(p: Tensor, q: Tensor | None, point: OperatingPoint) -> Rejection:
    """What margins of the mission's images, and of others where there are some, tell."""
    return Rejection(
        len(p),
        0 if q is None else len(q),
        point,
        None if q is None else area_under_roc(p, q),
        None if q is None else false_accepts_at(p, q, 0.05),
        curve=() if q is None else rejection_curve(p, q),
    )


def _parts(labels_n: Tensor, seed: int) -> list[Tensor]:
    """Rows in parts of whole kinds; of single images where there are fewer kinds than two."""
    kinds = labels_n.unique()
    generator = torch.Generator().manual_seed(seed)
    if len(kinds) < 2:
        shuffled = torch.randperm(len(labels_n), generator=generator)
        return [shuffled[i::_PARTS] for i in range(_PARTS)]
    order = torch.randperm(len(kinds), generator=generator)
    parts = [kinds[order[i::_PARTS]] for i in range(_PARTS)]
    return [torch.isin(labels_n, part).nonzero()[:, 0] for part in parts]


def _rows(measured: Measured, rows: Tensor) -> Measured:
    return Measured(measured.features_nf[rows], measured.scores_nk[rows], measured.labels_n[rows])


def _without(measured: Measured, rows: Tensor) -> Measured:
    left = torch.ones(len(measured), dtype=torch.bool)
    left[rows] = False
    return _rows(measured, left.nonzero()[:, 0])
