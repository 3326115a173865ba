"""The classes of a network, the names they go by, and the mission: the few that are wanted."""

from distillnet.classes.mission import Mission, parse_mission
from distillnet.classes.table import (
    ClassTable,
    imagenet_table,
    numbered_table,
    read_class_table,
)

__all__ = [
    "ClassTable",
    "Mission",
    "imagenet_table",
    "numbered_table",
    "parse_mission",
    "read_class_table",
]
