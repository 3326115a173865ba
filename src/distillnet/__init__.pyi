from .atlas import Atlas, collect, open_atlas
from .classes import (
    ClassTable,
    Mission,
    imagenet_table,
    numbered_table,
    parse_mission,
    read_class_table,
)
from .cut.cost import Cost, cost
from .cut.plan import Plan
from .cut.surgery import compact, mask
from .errors import DistillnetError, ImageError, InputError, UnsupportedError
from .evaluate import Evaluation
from .graph import Graph, GraphModule, run
from .graph.capture import capture
from .graph.channels import Channels, analyse, groups
from .images import Folders, ImageSet, load_batches, open_images
from .images.preprocessing import Preprocessing
from .job.calls import distill
from .job.distillation import Distillation, Options
from .job.evaluating import evaluate_run
from .job.partition import Images, split_images
from .job.runs import Run, open_run, save_program, write_run
from .models import Model, load_model
from .search import Budget

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
