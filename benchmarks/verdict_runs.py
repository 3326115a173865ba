"""Whole runs of the yardstick's missions, by one state of the project beside another.

    python benchmarks/verdict_runs.py run time --data DATA --cache CACHE [--at-once 1]
    python benchmarks/verdict_runs.py run tune --data DATA --cache CACHE -- --tune
    python benchmarks/verdict_runs.py run before --source OLD/src --data DATA --cache CACHE
    python benchmarks/verdict_runs.py table --cache CACHE --against before

``run`` distills each mission of ``verdict_cases.CASES`` by the command line, with the options after
``--``, and keeps each result.json under a label; it goes on where it was stopped. With ``--bench``
the network is then timed beside the original in ONNX Runtime, one thread. ``--source`` lets
another state do it, as ``git worktree add OLD 1500d87`` makes one. The search images lie in a
folder ``train``, the report images in ``val``, as a user would have them. ``table`` prints what
each label saves, what its losses are beside those expected, and geometric means.

The part ``cifar`` needs a network that is trained first, in five minutes, beside the other weights:

    distillnet train zoo:tf_cifar --data DATA/cifar10 --out DATA/weights/tf_cifar.safetensors
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from distillnet.images import ImageRef
from verdict_cases import PARTS, Case, cases, load, open_case

_OPTIONS = {
    "SqueezeNet": ("torchvision:squeezenet1_0", "--weights", "weights/squeezenet1_0.safetensors"),
    "GoogLeNet": ("zoo:bvlc_googlenet", "--weights", "weights/bvlc_googlenet.safetensors"),
    "MobileNet": (
        "models/mobilenet_v1.py:build", "--weights", "models/mobilenet_v1_075.safetensors",
        "--input-size", "224", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5",
        "--class-names", "imagenet_classes.tsv",
    ),
    "TF-CIFAR": ("zoo:tf_cifar", "--weights", "weights/tf_cifar.safetensors"),
}  # fmt: skip
_opened = cache(zipfile.ZipFile)  # each has to be listed when it is opened
_DEFAULT_SOURCE = Path(__file__).parents[1] / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("label", nargs="?", default="")
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--source", type=Path, default=_DEFAULT_SOURCE)
    parser.add_argument("--part", choices=PARTS, default="report")
    parser.add_argument("--only", default="", help="part of a mission's name")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--bench", action="store_true", help="also keep the ratio of times")
    parser.add_argument("--against", default="", help="the label that others are compared with")
    args, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    wanted = [case for case in cases(args.part) if args.only in case.name]
    if args.what == "table":
        print_table(args.cache, wanted, args.against)
        return
    if not args.label:
        parser.error("expected a label, such as time, under which results are kept")
    (args.cache / args.label).mkdir(parents=True, exist_ok=True)
    left = [case for case in wanted if not (args.cache / args.label / f"{case.name}.json").exists()]
    folders = {case.name: write_folder(case, args.data, args.cache) for case in left}
    with ThreadPoolExecutor(args.at_once) as pool:
        jobs = [pool.submit(distill, case, folders[case.name], args, options) for case in left]
        for job in jobs:
            job.result()


def write_folder(case: Case, data: Path, cache: Path) -> Path:
    """The mission's images as a user would have them."""
    root = cache / "images" / case.name
    if not root.exists():
        model = load(case.network, data)
        _, images = open_case(case, model, data)
        parts = {"train": (*images.statistics.refs, *images.search.refs), "val": images.val.refs}
        for part, refs in parts.items():
            for ref in refs:
                copy_image(ref, root / part)
    return root


def copy_image(ref: ImageRef, to: Path) -> None:
    """An image's file, or what a zip holds of it, in the folder of its class."""
    name = Path(ref.member) if ref.member else ref.path
    path = to / name.parent.name / name.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if ref.member:
        path.write_bytes(_opened(ref.path).read(ref.member))
    else:
        shutil.copyfile(ref.path, path)


def distill(case: Case, images: Path, args: argparse.Namespace, options: Sequence[str]) -> None:
    """One run, whose result is kept."""
    words = [
        str(args.data / word.partition(":")[0]) + "".join(word.partition(":")[1:])
        if (args.data / word.partition(":")[0]).is_file()
        else word
        for word in _OPTIONS[case.network]
    ]
    classes = ",".join(sorted(folder.name for folder in (images / "train").iterdir()))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            *(sys.executable, "-m", "distillnet", "distill", *words, "--data", str(images)),
            *("--classes", classes, "--out", str(out), *options),
        ]
        path = f"{args.source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"{case.name}: {done.stderr.strip()[-500:]}", file=sys.stderr)
            return
        result = json.loads((out / "result.json").read_text())
        if args.bench:
            own = words[0].endswith(":build") and args.source == _DEFAULT_SOURCE
            model = ("--model", words[0]) if own else ()  # 1500d87 runs it unasked
            result |= times(out, model, environment)
        (args.cache / args.label / f"{case.name}.json").write_text(json.dumps(result))
        print(f"{args.label} {case.name}", flush=True)


