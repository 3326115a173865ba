from .best import Search, open_search
from .budget import Budget
from .decision import Estimate, estimate, is_within
from .found import Found
from .judge import Judge, Verdict
from .paper import search_paper
from .scores import SCORES, Findings, Score, class_importance
from .settings import SearchSettings
from .sized import Sized

__all__ = [
    "SCORES",
    "Budget",
    "Estimate",
    "Findings",
    "Found",
    "Judge",
    "Score",
    "Search",
    "SearchSettings",
    "Sized",
    "Verdict",
    "class_importance",
    "estimate",
    "is_within",
    "open_search",
    "search_paper",
]
