"""Ways to cut a network down to a few classes, on the same images under the same budget.

    pip install torch-pruning
    python benchmarks/methods.py [--only NETWORK/CLASSES/METHOD] [--resume] [--table]

Two ImageNet networks, five and ten of their classes: distillnet's searches; whole channels chosen
by L1 or at random, with best's refitting, input sizes and search; and Torch-Pruning
(https://github.com/VainF/Torch-Pruning) with Taylor and magnitude importance. Each row is written
to ``--out`` as a line of JSON when it is measured; at the end all are printed as a Markdown table.
Its last part takes best apart: without splits, and with other scores for channels.

What is equal for all: the loss allowed, the statistics and search images (which best lets change
roles, and on which it goes by the expected loss, less what a light cut loses), the val images that
only the final figures read, and the counting of MACs and parameters (``distillnet.cut.cost``, with
the scores of other classes gone). distillnet runs as its command does. Torch-Pruning runs as its
documentation shows it: global pruning of the network without its last layer, no fine-tuning.
Taylor's gradients are those of the cross-entropy among the mission's classes on the statistics
images. A binary search over the pruning ratio plays the part of distillnet's search.
"""

import argparse
import copy
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillnet.classes import Mission, imagenet_table, parse_mission
from distillnet.cut.cost import Cost, cost
from distillnet.cut.plan import Plan
from distillnet.evaluate import (
    Evaluation,
    Scores,
    closed_set,
    evaluation,
    loss_interval_pp,
    loss_pp,
    worst_class_loss_pp,
)
from distillnet.graph import fast_layout
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.images import ImageSet, limit, load_all, load_batches, open_images
from distillnet.job.distill import pick_device
from distillnet.job.partition import split_images
from distillnet.models import Model, load_model

Row = dict[str, Any]
Images = tuple[Tensor, Tensor]  # x_nchw, labels_n
Prune = Callable[[float], nn.Module]  # pruning ratio -> pruned copy of the network

BATCH = 32
GRADIENT_BATCH = 16  # a backward pass keeps every layer's output


@dataclass(frozen=True)
class Network:
    """A trained network: how tables call it, how the command does, and its file in weights/."""

    name: str
    spec: str
    weights: str


@dataclass(frozen=True)
class Method:
    """distillnet's command with these options, or Torch-Pruning with this importance."""

    name: str
    options: tuple[str, ...] = ()
    importance: str = ""
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Job:
    """One row to measure."""

    network: Network
    classes: tuple[str, ...]
    method: Method
    seed: int

    @property
    def name(self) -> str:
        return f"{self.network.name}/{len(self.classes)}/{self.method.name}"


@dataclass(frozen=True)
class Setting:
    """What all rows of a table have in common."""

    data: Path
    max_loss: float
    images_per_class: int | None
    search_steps: int
    pruning_steps: int

    def recorded(self, method: Method) -> Row:
        """What a row of a method depends on, wherever the data lay."""
        values: Row = {"max_loss": self.max_loss, "images_per_class": self.images_per_class}
        if method.importance:
            values |= {"search_steps": self.search_steps, "pruning_steps": self.pruning_steps}
        return values


NETWORKS = (
    Network("GoogLeNet", "zoo:bvlc_googlenet", "bvlc_googlenet.safetensors"),
    Network("SqueezeNet", "torchvision:squeezenet1_0", "squeezenet1_0.safetensors"),
)
FIVE = ("tench", "English springer", "cassette player", "chain saw", "church")
TEN = (*FIVE, "French horn", "garbage truck", "gas pump", "golf ball", "parachute")
_BEST, _SEEDS = ("--method", "best"), (0, 1, 2)
METHODS = (
    Method("distillnet best", _BEST),
    Method("distillnet paper, heat", ("--method", "paper", "--score", "heat")),
    Method("channels by L1", (*_BEST, "--no-split", "--score", "l1")),
    Method("channels at random", (*_BEST, "--no-split", "--score", "random"), seeds=_SEEDS),
    Method("Torch-Pruning, Taylor", importance="taylor"),
    Method("Torch-Pruning, L2 norm", importance="l2"),
    Method("Torch-Pruning, L1 norm", importance="l1"),
)
# What the parts of best are worth.
ABLATIONS = (
    Method("best, channels alone", (*_BEST, "--no-split")),
    Method("best, channels by L1", (*_BEST, "--score", "l1")),
    Method("best, channels at random", (*_BEST, "--score", "random"), seeds=_SEEDS),
)
CASES = [(METHODS, FIVE), (METHODS, TEN), (ABLATIONS, FIVE)]
JOBS = tuple(
    Job(network, classes, method, seed)
    for methods, classes in CASES
    for network in NETWORKS
    for method in methods
    for seed in method.seeds
)


