"""The missions of the yardstick, and what images say of their candidates; see verdict.py."""

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillnet.classes import Mission, parse_mission
from distillnet.cut.cost import cost
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.images import ImageSet, limit, load_all, open_images, split
from distillnet.images.preprocessing import Size
from distillnet.job.partition import Images
from distillnet.job.pictures import Pictures
from distillnet.models import Model, load_model
from distillnet.search.candidates import Candidate, Workshop
from distillnet.search.judge import log_probabilities

NETTE_A = "tench,English springer,cassette player,chain saw,church"
NETTE_B = "French horn,garbage truck,gas pump,golf ball,parachute"


@dataclass(frozen=True)
class Case:
    """A mission of the yardstick.

    Attributes:
        source: nette (train for the search, val for the report) or own.
        classes: names, or places among the folders of ``own``.
        per_class: images that the search has of each class.
    """

    network: str
    source: str
    classes: str
    per_class: int
    seed: int = 0

    @property
    def name(self) -> str:
        parts = (self.network, self.source, self.classes, self.per_class, self.seed)
        return "-".join(map(str, parts))


MISSIONS = {"A": NETTE_A, "B": NETTE_B, "all": f"{NETTE_A},{NETTE_B}"}

CASES = (
    Case("SqueezeNet", "nette", "A", 100),
    Case("SqueezeNet", "nette", "B", 100),
    Case("SqueezeNet", "own", "0,1,3,4,7", 40),
    Case("SqueezeNet", "own", "2,5,6,8,9,10", 20),
    Case("GoogLeNet", "nette", "B", 100),
    Case("GoogLeNet", "nette", "A", 100),
    Case("GoogLeNet", "own", "0,1,3,4,7", 40),
    Case("GoogLeNet", "own", "2,5,6,8,9,10", 20),
    Case("MobileNet", "own", "0,1,3,4,7", 40),
    Case("MobileNet", "own", "2,5,6,8,9,10", 30),
    Case("MobileNet", "nette", "B", 50),
    Case("MobileNet", "nette", "A", 100),
    Case("SqueezeNet", "own", "0,1,2,3,4,5,6,7", 30),
    Case("SqueezeNet", "own", "0,1,2,3,4,5,6,7,8,9,10,11", 30),
    Case("SqueezeNet", "nette", "B", 20),
    Case("SqueezeNet", "nette", "A", 50),
    Case("SqueezeNet", "own", "1,8,11", 40),
    Case("SqueezeNet", "own", "4,6,9", 25),
    Case("GoogLeNet", "own", "4,5,6,7,8,9,10,11", 30),
    Case("GoogLeNet", "own", "0,1,2,3,4,5,6,7", 30),
    Case("SqueezeNet", "nette", "all", 50),
    Case("MobileNet", "own", "0,1,2,3,4,5,6,7,8,9,10,11", 30),
)
RATIOS = {
    "SqueezeNet": (2.6, 3.8, 5.5, 8.0),
    "GoogLeNet": (3.0, 4.5, 6.5, 10.0),
    "MobileNet": (1.2, 1.5, 1.9, 2.5),
}
CROSSED, MOST_CROSSED_PP = 3, 2.5  # the smallest so many that are expected to lose no more
SIDES = (224, 176, 144)


def half(case: Case) -> str:
    """Which half a mission belongs to: rules are developed on the first of each two."""
    return ("develop", "report")[CASES.index(case) % 2]


def load(network: str, data: Path) -> Model:
    """A network of the yardstick with its weights."""
    weights = data / "weights"
    match network:
        case "SqueezeNet":
            return load_model(
                "torchvision:squeezenet1_0", weights=weights / "squeezenet1_0.safetensors"
            )
        case "GoogLeNet":
            return load_model("zoo:bvlc_googlenet", weights=weights / "bvlc_googlenet.safetensors")
        case "MobileNet":
            return load_model(
                f"{data / 'models' / 'mobilenet_v1.py'}:build",
                weights=data / "models" / "mobilenet_v1_075.safetensors",
                input_size=224,
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                class_names=data / "imagenet_classes.tsv",
            )
    raise ValueError(network)


def open_case(case: Case, model: Model, data: Path) -> tuple[Mission, Images]:
    """The mission and its images: two like parts to search on, and others to report on."""
    if case.source == "nette":
        mission = parse_mission(MISSIONS[case.classes], model.classes)
        folders = open_images(data / "imagenette", model.classes, mission.indices)
        assert folders.val is not None
        seen, report = limit(folders.train, case.per_class, case.seed), folders.val
    else:
        names = sorted(path.name for path in (data / "own").iterdir())
        chosen = [names[int(place)] for place in case.classes.split(",")]
        mission = parse_mission(chosen, model.classes)
        everything = open_images(data / "own", model.classes, mission.indices).train
        seen = limit(everything, case.per_class, case.seed)
        kept = set(seen.refs)
        report = ImageSet(tuple(ref for ref in everything.refs if ref not in kept))
    statistics, search = split(seen, 0.5, case.seed)
    return mission, Images(statistics, search, report, alike=True)


