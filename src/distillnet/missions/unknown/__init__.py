"""Inputs of none of the mission's classes: one more score, ``unknown``, that wins for them.

``features`` reads what a network's last layer sees and adds the rule to a graph, ``regression``
fits it, ``operating`` measures and chooses how often it may be wrong, ``rule`` is the file of it in
a run folder, ``pictures`` finds images of other things, ``fitting`` is the whole job,
``of_runs`` does it for a run and images, ``of_atlas`` for one that was made from an atlas,
``placing`` moves the threshold of a rule to where images say.
"""

from distillnet.missions.unknown.features import with_unknown
from distillnet.missions.unknown.fitting import (
    Rejection,
    compared,
    fit_unknown,
    judged,
    simple_scores,
)
from distillnet.missions.unknown.of_atlas import fit_from_atlas
from distillnet.missions.unknown.of_runs import fit_run, fitting_images
from distillnet.missions.unknown.operating import OperatingPoint, area_under_roc
from distillnet.missions.unknown.pictures import Strangers, open_strangers
from distillnet.missions.unknown.placing import Apart, images_apart, place_by_images, placed
from distillnet.missions.unknown.rule import RULE, Rule, read_curve, read_rule, write_rule

__all__ = [
    "RULE",
    "Apart",
    "OperatingPoint",
    "Rejection",
    "Rule",
    "Strangers",
    "area_under_roc",
    "compared",
    "fit_from_atlas",
    "fit_run",
    "fit_unknown",
    "fitting_images",
    "images_apart",
    "judged",
    "open_strangers",
    "place_by_images",
    "placed",
    "read_curve",
    "read_rule",
    "simple_scores",
    "with_unknown",
    "write_rule",
]