# distillnet -----------------------------------------------------------------------------------


def run_distillnet(job: Job, setting: Setting, images: Path) -> Row:
    """The row that distillnet's command gives."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "distillnet", "distill", job.network.spec),
            *("--weights", str(setting.data / "weights" / job.network.weights)),
            *("--data", str(images), "--classes", ",".join(job.classes)),
            *job.method.options,
            *("--max-loss", str(setting.max_loss), "--seed", str(job.seed)),
            *("--out", str(Path(folder) / "run"), "--json"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"distillnet left with status {done.returncode}: {lines[-1]}")
    result = json.loads(done.stdout)
    same = (
        *("mac_ratio", "mac_ratio_with_partial", "param_ratio"),
        *("loss_pp", "loss_ci95_pp", "worst_class_loss_pp"),
    )
    return {
        **{name: result[name] for name in same},
        "accuracy_before": result["baseline"]["accuracy"],
        "accuracy_after": result["distilled"]["accuracy"],
        "input_side": result["distilled"]["input_size"][0],
        "seconds": result["seconds"]["total"],
        "search_loss_pp": result["search"]["loss_pp"],
        "n_images": result["n_images"],
    }


# Torch-Pruning --------------------------------------------------------------------------------


def run_torch_pruning(job: Job, setting: Setting, images: Path) -> Row:
    """The row of Torch-Pruning, with the largest ratio that the search images allow."""
    model = load_model(job.network.spec, weights=setting.data / "weights" / job.network.weights)
    mission = parse_mission(",".join(job.classes), model.classes)
    parts = split_images(open_images(images, model.classes, mission.indices), seed=job.seed)
    device = pick_device("auto")
    module = model.module.to(device)
    start = time.perf_counter()

    loaded = load_all(parts.search, model.preprocessing)
    search = [*zip(loaded.x_nchw.split(BATCH), loaded.labels_n.split(BATCH), strict=True)]
    prune = pruner(job.method.importance, model, mission, parts.statistics, setting.pruning_steps)
    before = evaluate(module, search, mission)

    def search_loss(pruned: nn.Module) -> float:
        return loss_pp(before, evaluate(pruned, search, mission))

    ratio, pruned, found_loss = largest_ratio(
        prune, search_loss, setting.max_loss, setting.search_steps
    )
    val_before, val_after = (
        evaluate(network, read(parts.val, model, BATCH), mission) for network in (module, pruned)
    )
    seconds = time.perf_counter() - start

    whole = count(module, model, Plan())
    left = count(pruned, model, Plan(outputs=mission.indices))
    return {
        "mac_ratio": whole.macs / left.macs,
        "mac_ratio_with_partial": whole.macs / left.macs_with_partial,
        "param_ratio": whole.params / left.params,
        "accuracy_before": val_before.accuracy,
        "accuracy_after": val_after.accuracy,
        "loss_pp": loss_pp(val_before, val_after),
        "loss_ci95_pp": loss_interval_pp(val_before, val_after),
        "worst_class_loss_pp": worst_class_loss_pp(val_before, val_after),
        "input_side": model.preprocessing.input_size[0],
        "seconds": seconds,
        "search_loss_pp": found_loss,
        "pruning_ratio": ratio,
        "torch_pruning": version("torch-pruning"),
        "n_images": {"statistics": len(parts.statistics), "search": len(loaded.refs)}
        | {"val": val_before.n},
    }


def pruner(
    importance: str, model: Model, mission: Mission, images: ImageSet, steps: int = 1
) -> Prune:
    """A function from a pruning ratio to a copy of the network that Torch-Pruning has pruned.

    In several steps, Taylor's gradients are taken anew before each. Those of the whole network
    are the same for every ratio and taken once.
    """
    tp = importlib.import_module("torch_pruning")  # not needed for distillnet's own rows
    criteria = {
        "taylor": lambda: tp.importance.GroupTaylorImportance(),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    }
    trainable = copy.deepcopy(model.module).requires_grad_(True)
    if importance == "taylor":
        add_gradients(trainable, read(images, model, GRADIENT_BATCH), mission)

    def prune(ratio: float) -> nn.Module:
        pruned = copy.deepcopy(trainable)
        for new, old in zip(pruned.parameters(), trainable.parameters(), strict=True):
            new.grad = None if old.grad is None else old.grad.clone()  # deepcopy leaves it out
        example = torch.zeros(1, len(model.preprocessing.mean), *model.preprocessing.input_size)
        tool = tp.pruner.BasePruner(
            pruned,
            example.to(next(pruned.parameters()).device),
            importance=criteria[importance](),
            global_pruning=True,
            pruning_ratio=ratio,
            iterative_steps=steps,
            ignored_layers=[head(pruned, len(model.classes))],
        )
        for step in range(steps):
            if step > 0 and importance == "taylor":
                pruned.zero_grad()
                add_gradients(pruned, read(images, model, GRADIENT_BATCH), mission)
            tool.step()
        pruned.zero_grad()
        return pruned.requires_grad_(False)

    return prune


def add_gradients(module: nn.Module, batches: Iterable[Images], mission: Mission) -> None:
    """Leave in ``.grad`` the gradients of the cross-entropy among the mission's classes."""
    device = next(module.parameters()).device
    for x_nchw, labels_n in batches:
        scores = Scores(module(fast_layout(x_nchw.to(device))), labels_n)
        closed = closed_set(scores, mission)
        # The sum over images, so that the size of batches does not matter.
        F.cross_entropy(closed.scores_nk, closed.labels_n.to(device), reduction="sum").backward()


