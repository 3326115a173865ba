"""The C engine in 8 bits beside itself in float32: accuracy, decisions, bytes, time.

    python benchmarks/int8.py --data DIR NETWORK ...

NETWORK is a run, or one of googlenet, squeezenet and mobilenet, whose weights lie in DIR (see
CONTRIBUTING.md), cut to five classes of imagenette. Ranges are taken on training images; accuracy
is on all val images of the classes, where the C is also compared with the reference, decision by
decision and bit by bit; --reference N compares on N of them. Times are of one image on one thread,
in turns.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission, parse_mission
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.deploy.bench import interleave
from distillnet.deploy.c_folder import open_c, write_c
from distillnet.deploy.int8.c import calibrate, prepare, write_network
from distillnet.deploy.networks import Deployable, distilled_network
from distillnet.engine.int8 import reference_scores
from distillnet.graph import GraphModule
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import ImageSet, limit, load_all, open_images
from distillnet.job.runs import open_run
from distillnet.models import load_model

CLASSES = ("tench", "English springer", "cassette player", "chain saw", "church")
HALF = (0.5, 0.5, 0.5)
MODELS = {
    "googlenet": ("zoo:bvlc_googlenet", "weights/bvlc_googlenet.safetensors", {}),
    "squeezenet": ("torchvision:squeezenet1_0", "weights/squeezenet1_0.safetensors", {}),
    "mobilenet": (
        "{}/models/mobilenet_v1.py:build", "models/mobilenet_v1_075.safetensors",
        {"input_size": 224, "mean": HALF, "std": HALF},
    ),
}  # fmt: skip
CALIBRATED, JUDGED = 20, 20  # images a class


def network_of(name: str, data: Path) -> tuple[Deployable, Mission, ImageSet, ImageSet]:
    """A network of a few classes, and the training and val images of these."""
    images = data / "imagenette"
    if name in MODELS:
        spec, weights, how = MODELS[name]
        table = None if spec.startswith("zoo") else data / "imagenet_classes.tsv"
        model = load_model(
            spec.format(data), weights=data / weights, class_names=table, run_code=True, **how
        )
        mission = parse_mission(list(CLASSES), model.classes)
        graph = capture_model(model, model.preprocessing.input_size)
        graph = compact(graph, analyse(graph), Plan(outputs=mission.indices))
        provenance = {"producer": "benchmarks/int8.py", "network": name}
        module = GraphModule(graph).eval()
        network = Deployable(name, module, model.preprocessing, mission.names, provenance)
        folders = open_images(images, model.classes, mission.indices)
    else:
        run = open_run(Path(name))
        network, mission = replace(distilled_network(run), name=Path(name).name), run.mission
        folders = open_images(images, run.classes, mission.indices)
    assert folders.val is not None
    return network, mission, folders.train, folders.val


def measure(name: str, args: argparse.Namespace, folder: Path) -> None:
    network, mission, train, val = network_of(name, args.data)
    labelled = load_all(val, network.preprocessing)
    labels = np.array([mission.indices.index(int(label)) for label in labelled.labels_n])
    x = labelled.x_nchw.numpy()
    prepared = prepare(network, "all")
    ranges, judges = calibration_images(train, network)
    kind, found = calibrate(prepared, [ranges], [judges])
    quantised, bits = prepared.quantised(found, 16)
    where = {"float32": folder / "float", "int8": folder / "int8"}
    for path in where.values():
        path.mkdir(parents=True)
    write_c(network, where["float32"])
    write_network(quantised, bits, network, where["int8"], "model")
    if args.firmware is not None:
        path = args.firmware / network.name
        path.mkdir(parents=True)
        write_network(*prepared.quantised(found, 1), network, path, "model")
    calls, scores, sizes = [], {}, {}
    for precision, path in where.items():
        native, missions = open_c(path, path)
        bound = native.mission(next(iter(missions)))
        scores[precision] = native.scores(bound, x)
        sizes[precision] = (path / "weights.bin").stat().st_size
        calls.append(lambda n=native, b=bound: n.scores(b, x[:1]))
    right = {p: 100 * float((y.argmax(1) == labels).mean()) for p, y in scores.items()}
    differ = int((scores["float32"].argmax(1) != scores["int8"].argmax(1)).sum())
    some = np.linspace(0, len(x) - 1, min(len(x), args.reference)).astype(int)
    reference = reference_scores(quantised, x[some], bits[0])
    same = int((reference.argmax(1) == scores["int8"][some].argmax(1)).sum())
    equal = np.array_equal(reference, scores["int8"][some])
    times = 1e3 * interleave(calls, args.seconds, 20)
    low, high = np.percentile(times, 5, axis=0), np.median(times, axis=0)
    print(
        f"{name}: float32 {right['float32']:.1f} %, int8 {right['int8']:.1f} % of {len(x)} val "
        f"images ({kind}), {differ} decisions differ; the reference decides alike on {same} of "
        f"{len(some)}, {'in every bit' if equal else 'NOT in every bit'}; weights "
        f"{sizes['float32']:,} and {sizes['int8']:,} bytes, {sizes['float32'] / sizes['int8']:.2f} "
        f"times fewer; {high[0]:.2f} and {high[1]:.2f} ms, ratio of medians "
        f"{np.median(times[:, 0] / times[:, 1]):.2f}, of 5 % quantiles {low[0] / low[1]:.2f}",
        flush=True,
    )


def calibration_images(train: ImageSet, network: Deployable) -> tuple[Tensor, Tensor]:
    both = load_all(limit(train, CALIBRATED + JUDGED, 0), network.preprocessing).x_nchw
    order = torch.randperm(len(both), generator=torch.Generator().manual_seed(0))
    half = len(both) * CALIBRATED // (CALIBRATED + JUDGED)
    return both[order[:half]], both[order[half:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reference", type=int, default=10**6)
    parser.add_argument(
        "--firmware", type=Path, metavar="DIR", help="also write folders for examples/cortex-m"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for i, name in enumerate(args.networks):
        with tempfile.TemporaryDirectory() as folder:
            measure(name, args, Path(folder) / str(i))


if __name__ == "__main__":
    main()
