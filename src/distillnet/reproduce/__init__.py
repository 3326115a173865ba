"""What the papers report, measured here and set beside their own rows."""

from distillnet.reproduce.jobs import Asked, Job, jobs_of
from distillnet.reproduce.measuring import Row, measure, networks_at_hand, read_rows, write_rows
from distillnet.reproduce.paper import TABLES
from distillnet.reproduce.running import reproduce_table
from distillnet.reproduce.tables import Line, lines_of

__all__ = [
    "TABLES",
    "Asked",
    "Job",
    "Line",
    "Row",
    "jobs_of",
    "lines_of",
    "measure",
    "networks_at_hand",
    "read_rows",
    "reproduce_table",
    "write_rows",
]
