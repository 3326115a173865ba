"""Missions of runs in the C engine in 8 bits: accuracy, bytes, time, and what their scales cost.

    python benchmarks/int8_missions.py RUN [RUN ...] --data DIR [--scales]

The runs are missions over one set of weights, as ``export --format c --int8 --switchable`` writes.
Scores are compared with the reference, bit by bit, on all val images (``--reference N``: on N of
them). *Tables* are what a mission adds to flash. Times are of one image on one thread, in turns:
*dense* is the whole network in 8 bits with all its scores, *compact* the mission's own network in 8
bits. ``--scales`` tells what calibration does: the difference from float32 with the ranges that all
missions share, and with those of each mission alone. ``--firmware DIR`` writes a folder for
examples/cortex-m with the missions and one more, ``dense``, that computes everything.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillnet.cli.commands.exporting import images_of_run
from distillnet.cli.missions.unknowns import with_weights
from distillnet.cut.plan import Plan
from distillnet.deploy.bench import interleave
from distillnet.deploy.c_folder import open_c
from distillnet.deploy.c_missions import missions_of_runs, torch_scores
from distillnet.deploy.exporting import read_val, some_images
from distillnet.deploy.int8.c import (
    BLOCKS,
    Whole,
    calibrate,
    prepare,
    prepare_missions,
    write_network,
)
from distillnet.engine import MissionPlan, Native, prepare_switchable
from distillnet.engine.int8 import CALIBRATIONS, Ranges, find_ranges, reference_scores, united
from distillnet.job.partition import Images
from distillnet.job.runs import Run, open_run


def written(whole: Whole, ranges: Ranges, folder: Path, block: int = BLOCKS["vectors"]) -> Native:
    folder.mkdir()
    network, missions = whole.quantised(ranges, block)
    write_network(network, missions, whole.networks[0], folder, "net")
    return open_c(folder, folder)[0]


def table_bytes(folder: Path, name: str) -> int:
    """What a mission's tables take of a target's flash."""
    out = folder / f"{name}.o"
    source = folder / "missions" / f"{name}.c"
    subprocess.run(["cc", "-O2", "-DNET_WEIGHTS_FROM_FILE", "-c", source, "-o", out], check=True)
    said = subprocess.run(["size", out], check=True, capture_output=True, text=True).stdout
    text, data, *_ = map(int, said.splitlines()[1].split()[:3])
    return text + data


def told(scores: np.ndarray, wanted: np.ndarray, labels: np.ndarray) -> str:
    error = float(np.sqrt(np.mean((scores - wanted) ** 2)) / np.std(wanted))
    differ = int((scores.argmax(1) != wanted.argmax(1)).sum())
    right = 100 * float((scores.argmax(1) == labels).mean())
    return (
        f"{right:.2f} %, {differ} decisions differ, error {100 * error:.2f} % of the scores' "
        "deviation"
    )


def compare_scales(
    whole: Whole, seen: list[dict[str, Ranges]], images: list[tuple[Tensor, Tensor]], folder: Path
) -> None:
    names = [m.name for m in whole.prepared.missions]
    for kind in CALIBRATIONS:
        ways = {"shared": united([s[kind] for s in seen])}
        ways |= {name: s[kind] for name, s in zip(names, seen, strict=True)}
        for way, ranges in ways.items():
            native = written(whole, ranges, folder / f"{kind}-{way}")
            for i, name in enumerate(names):
                if way not in ("shared", name):
                    continue
                x, labels = images[i]
                wanted = torch_scores(whole.networks[i].module, x.numpy())
                scores = native.scores(native.mission(name), x.numpy())
                label = "shared" if way == "shared" else "own"
                print(f"{name}, {kind}, {label} ranges: {told(scores, wanted, labels.numpy())}")


def with_dense(runs: list[Run], *, alone: bool) -> Whole:
    """All of the original as a mission, without the runs or as the last beside them."""
    graph, missions, networks = missions_of_runs(runs)
    count = graph[graph.output].shape[0]
    dense = MissionPlan("dense", Plan(), tuple(map(str, range(count))))
    wanted = [dense] if alone else [*missions, dense]
    return Whole(prepare_switchable(graph, wanted), tuple(networks))


def write_firmware(runs: list[Run], some: list[Tensor], kind: str, folder: Path) -> None:
    whole = with_dense(runs, alone=False)
    graphs = whole.prepared.graphs
    seen = [find_ranges(g, x)[kind] for g, x in zip(graphs, [*some, some[0]], strict=True)]
    network, missions = whole.quantised(united(seen), BLOCKS["cortex-m"])
    folder.mkdir(parents=True)
    write_network(network, missions, whole.networks[0], folder, "model")


def measure(runs: list[Run], images: list[Images], args: argparse.Namespace, folder: Path) -> None:
    whole = prepare_missions(runs)
    pairs = list(zip(images, whole.networks, strict=True))
    some = [some_images(i.search, n) for i, n in pairs]
    val = [read_val(i.val, n, r) for (i, n), r in zip(pairs, runs, strict=True)]
    graphs = whole.prepared.graphs
    if args.scales:
        seen = [find_ranges(g, x) for g, x in zip(graphs, some, strict=True)]
        compare_scales(whole, seen, val, folder)
    if args.calibration is None:
        kind, ranges = calibrate(whole, some, [some_images(i.statistics, n) for i, n in pairs])
    else:
        kind = args.calibration
        ranges = united([find_ranges(g, x)[kind] for g, x in zip(graphs, some, strict=True)])
    native = written(whole, ranges, folder / "all")
    network, missions = whole.quantised(ranges, BLOCKS["vectors"])
    print(f"{kind}; shared weights {network_bytes(folder / 'all'):,} bytes")
    names = ["dense"]
    if args.firmware is not None:
        write_firmware(runs, some, kind, args.firmware)
    original = with_dense(runs, alone=True)
    seen_whole = find_ranges(original.prepared.graphs[0], some[0])[kind]
    dense = written(original, seen_whole, folder / "dense")
    x0 = some[0][:1].numpy()
    calls = [lambda b=dense.mission("dense"): dense.scores(b, x0)]
    for i, mission in enumerate(missions):
        x, labels = val[i]
        bound = native.mission(mission.name)
        scores = native.scores(bound, x.numpy())
        at = np.linspace(0, len(x) - 1, min(len(x), args.reference)).astype(int)
        wanted = reference_scores(network, x.numpy()[at], mission)
        same = np.array_equal(wanted, scores[at])
        alike = int((wanted.argmax(1) == scores[at].argmax(1)).sum())
        real = torch_scores(whole.networks[i].module, x.numpy())
        right = 100 * float((real.argmax(1) == labels.numpy()).mean())
        print(
            f"{mission.name}: float32 {right:.2f} %, int8 {told(scores, real, labels.numpy())}; of "
            f"{len(x)} val images; the reference decides alike on {alike} of {len(at)}, "
            f"{'in every bit' if same else 'NOT in every bit'}; tables "
            f"{table_bytes(folder / 'all', mission.name):,} bytes"
        )
        names.append(f"{mission.name}, switchable")
        calls.append(lambda b=bound: native.scores(b, x0))
        alone = prepare(whole.networks[i], mission.name)
        small = written(
            alone, find_ranges(alone.prepared.graphs[0], some[i])[kind], folder / f"small{i}"
        )
        names.append(f"{mission.name}, compact")
        calls.append(lambda n=small, b=small.mission(mission.name): n.scores(b, x0))
    times = 1e3 * interleave(calls, args.seconds, 20)
    for i, name in enumerate(names):
        ratio = np.median(times[:, i] / times[:, 0])
        low = np.percentile(times, 5, axis=0)
        print(
            f"{name:32} {np.median(times[:, i]):8.3f} ms, {ratio:.3f} of dense, by 5 % quantiles "
            f"{low[i] / low[0]:.3f}"
        )


def network_bytes(folder: Path) -> int:
    return (folder / "weights.bin").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="of the original, where runs do not tell")
    parser.add_argument("--reference", type=int, default=10**6)
    parser.add_argument("--calibration", choices=CALIBRATIONS, help="in place of the best one")
    parser.add_argument("--scales", action="store_true")
    parser.add_argument("--firmware", type=Path, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [with_weights(open_run(run), args.weights) for run in args.runs]
    images = [images_of_run(run, args.data) for run in runs]
    assert all(images)
    with tempfile.TemporaryDirectory() as name:
        measure(runs, images, args, Path(name))


main()
