"""Ways to cut a network down to a few classes, on the same images under the same budget.

    pip install torch-pruning
    python benchmarks/methods.py [--only NETWORK/CLASSES/METHOD] [--resume] [--table]

Two ImageNet networks, five and ten of their classes: distillnet's searches; whole channels chosen
by L1 or at random, with best's refitting, input sizes and search; and Torch-Pruning
(https://github.com/VainF/Torch-Pruning) with Taylor and magnitude importance. Each row is written
to ``--out`` as a line of JSON when it is measured; at the end all are printed as a Markdown table.
A part takes best apart: without splits, and with other scores for channels. The last one sets
networks of as many MACs beside each other, without and with a short training: distillnet's --tune,
which Torch-Pruning gets, too, and the latter's own loop, with labels (methods_training).

What is equal for all: the loss allowed, the statistics and search images (all of which fit and
judge in best, which goes by the loss that it expects), the val images that only the final figures
read, and the counting of MACs and parameters (``distillnet.cut.cost``, with the scores of other
classes gone). distillnet runs as its command does. Torch-Pruning runs as its documentation shows
it: global pruning of the network without its last layer; no fine-tuning, but in the last part.
Taylor's gradients are those of the cross-entropy among the mission's classes on the statistics
images. A binary search over the pruning ratio plays the part of distillnet's search.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from distillnet.classes import imagenet_table, parse_mission
from distillnet.images import limit, open_images
from methods_jobs import (
    JOBS,
    TEN,
    Job,
    Row,
    Setting,
    append_row,
    chosen,
    find,
    identity,
    read_rows,
)
from methods_table import table
from methods_torch_pruning import run_torch_pruning


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
