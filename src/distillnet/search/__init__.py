"""Finding the smallest plan within a budget: what to score neurons by, and where to cut."""

from distillnet.search.budget import Budget
from distillnet.search.paper import Found, search_paper
from distillnet.search.scores import SCORES, Score

__all__ = ["SCORES", "Budget", "Found", "Score", "search_paper"]
