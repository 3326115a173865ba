from .best import search_best
from .budget import Budget
from .decision import Estimate, estimate, is_within
from .found import Found
from .judge import Judge, Verdict
from .paper import search_paper
from .scores import SCORES, Findings, Score, class_importance
from .sized import Sized

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
