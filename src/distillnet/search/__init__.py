"""Finding the smallest plan within a budget: what to score neurons by, and where to cut."""

from distillnet.search.best import Sized, search_best
from distillnet.search.budget import Budget
from distillnet.search.found import Found
from distillnet.search.judge import Judge, Verdict, beyond_memory
from distillnet.search.paper import search_paper
from distillnet.search.scores import SCORES, Findings, Score, class_importance

__all__ = [
    "SCORES",
    "Budget",
    "Findings",
    "Found",
    "Judge",
    "Score",
    "Sized",
    "Verdict",
    "beyond_memory",
    "class_importance",
    "search_best",
    "search_paper",
]