def head(module: nn.Module, n_classes: int) -> nn.Module:
    """The layer that makes the scores, which has to keep its outputs."""
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if layers[-1].weight.shape[0] != n_classes:
        raise ValueError(f"the last layer makes {layers[-1].weight.shape[0]} of {n_classes} scores")
    return layers[-1]


def largest_ratio(
    prune: Prune, search_loss: Callable[[nn.Module], float], max_loss: float, steps: int
) -> tuple[float, nn.Module, float]:
    """Binary search for the largest pruning ratio within the loss: ratio, network and loss.

    Found to 2 ** -steps. The loss need not rise with the ratio everywhere, as for any such search.
    """
    low, high = 0.0, 1.0
    best, best_loss = prune(0.0), 0.0
    for _ in range(steps):
        ratio = (low + high) / 2
        pruned = prune(ratio)
        loss = search_loss(pruned)
        # Losses are differences of shares; 1 % of 100 images must not be more than 1 point.
        if loss <= max_loss + 1e-9:
            low, best, best_loss = ratio, pruned, loss
        else:
            high = ratio
    return low, best, best_loss


def read(images: ImageSet, model: Model, batch_size: int) -> Iterator[Images]:
    """Images from disk, batch by batch."""
    for batch in load_batches(images, model.preprocessing, batch_size=batch_size):
        yield batch.x_nchw, batch.labels_n


def evaluate(module: nn.Module, batches: Iterable[Images], mission: Mission) -> Evaluation:
    """Closed-set accuracy of a module."""
    device = next(module.parameters()).device
    with torch.inference_mode():
        pairs = [(module(fast_layout(x.to(device))).cpu(), labels) for x, labels in batches]
    scores, labels_n = (torch.cat(part) for part in zip(*pairs, strict=True))
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("the network's scores are NaN or infinite")
    return evaluation(closed_set(Scores(scores, labels_n), mission), mission)


def count(module: nn.Module, model: Model, plan: Plan) -> Cost:
    """What a module costs, counted as distillnet counts its own."""
    how = model.preprocessing
    graph = capture(copy.deepcopy(module).cpu(), how.input_size, channels=len(how.mean))
    return cost(graph, analyse(graph), plan)


# Rows -----------------------------------------------------------------------------------------


def identity(job: Job, setting: Setting) -> Row:
    """The part of a row that tells it from others."""
    return {
        "network": job.network.name,
        "classes": len(job.classes),
        "method": job.method.name,
        "seed": job.seed,
        **setting.recorded(job.method),
    }


