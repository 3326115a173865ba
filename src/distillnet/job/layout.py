"""The names of what lies in a run folder, for those who look before they read."""

from distillnet.files.results import RUN

__all__ = ["FRONT", "RUN_MARKER", "TIMES", "UNFINISHED"]

RUN_MARKER = RUN.marker
FRONT = "front"  # the folder of networks for other budgets
TIMES = "times.json"  # how long layers take, as the search had it
UNFINISHED = "unfinished"  # the folder of what an interrupted search found
