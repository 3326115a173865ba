"""The missions of the yardstick, and what images say of their candidates; see verdict.py."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

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
from distillnet.search.allocation import Cut
from distillnet.search.budget import Budget
from distillnet.search.candidates import Candidate, Workshop
from distillnet.search.explorer import Explorer
from distillnet.search.judge import log_probabilities
from distillnet.search.settings import SearchSettings

_W = TypeVar("_W", bound=Workshop)

NETTE_A = "tench,English springer,cassette player,chain saw,church"
NETTE_B = "French horn,garbage truck,gas pump,golf ball,parachute"


@dataclass(frozen=True)
class Case:
    """A mission of the yardstick.

    Attributes:
        source: nette (train for the search, val for the report), own, cifar (test images, which
            are new to the network, for both) or cifar-train (train for the search, test for the
            report).
        classes: names, or places among the folders of ``own``, or CIFAR-10's numbers.
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


NETTE_C = "tench,church,French horn,gas pump,parachute"
NETTE_D = "English springer,chain saw,garbage truck,golf ball"
FOLDERS = {"nette": "imagenette", "own": "own", "cifar": "cifar10", "cifar-train": "cifar10"}
MISSIONS = {"A": NETTE_A, "B": NETTE_B, "C": NETTE_C, "D": NETTE_D, "all": f"{NETTE_A},{NETTE_B}"}

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
# Other classes together, and images drawn anew: for what was developed after the report half had
# been looked at.
FRESH = (
    Case("SqueezeNet", "own", "3,8,10,11", 40, 7),
    Case("SqueezeNet", "own", "0,2,6,9,10", 25, 7),
    Case("SqueezeNet", "own", "1,2,3,5,6,8,9,10,11", 30, 7),
    Case("SqueezeNet", "nette", "C", 100, 7),
    Case("SqueezeNet", "nette", "D", 50, 7),
    Case("MobileNet", "own", "3,8,10,11", 40, 7),
    Case("MobileNet", "own", "1,2,5,6,7,9", 30, 7),
    Case("MobileNet", "nette", "C", 100, 7),
    Case("GoogLeNet", "own", "0,2,6,9,10", 25, 7),
    Case("GoogLeNet", "nette", "D", 100, 7),
)
# Small images, of which there are enough for reports that err by less than a point.
CIFAR = (
    Case("TF-CIFAR", "cifar", "0,1,2,3,4", 200),
    Case("TF-CIFAR", "cifar", "5,6,7,8,9", 20),
    Case("TF-CIFAR", "cifar", "3,5,7", 100),
    Case("TF-CIFAR", "cifar", "1,8,9", 50),
    Case("TF-CIFAR", "cifar", "0,2,4,6,8", 50),
    Case("TF-CIFAR", "cifar", "0,1,2,3,4,5,6,7", 100),
    Case("TF-CIFAR", "cifar-train", "0,1,2,3,4", 200),
    Case("TF-CIFAR", "cifar-train", "1,5,8,9", 100),
)
CROSSED, MOST_CROSSED_PP = 8, 2.0  # the smallest so many that fitted images expect to lose no more
AS_FOR_TIME = SearchSettings(element=40.0, round_to=8)  # as a search for time has them, about


PARTS = {"develop": CASES[::2], "report": CASES[1::2], "fresh": FRESH, "cifar": CIFAR}


def cases(part: str, seeds: Sequence[int] = ()) -> list[Case]:
    """The missions of a part, with images drawn by their own seeds, or by each of some seeds.

    Rules are developed on the first of each two missions.
    """
    if not seeds:
        return list(PARTS[part])
    return [replace(case, seed=seed) for seed in seeds for case in PARTS[part]]


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
        case "TF-CIFAR":
            return load_model("zoo:tf_cifar", weights=weights / "tf_cifar.safetensors")
    raise ValueError(network)


def open_case(case: Case, model: Model, data: Path) -> tuple[Mission, Images]:
    """The mission and its images: two like parts to search on, and others to report on."""
    if case.source == "own":
        names = sorted(path.name for path in (data / "own").iterdir())
        chosen = ",".join(names[int(place)] for place in case.classes.split(","))
    else:
        chosen = MISSIONS.get(case.classes, case.classes)
    mission = parse_mission(chosen, model.classes)
    folders = open_images(data / FOLDERS[case.source], model.classes, mission.indices)
    if case.source in ("nette", "cifar-train"):
        assert folders.val is not None
        seen, report = limit(folders.train, case.per_class, case.seed), folders.val
    else:
        everything = folders.train if case.source == "own" else folders.val
        assert everything is not None
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

    def workshop(
        self, kind: Callable[..., _W], settings: SearchSettings = AS_FOR_TIME, **options: Any
    ) -> _W:
        """Where candidates are made and judged: a ``Workshop`` or more, with options of it."""
        pictures = self.pictures
        return kind(
            pictures.sized,
            pictures.own_size,
            self.mission,
            torch.cat([pictures.labels_statistics(), pictures.labels()]),  # they are drawn alike
            settings,
            shares=pictures.shares(),
            **options,
        )


