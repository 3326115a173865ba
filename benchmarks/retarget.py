"""Random missions from one atlas, beside `distill` with images at the same MAC ratio.

    python benchmarks/retarget.py MODEL --weights FILE --data DATA/imagenette --cache CACHE \
        [--sets 20] [--ratio 3] [--side 176] [--images-too]

Collects the atlas of all classes in DATA/train once, then retargets SETS random sets of 2 to 8 of
them, and measures each on DATA/val; with --images-too also what `distill` gives for the same ratio.
With --side, retarget's networks take images of so many pixels. Every result is a line of
CACHE/results.jsonl and is not measured again, so it goes on where it was stopped; at last it prints
a table row. Seconds are those of retarget alone; no image is read then.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import fmean

import torch

from distillnet.classes import Mission
from distillnet.images import ImageSet, open_images
from distillnet.job.distill import distill, evaluate_found
from distillnet.job.options import Options
from distillnet.job.partition import split_images
from distillnet.missions.collecting import Pass, collect_model
from distillnet.missions.files import EVIDENCE, MissionAtlas, open_mission_atlas
from distillnet.missions.retargeting import retarget
from distillnet.models import Model, load_model
from distillnet.search import Budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--ratio", type=float, default=3.0)
    parser.add_argument("--side", type=int)
    parser.add_argument("--images-too", action="store_true")
    asked = parser.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    model = load_model(asked.model, weights=asked.weights)
    folders = open_images(asked.data, model.classes)
    atlas = _atlas(model, folders.train, asked.cache)
    for mission in random_missions(model, sorted(atlas.samples), asked.sets):
        key = {"model": model.name, "classes": list(mission.indices), "ratio": asked.ratio}
        if not _known(asked.cache, key | {"by": "retarget", "side": asked.side}):
            _retarget(atlas, model, mission, asked, folders.val, key)
        if asked.images_too and not _known(asked.cache, key | {"by": "distill"}):
            _distill(model, mission, asked.ratio, asked.data, asked.cache, key)
    _report(asked.cache, model.name, asked.ratio, asked.side)


def random_missions(model: Model, classes: list[int], count: int) -> list[Mission]:
    """Sets of 2 to 8 classes, the same for the same classes."""
    draw = random.Random(20)
    sets = [tuple(sorted(draw.sample(classes, draw.randint(2, 8)))) for _ in range(count)]
    return [Mission(s, tuple(model.classes.names[i] for i in s)) for s in sets]


def _atlas(model: Model, images: ImageSet, cache: Path) -> MissionAtlas:
    directory = cache / "atlas"
    if not (directory / EVIDENCE).exists():
        directory.mkdir(exist_ok=True)
        resume = (directory / "unfinished" / "collect.json").exists()
        how = Pass(resume=resume)
        collect_model(model, images, directory, directory, how, Options())
    return open_mission_atlas(directory)


def _retarget(
    atlas: MissionAtlas,
    model: Model,
    mission: Mission,
    asked: argparse.Namespace,
    val: ImageSet,
    key: dict[str, object],
) -> None:
    options = Options(budget=Budget(target_macs=asked.ratio), keep_input_size=True)
    size = (asked.side, asked.side) if asked.side else None
    start, cpu = time.perf_counter(), time.process_time()
    done = retarget(atlas, model, mission, options, size=size)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    images = val.select(mission.indices)
    before, (after,), _ = evaluate_found(
        done.graph, [done.found.to("cpu")], model, mission, images, options, lambda *_: None
    )
    _note(
        asked.cache,
        key
        | {
            "by": "retarget",
            "side": asked.side,
            "mac_ratio": done.mac_ratio,
            "before": before.accuracy,
            "after": after.accuracy,
            "expected_loss_pp": done.found.expected.loss_pp,
            "seconds": seconds,
            "cpu_s": cpu_s,
        },
    )


def _distill(
    model: Model, mission: Mission, ratio: float, data: Path, cache: Path, key: dict[str, object]
) -> None:
    options = Options(budget=Budget(target_macs=ratio))
    parts = split_images(open_images(data, model.classes, mission))
    with tempfile.TemporaryDirectory() as folder:
        done = distill(model, mission, parts, Path(folder), options)
    _note(
        cache,
        key
        | {
            "by": "distill",
            "mac_ratio": done.mac_ratio,
            "before": done.baseline.accuracy,
            "after": done.distilled.accuracy,
            "seconds": done.seconds["total"],
        },
    )


def _results(cache: Path) -> list[dict[str, object]]:
    path = cache / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _known(cache: Path, key: dict[str, object]) -> bool:
    return any(key.items() <= ({"side": None} | result).items() for result in _results(cache))


def _note(cache: Path, result: dict[str, object]) -> None:
    print(json.dumps(result), flush=True)
    with (cache / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")


def _report(cache: Path, name: str, ratio: float, side: int | None) -> None:
    """A row for docs/results.md: losses in points of both, and of retarget beyond distill."""
    by: dict[str, dict[tuple[int, ...], float]] = {"retarget": {}, "distill": {}}
    seconds = []
    for result in _results(cache):
        ours = result["by"] == "distill" or result.get("side") == side
        if result["model"] == name and result["ratio"] == ratio and ours:
            loss = 100 * (float(result["before"]) - float(result["after"]))
            by[str(result["by"])][tuple(result["classes"])] = loss
            seconds += [float(result["cpu_s"])] if result["by"] == "retarget" else []
    losses, others = by["retarget"], by["distill"]
    both = [losses[s] - others[s] for s in losses if s in others]
    more = f"{fmean(both):+.2f}, worst {max(both):+.1f} ({len(both)} sets)" if both else "-"
    print(f"| {name} | {ratio:g}x | {len(losses)} | {fmean(losses.values()):+.2f} | {more} | "
          f"{fmean(seconds):.0f} s of one core, at most {max(seconds):.0f} |")  # fmt: skip


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