def measure(job: Job, setting: Setting, images: Path) -> Row:
    """The row of a job; one that fails says why."""
    row = identity(job, setting) | {"torch": torch.__version__, "commit": commit()}
    run = run_torch_pruning if job.method.importance else run_distillnet
    try:
        return row | run(job, setting, images)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is its result
        lines = str(error).strip().splitlines() or ["no message"]
        return row | {"failed": f"{type(error).__name__}: {lines[0][:200]}"}


def commit() -> str:
    """Which code is measured: the last commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    root = Path(__file__).parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or version("distillnet")


@contextmanager
def image_folder(setting: Setting) -> Iterator[Path]:
    """The images to use; for a quick look, a copy of a few, which the command takes as any other.

    Of ``train`` twice as many, for it becomes the statistics and the search images.
    """
    source = setting.data / "imagenette"
    if setting.images_per_class is None:
        yield source
        return
    table = imagenet_table()
    mission = parse_mission(",".join(TEN), table)
    folders = open_images(source, table, mission.indices)
    if folders.val is None:
        raise SystemExit(f"{source} has no val/; expected train/ and val/")
    with tempfile.TemporaryDirectory() as few:
        for name, images, n in (
            ("train", folders.train, 2 * setting.images_per_class),
            ("val", folders.val, setting.images_per_class),
        ):
            for ref in limit(images, n, seed=0).refs:
                target = Path(few) / name / ref.path.parent.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(ref.path, target)
        yield Path(few)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; a line that an interruption cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"left out an incomplete line of {path}", file=sys.stderr)
    return rows


def append_row(row: Row, path: Path) -> None:
    """Add a line to a file, which is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps(row) + "\n")


def find(rows: Sequence[Row], job: Job, setting: Setting) -> Row | None:
    """The latest row of a job under a setting."""
    wanted = identity(job, setting).items()
    fitting = (row for row in reversed(rows) if all(row.get(k) == v for k, v in wanted))
    return next(fitting, None)


def chosen(job: Job, filters: Sequence[str]) -> bool:
    """Whether any filter NETWORK/CLASSES/METHOD fits; each part is a substring, or left out."""

    def fits(text: str) -> bool:
        parts = text.casefold().split("/")
        return len(parts) <= 3 and all(
            part in name for part, name in zip(parts, job.name.casefold().split("/"), strict=False)
        )

    return not filters or any(fits(text) for text in filters)


# The table ------------------------------------------------------------------------------------

HEADER = (
    *("network", "classes", "method", "MACs, every runtime", "MACs with partial removal"),
    *("parameters", "accuracy", "loss in points, 95 % interval", "worst class", "input", "seconds"),
    "commit",
)


def table(rows: Sequence[Row], jobs: Sequence[Job], setting: Setting) -> str:
    """A Markdown table of the jobs that have rows, in the order of the jobs."""
    by_name: dict[str, list[Row]] = {}
    for job in jobs:
        if (row := find(rows, job, setting)) is not None:
            by_name.setdefault(job.name, []).append(row)
    shown = [row for of_job in by_name.values() for row in of_job]
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(cells(of_job))} |" for of_job in by_name.values()]
    return "\n\n".join([*notes(shown, setting), "\n".join(lines)])


def notes(rows: Sequence[Row], setting: Setting) -> list[str]:
    """What one has to know to read the table."""
    few = setting.images_per_class
    text = [
        f"Budget: {setting.max_loss:g} pp of closed-set accuracy on the search images. "
        "Accuracy and loss are of the val images, which nothing else read. MACs and parameters: "
        "whole network over what is left, without the scores of other classes; partial removal "
        "saves time only where a runtime skips single neurons."
    ]
    if few is not None:
        text.append(f"**A quick look at {few} images per class: no figure to quote.**")
    if versions := sorted({row["torch_pruning"] for row in rows if "torch_pruning" in row}):
        steps = "one step" if setting.pruning_steps == 1 else f"{setting.pruning_steps} steps"
        text.append(
            f"Torch-Pruning {', '.join(versions)}: global pruning in {steps}, no fine-tuning, the "
            f"largest ratio within the budget by {setting.search_steps} steps of binary search. It "
            "removes whole channels only and leaves the input's side as it is. A local response "
            "normalisation then runs over the channels that are left, which are other neighbours "
            "than before."
        )
    return text


