"""The names of what lies in a run folder, for those who look before they read."""

__all__ = ["FRONT", "RUN_MARKER", "TIMES"]

# What tells a run folder, which may be replaced, from a folder of somebody else's results.
RUN_MARKER = "mission.json"
FRONT = "front"  # the folder of networks for other budgets
TIMES = "times.json"  # how long layers take, as the search had it