def opened(case: Case, data: Path) -> Opened:
    """A mission of the yardstick, read from the folder of real data."""
    model = load(case.network, data)
    mission, images = open_case(case, model, data)
    graph = capture_model(model)
    macs = cost(graph, analyse(graph)).macs
    pictures = Pictures(model, mission, images, macs=macs, device=torch.device("cpu"))
    return Opened(model, mission, images, graph, macs, pictures)


class _Watched(Workshop):
    """A workshop that keeps what images say of each candidate, report images among them."""

    def __init__(self, ready: Opened, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ready, self.rows = ready, dict[str, dict[str, Any]]()

    def make(self, enough: Callable[[Cut], bool]) -> Candidate | None:
        candidate = super().make(enough)
        if candidate is not None and candidate.graph is not None:
            ready, size = self.ready, candidate.size
            x_nchw, _ = load_report(ready.model, ready.images.val, ready.mission, size)
            small = compact(candidate.graph, self.here.channels, candidate.plan)
            scores = masked_scores(small, x_nchw, {})
            self.rows[self.name_of(candidate)] = {
                "side": size[0],
                "mac_ratio": ready.macs / cost(small, analyse(small)).macs,
                "ratio": self.work / candidate.work,
                "now": log_probabilities(candidate.scores_nk, ready.mission).float(),
                "report_now": torch.log_softmax(scores.double(), 1).float(),
            }
        return candidate

    def cross_scores(self, candidate: Candidate) -> Tensor:
        scores = super().cross_scores(candidate)
        crossed = log_probabilities(scores, self.ready.mission).float()
        self.rows[self.name_of(candidate)]["cross"] = crossed
        return scores

    def name_of(self, candidate: Candidate) -> str:
        return f"{candidate.size} {candidate.work}"


def measure(case: Case, data: Path, path: Path) -> None:
    """Search for the network of a mission, and keep all that was made on the way."""
    start = time.perf_counter()
    ready = opened(case, data)
    sizes = ready.pictures.sizes()
    workshop = ready.workshop(partial(_Watched, ready), graphs=ready.pictures.graphs)
    search = Explorer(workshop, Budget(), lambda done, of: None)
    chosen = search.choose(sizes)
    minutes = (time.perf_counter() - start) / 60
    if chosen is not None:
        workshop.rows[workshop.name_of(search.done[chosen])]["chosen"] = True
    # What other rules may come upon: the nearest on the front.
    near = sorted(search.done.values(), key=lambda candidate: candidate.work)
    near = [one for one in near if one.verdict.estimate_pp < MOST_CROSSED_PP]
    for candidate in near[:CROSSED]:
        if "cross" not in workshop.rows[workshop.name_of(candidate)]:
            workshop.cross_scores(candidate)
    x_nchw, labels_n = load_report(
        ready.model, ready.images.val, ready.mission, ready.pictures.own_size
    )
    reference = log_probabilities(masked_scores(ready.graph, x_nchw, {}), ready.mission)
    told = {
        "labels": workshop.judge.labels_n,
        "images": workshop.judge.image_n,
        "seen": workshop.seen,
        "own_side": ready.pictures.own_size[0],
        "reference": workshop.judge.reference,
        "report_labels": labels_n,
        "report_reference": reference,
        "rows": sorted(workshop.rows.values(), key=lambda row: -row["mac_ratio"]),
    }
    torch.save(told, path)
    print(f"{case.name}: {len(workshop.rows)} candidates, {minutes:.1f} minutes", flush=True)


def load_report(
    model: Model, images: ImageSet, mission: Mission, size: Size
) -> tuple[Tensor, Tensor]:
    """Report images and their positions in the mission."""
    loaded = load_all(images, model.preprocessing.with_input_size(size))
    return loaded.x_nchw, torch.tensor([mission.indices.index(int(c)) for c in loaded.labels_n])