def cells(rows: Sequence[Row]) -> list[str]:
    """One line of the table: a row, or mean and range of the rows of several seeds."""
    good = [row for row in rows if "failed" not in row]
    failures = [row["failed"].replace("|", "/") for row in rows if "failed" in row]
    method = rows[0]["method"]
    if len(good) > 1:
        method += f" ({len(good)} seeds: mean, range)"
    if failures:
        method += f" **failed: {failures[0]}**"
    first = [rows[0]["network"], str(rows[0]["classes"]), method]
    if not good:
        return first + ["-"] * (len(HEADER) - len(first))

    def figure(name: str, form: str, unit: str = "", scale: float = 1.0) -> str:
        values = [scale * row[name] for row in good]
        text = f"{statistics.mean(values):{form}}{unit}"
        if len(values) > 1:
            text += f" ({min(values):{form}} to {max(values):{form}})"
        return text

    loss = figure("loss_pp", "+.1f")
    if len(good) == 1:
        low, high = good[0]["loss_ci95_pp"]
        loss += f" ({low:+.1f} to {high:+.1f})"
    before = 100 * statistics.mean(row["accuracy_before"] for row in good)  # equal for all seeds
    return [
        *first,
        figure("mac_ratio", ".2f", "x"),
        figure("mac_ratio_with_partial", ".2f", "x"),
        figure("param_ratio", ".2f", "x"),
        f"{before:.1f} -> {figure('accuracy_after', '.1f', ' %', 100)}",
        loss,
        figure("worst_class_loss_pp", ".1f"),
        "/".join(dict.fromkeys(str(row["input_side"]) for row in good)),
        figure("seconds", ".0f"),
        "/".join(dict.fromkeys(row.get("commit", "-") for row in good)),
    ]


def parse_arguments() -> argparse.Namespace:
    """The options, checked before anything is measured."""
    root = Path(__file__).resolve().parents[1]
    data = Path(os.environ.get("DISTILLNET_DATA", root.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=data, help="with imagenette/ and weights/")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NETWORK/CLASSES/METHOD",
        help="parts of names, such as googlenet/5 or //taylor; may be given several times",
    )
    parser.add_argument("--max-loss", type=float, default=1.0, help="percentage points")
    parser.add_argument("--out", type=Path, default=Path("runs/methods.jsonl"), help="rows as JSON")
    parser.add_argument("--resume", action="store_true", help="skip the rows that --out has")
    parser.add_argument(
        "--table", action="store_true", help="measure nothing, print what --out has"
    )
    parser.add_argument("--images-per-class", type=int, help="for a quick look, not for figures")
    parser.add_argument("--search-steps", type=int, default=7, help="Torch-Pruning's ratio")
    parser.add_argument("--pruning-steps", type=int, default=1, help="Torch-Pruning's iterations")
    args = parser.parse_args()
    args.jobs = [job for job in JOBS if chosen(job, args.only)]
    if not args.jobs:
        names = "\n".join(dict.fromkeys(job.name for job in JOBS))
        parser.error(f"--only {' '.join(args.only)} fits none of\n{names}")
    if args.table:
        if not args.out.exists():
            parser.error(f"there is no {args.out} to print a table of")
        return args
    if not (args.data / "imagenette").is_dir() or not (args.data / "weights").is_dir():
        parser.error(f"{args.data} holds no imagenette/ and weights/; pass --data")
    if args.out.exists() and not args.resume:
        parser.error(f"{args.out} exists; add to it with --resume, or choose another --out")
    if any(job.method.importance for job in args.jobs) and find_spec("torch_pruning") is None:
        parser.error("pip install torch-pruning, or leave its rows out with --only //distillnet")
    if min(args.search_steps, args.pruning_steps, args.images_per_class or 1) < 1:
        parser.error("--search-steps, --pruning-steps and --images-per-class have to be above 0")
    return args


def main() -> None:
    """Measure what is missing and print the table."""
    args = parse_arguments()
    setting = Setting(
        args.data, args.max_loss, args.images_per_class, args.search_steps, args.pruning_steps
    )
    rows = read_rows(args.out)
    if not args.table:
        with image_folder(setting) as images:
            for job in args.jobs:
                known = find(rows, job, setting)
                if known is not None and "failed" not in known:
                    continue
                print(f"{job.name}, seed {job.seed}", file=sys.stderr, flush=True)
                rows.append(measure(job, setting, images))
                append_row(rows[-1], args.out)
    print(table(rows, args.jobs, setting))


if __name__ == "__main__":
    main()
