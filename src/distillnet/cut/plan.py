"""A plan: what stays of a network. Everything that changes a network takes one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.bitmaps import complete_removal
from distillnet.cut.thin import Split
from distillnet.graph.channels import MAKES_SCORES, Channels

__all__ = ["Plan", "complete_only", "removed_classes"]


@dataclass(frozen=True)
class Plan:
    """Keep maps by site, bool (C, H, W) or (F,); a site without one is kept whole.

    Attributes:
        outputs: the scores that stay, in this order; None keeps all of them.
        splits: layers to write as two thinner ones. The weights that the plan is carried out on
            have this rank on the channels that stay (``compensation`` sees to it), so this changes
            cost and nothing else.
    """

    keep: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: tuple[int, ...] | None = None
    splits: Mapping[str, Split] = field(default_factory=dict)


def removed_classes(channels: Channels, plan: Plan) -> NDArray[np.bool_]:
    """For each channel class, True when the plan removes it completely: bool (classes,).

    A class goes when every one of its sites masks all of it, and when it only makes scores that
    the plan drops. A layer always keeps one channel, for no runtime takes a tensor without any;
    that channel stays masked, so the result is the same.
    """
    gone = np.ones(channels.count, dtype=bool)
    seen = np.zeros(channels.count, dtype=bool)
    for site in channels.sites:
        ids = channels.of[site]
        seen[ids] = True
        if site in plan.keep:
            dormant = complete_removal(plan.keep[site]).cpu().numpy()
            gone[ids[~dormant]] = False
        else:
            gone[ids] = False
    gone &= seen
    gone[list(channels.pinned)] = False
    if plan.outputs is not None:
        mission = channels.outputs[list(plan.outputs)]
        others = np.setdiff1d(channels.outputs, mission)
        gone[[c for c in others if channels.pinned[c] == MAKES_SCORES]] = True
    for ids in channels.of.values():
        if gone[ids].all():
            gone[ids[0]] = False
    return gone


def complete_only(channels: Channels, plan: Plan) -> Plan:
    """The same plan without partial removal: only what goes completely stays masked."""
    gone = removed_classes(channels, plan)
    keep = {}
    for site, bits in plan.keep.items():
        whole = bits.clone().fill_(True)
        whole[np.flatnonzero(gone[channels.of[site]])] = False
        keep[site] = whole
    return replace(plan, keep=keep)
