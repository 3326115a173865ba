"""Putting the threshold of a rule where images say, and leaving the rest of it as it is.

A rule from an atlas orders images well, but the network that was made is louder, or quieter, than
what was followed through it tells, so its threshold is a guess. Some images of the mission tell
where it belongs: with N of them it is their k-th smallest margin, k = floor(share (N + 1)), which
the next image falls short of in k of N + 1 cases, whatever the network (split conformal
prediction; Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from distillnet.errors import InputError
from distillnet.images import Folders, ImageSet, limit, split
from distillnet.job.distill import Progress
from distillnet.job.distillation import Distillation
from distillnet.job.provenance import digests
from distillnet.missions.unknown.features import Measured, measure
from distillnet.missions.unknown.fitting import Rejection, rejection_of
from distillnet.missions.unknown.operating import OperatingPoint, operating_point
from distillnet.missions.unknown.pictures import without
from distillnet.missions.unknown.regression import margins
from distillnet.missions.unknown.rule import Rule

__all__ = ["FEWEST", "Apart", "images_apart", "place_by_images", "placed"]

FEWEST = 19  # images, of which the smallest margin is that of 5 % false rejects
_MOST = 1000  # of these the share is known to 0.7 points; more would take minutes
_SHARE = 0.05


@dataclass(frozen=True)
class Apart:
    """Images of the mission to put a threshold by, and others to report on.

    Attributes:
        where: what the first are of the folder, as messages have it.
    """

    placing: ImageSet
    report: ImageSet
    where: str


def images_apart(folders: Folders, classes: Sequence[int], seed: int = 0) -> Apart:
    """Those of ``train/`` where others are kept apart, which are reported on; else halves.

    At most a thousand are taken to put a threshold by, as many of each class where there are so
    many, and no copy of one that is reported on. Where that leaves fewer than ``FEWEST``, it is
    none, and the report is on all that it would be on without a threshold to put.
    """
    rest, report, where = folders.train, folders.val, "train/"
    if report is None:
        rest, report = split(rest, 0.5, seed)
        where = "one half"
    rest = without(
        limit(rest, max(1, _MOST // len(classes)), seed), frozenset(digests(report)) - {None}
    )
    if len(rest) < FEWEST:
        return Apart(replace(rest, refs=()), folders.val or folders.train, where)
    return Apart(rest, report, where)


def placed(
    rule: Rule,
    known: Measured,
    unknown: Measured | None = None,
    *,
    max_false_accept: float | None = None,
    max_false_reject: float | None = None,
) -> tuple[Rule, Rejection]:
    """A rule with its threshold where these images put it, and how it does on them.

    Args:
        known: images of the mission that the rule was not fitted on.
        unknown: of anything else.
        max_false_accept: share; see ``operating_point``.

    Raises:
        InputError: there are too few images, or no threshold holds what is asked.

    >>> import torch
    >>> scores = torch.arange(40).double()[:, None]
    >>> seen = Measured(torch.zeros_like(scores), scores, torch.zeros(40))
    >>> placed(Rule(1.0, (0.0,), 0.0), seen, max_false_reject=0.1)[0].bias
    3.0
    """
    p = margins(known, rule)
    q = None if unknown is None else margins(unknown, rule)
    if max_false_accept is None:
        share = _SHARE if max_false_reject is None else max_false_reject
        kth = math.floor(share * (len(p) + 1) + 1e-9)
        if kth < 1 and share > 0:
            raise InputError(
                f"found {len(p)} images of the mission to put a threshold of {100 * share:g} % "
                f"false rejects by; expected {math.ceil(1 / share - 1e-9) - 1} or more. Add "
                "images, or allow more false rejects"
            )
        max_false_reject = max(0, kth - 1) / len(p)  # so many of these are below the k-th
    point = operating_point(
        p, q, max_false_accept=max_false_accept, max_false_reject=max_false_reject
    )
    return replace(rule, bias=rule.bias + point.threshold), rejection_of(p, q, point)


def place_by_images(
    rule: Rule, done: Distillation, apart: Apart, on_progress: Progress = lambda stage, n, of: None
) -> tuple[Rule, Rejection, tuple[str, ...]]:
    """A rule for a result ``placed`` by images; how it does on others; which are unreadable.

    Args:
        apart: with images to put the threshold by.
        on_progress: called as ("evaluate", images, images in all).

    Raises:
        InputError: too few of them can be read.
    """
    parts, unreadable, total = [], [], len(apart.placing) + len(apart.report)
    for images, before in ((apart.placing, 0), (apart.report, len(apart.placing))):

        def report(n: int, before: int = before) -> None:
            on_progress("evaluate", before + n, total)

        stream = done.options.batches(images, done.preprocessing, report)
        parts.append(measure(done.compact, stream))
        unreadable.append(stream.unreadable)
    moved, _ = placed(rule, parts[0])
    p = margins(parts[1], moved)
    point = OperatingPoint(0.0, float((p < 0).double().mean()), None)
    # Of those reported on the result tells.
    return moved, rejection_of(p, None, point), unreadable[0]
