"""Finding the smallest plan within a budget: what to score neurons by, and where to cut."""

from distillnet.search.best import search_best
from distillnet.search.budget import Budget
from distillnet.search.candidates import Sized
from distillnet.search.found import Found
from distillnet.search.judge import Estimate, Judge, Verdict, estimate, is_within
from distillnet.search.paper import search_paper
from distillnet.search.scores import SCORES, Findings, Score, class_importance

__all__ = [
    "SCORES",
    "Budget",
    "Estimate",
    "Findings",
    "Found",
    "Judge",
    "Score",
    "Sized",
    "Verdict",
    "class_importance",
    "estimate",
    "is_within",
    "search_best",
    "search_paper",
]
