"""What the papers report, measured here and set beside their own rows."""

from distillnet.reproduce.jobs import Asked, Job, jobs_of
from distillnet.reproduce.measuring import Row, measure, network_at_hand, read_rows, write_rows
from distillnet.reproduce.paper import TABLES
from distillnet.reproduce.related import class_directions, related_sets
from distillnet.reproduce.running import reproduce_table
from distillnet.reproduce.tables import Line, Modules, lines_of

__all__ = [
    "TABLES",
    "Asked",
    "Job",
    "Line",
    "Modules",
    "Row",
    "class_directions",
    "jobs_of",
    "lines_of",
    "measure",
    "network_at_hand",
    "read_rows",
    "related_sets",
    "reproduce_table",
    "write_rows",
]
