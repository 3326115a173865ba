"""The classes of a network, the names they go by, and the mission: the few that are wanted."""

from distillnet.classes.mission import Mission, mission_of_folders, parse_mission
from distillnet.classes.reading import imagenet_table, read_class_table, read_lines
from distillnet.classes.table import ClassTable, numbered_table

__all__ = [
    "ClassTable",
    "Mission",
    "imagenet_table",
    "mission_of_folders",
    "numbered_table",
    "parse_mission",
    "read_class_table",
    "read_lines",
]