@dataclass(frozen=True)
class Opened:
    """A mission's network and images, from which workshops are made."""

    model: Model
    mission: Mission
    images: Images
    graph: Graph
    macs: int
    pictures: Pictures

    def workshop(self, **options: Any) -> Workshop:
        """Where candidates are made and judged, with options of ``Workshop``."""
        pictures = self.pictures
        labels_n = torch.cat([pictures.labels_statistics(), pictures.labels()])
        return Workshop(
            pictures.sized, pictures.own_size, self.mission, labels_n, param_weight=0.1, **options
        )


def opened(case: Case, data: Path) -> Opened:
    """A mission of the yardstick, read from the folder of real data."""
    model = load(case.network, data)
    mission, images = open_case(case, model, data)
    graph = capture_model(model)
    macs = cost(graph, analyse(graph)).macs
    pictures = Pictures(model, mission, images, macs=macs, device=torch.device("cpu"))
    return Opened(model, mission, images, graph, macs, pictures)


def measure(case: Case, data: Path, path: Path) -> None:
    """Make every candidate of a mission; what was made before is kept."""
    ready = opened(case, data)
    model, mission, images = ready.model, ready.mission, ready.images
    graph, macs, pictures = ready.graph, ready.macs, ready.pictures
    start = time.perf_counter()
    workshop = ready.workshop()
    report = load_report(model, images.val, mission, pictures.own_size)
    done: dict[str, Any] = {"rows": []}
    if path.exists():
        done = torch.load(path, weights_only=True)
    else:
        done["labels"], done["seen"] = workshop.judge.labels_n, workshop.seen
        done["reference"], done["images"] = workshop.judge.reference, workshop.judge.image_n
        done["report_labels"] = report[1]
        scores = masked_scores(graph, report[0], {})
        done["report_reference"] = log_probabilities(scores, mission)
    known = {(row["side"], row["ratio"]) for row in done["rows"]}
    workshop.go_to((176, 176))
    workshop.choose_teacher()
    made: dict[tuple[int, float], Candidate] = {}
    for side, ratio in [(side, ratio) for side in SIDES for ratio in RATIOS[case.network]]:
        if (side, ratio) in known:
            continue
        began = time.perf_counter()
        workshop.go_to((side, side))
        here, allowed = workshop.here, workshop.work / ratio
        row: dict[str, Any] = {"side": side, "ratio": ratio}
        if cost(here.graph, here.channels).macs > allowed:
            candidate = workshop.make(lambda cut: workshop.work_left(cut) <= allowed)  # noqa: B023
            if candidate is not None and candidate.graph is not None:
                x_report = load_report(model, images.val, mission, (side, side))[0]
                after = cost(candidate.graph, here.channels, candidate.plan)
                small = compact(candidate.graph, here.channels, candidate.plan)
                scores = masked_scores(small, x_report, {})
                row |= {
                    "mac_ratio": macs / after.macs,
                    "now": log_probabilities(candidate.scores_nk, mission).float(),
                    "report_now": torch.log_softmax(scores.double(), 1).float(),
                    "estimate": candidate.verdict.estimate_pp,
                }
                made[side, ratio] = replace(candidate, graph=None)
        row["seconds"] = time.perf_counter() - began
        done["rows"].append(row)
        torch.save(done, path)
        say(case, row, start)
    promising = [row for row in done["rows"] if row.get("estimate", math.inf) < MOST_CROSSED_PP]
    for row in sorted(promising, key=lambda row: -row["mac_ratio"])[:CROSSED]:
        key = row["side"], row["ratio"]
        if key in made and "cross" not in row:
            began = time.perf_counter()
            row["cross"] = log_probabilities(workshop.cross_scores(made[key]), mission).float()
            row["seconds"] = time.perf_counter() - began
            torch.save(done, path)
            say(case, row, start)


def say(case: Case, row: dict[str, Any], start: float) -> None:
    """What was done, and how long it took."""
    print(
        f"{case.name} {row['side']} {row['ratio']} {row['seconds']:.1f} s, "
        f"{time.perf_counter() - start:.0f} s in all",
        flush=True,
    )


def load_report(
    model: Model, images: ImageSet, mission: Mission, size: Size
) -> tuple[Tensor, Tensor]:
    """Report images and their positions in the mission."""
    loaded = load_all(images, model.preprocessing.with_input_size(size))
    return loaded.x_nchw, torch.tensor([mission.indices.index(int(c)) for c in loaded.labels_n])