def times(run: Path, model: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """The original's time in ONNX Runtime over the network's; nothing where that failed.

    And how much of the time others had the processor: they make the ratio too large.
    """
    command = [
        *(sys.executable, "-m", "distillnet", "bench", str(run), "--runtime", "onnx"),
        *("--no-profile", "--json", *model),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{run}, bench: {done.stderr.strip()[-500:]}", file=sys.stderr)
        return {}
    told = json.loads(done.stdout)
    busy = told.get("busy_share")  # 1500d87 does not know
    print(f"{run}: others had the processor for {busy or 0:.1%} of the time", flush=True)
    return {"onnx_time_ratio": float(told["time_ratio"]["onnx"]), "busy_share": busy}


def print_table(cache: Path, cases: Sequence[Case], against: str) -> None:
    """What each label saves of each mission, and means over the missions that all of them have."""
    labels = sorted(path.name for path in cache.iterdir() if any(path.glob("*.json")))
    found: dict[str, dict[str, dict[str, Any]]] = {label: {} for label in labels}
    for label in labels:
        for case in cases:
            path = cache / label / f"{case.name}.json"
            if path.exists():
                found[label][case.name] = json.loads(path.read_text())
    labels = [label for label in labels if found[label]]
    print("| mission | " + " | ".join(labels) + " |")
    print("|---" * (1 + len(labels)) + "|")
    for case in cases:
        cells = [_cell(found[label].get(case.name)) for label in labels]
        print(f"| {case.name} | " + " | ".join(cells) + " |")
    common = [c.name for c in cases if all(c.name in found[label] for label in labels)]
    rows = {
        "MACs, geometric mean": lambda mine, base: f"{_mean(mine):.2f}x",
        "times in ONNX Runtime, geometric mean": lambda mine, base: _times(mine),
        f"MACs beside {against}": lambda mine, base: (
            f"{_mean(mine) / _mean(base):.2f}" if base else ""
        ),
        "found less expected, mean": lambda mine, base: _bias(mine),
        "interval of the expected loss holds what is found": lambda mine, base: _count(
            mine, _holds_alone
        ),
        "the same, together with the interval of what is found": lambda mine, base: _count(
            mine, _holds
        ),
        "beyond the budget by more than chance": lambda mine, base: _count(mine, _beyond),
    }
    for name, figure in rows.items():
        cells = []
        for label in labels:
            mine = [found[label][name_] for name_ in common]
            base = [found[against][name_] for name_ in common] if against in found else []
            cells.append(figure(mine, base))
        print(f"| **{name}**, {len(common)} missions | " + " | ".join(cells) + " |")


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    expected = f" (expected {result['expected_loss_pp']:+.1f})" if _expects(result) else ""
    ratio = result.get("onnx_time_ratio")
    times = f", time {ratio:.2f}x" if ratio is not None else ""
    return f"{result['mac_ratio']:.2f}x{times}, {result['loss_pp']:+.1f}{expected}"


def _expects(result: dict[str, Any]) -> bool:
    return result.get("expected_loss_pp") is not None


def _mean(results: Sequence[dict[str, Any]]) -> float:
    return geometric_mean(result["mac_ratio"] for result in results)


def _times(results: Sequence[dict[str, Any]]) -> str:
    ratios = [result.get("onnx_time_ratio") for result in results]
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{geometric_mean(known):.2f}x" if known and len(known) == len(ratios) else ""


def _bias(results: Sequence[dict[str, Any]]) -> str:
    off = [r["loss_pp"] - r["expected_loss_pp"] for r in results if _expects(r)]
    return f"{sum(off) / len(off):+.2f}" if off else ""


def _half_width(interval: Sequence[float]) -> float:
    return (interval[1] - interval[0]) / 2


def _holds(result: dict[str, Any]) -> bool | None:
    """Whether expected and found differ by no more than both intervals explain together."""
    if not result.get("expected_ci95_pp"):
        return None
    wide = math.hypot(_half_width(result["expected_ci95_pp"]), _half_width(result["loss_ci95_pp"]))
    return bool(abs(result["loss_pp"] - result["expected_loss_pp"]) <= wide)


def _holds_alone(result: dict[str, Any]) -> bool | None:
    """Whether what is found, as far as so many images tell, lies in the interval expected."""
    if not (interval := result.get("expected_ci95_pp")):
        return None
    return bool(interval[0] <= result["loss_pp"] <= interval[1])


def _beyond(result: dict[str, Any]) -> bool | None:
    """Whether a loss beyond the budget of one point is more than its interval explains."""
    return bool(result["loss_ci95_pp"][0] > 1.0)


def _count(results: Sequence[dict[str, Any]], of: Any) -> str:
    known = [answer for result in results if (answer := of(result)) is not None]
    return f"{sum(known)} of {len(known)}" if known else ""


if __name__ == "__main__":
    main()
