"""Cut a pretrained CNN down to the few classes you need, with no training.

>>> import distillnet as dn
>>> mission = dn.parse_mission("tench, church", dn.imagenet_table())
>>> mission.indices
(0, 497)
"""

from distillnet.atlas import Atlas, collect, open_atlas
from distillnet.classes import (
    ClassTable,
    Mission,
    imagenet_table,
    numbered_table,
    parse_mission,
    read_class_table,
)
from distillnet.cut.cost import Cost, cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask
from distillnet.errors import DistillnetError, ImageError, InputError, UnsupportedError
from distillnet.evaluate import Evaluation
from distillnet.graph import Graph, GraphModule, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse, groups
from distillnet.images import Folders, ImageSet, load_batches, open_images
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distill import distill
from distillnet.job.distillation import Distillation, Options
from distillnet.job.partition import Images, split_images
from distillnet.job.runs import Run, evaluate_run, open_run, save_program, write_run
from distillnet.models import Model, load_model
from distillnet.search import Budget

__all__ = [
    "Atlas",
    "Budget",
    "Channels",
    "ClassTable",
    "Cost",
    "Distillation",
    "DistillnetError",
    "Evaluation",
    "Folders",
    "Graph",
    "GraphModule",
    "ImageError",
    "ImageSet",
    "Images",
    "InputError",
    "Mission",
    "Model",
    "Options",
    "Plan",
    "Preprocessing",
    "Run",
    "UnsupportedError",
    "analyse",
    "capture",
    "collect",
    "compact",
    "cost",
    "distill",
    "evaluate_run",
    "groups",
    "imagenet_table",
    "load_batches",
    "load_model",
    "mask",
    "numbered_table",
    "open_atlas",
    "open_images",
    "open_run",
    "parse_mission",
    "read_class_table",
    "run",
    "save_program",
    "split_images",
    "write_run",
]
