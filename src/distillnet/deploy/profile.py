"""Where a network spends its time, layer by layer, in ONNX Runtime.

ONNX Runtime fuses and renames nodes; what is left of a convolution is found again by the names of
the tensors that it or its activation makes. All else is summed by kind: pooling, concat, and the
changes of memory layout that it makes around layers whose channels do not fill its blocks.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillnet.deploy.extras import need
from distillnet.deploy.onnx_file import open_onnx

__all__ = ["LayerTime", "held_back", "profile_onnx"]


@dataclass(frozen=True)
class LayerTime:
    """A layer or a kind of small operators: median ms an image, and MACs."""

    name: str
    ms: float
    macs: int


def profile_onnx(path: Path, folder: Path, threads: int, runs: int = 30) -> tuple[LayerTime, ...]:
    """Times by layer of an fp32 ONNX file at batch 1, the slowest first."""
    onnx = need("onnx", "onnx")
    file = open_onnx(path, threads, profile_prefix=str(folder / "profile"))
    _, channels, height, width = file.session.get_inputs()[0].shape
    x = np.zeros((1, channels, height, width), np.float32)
    for _ in range(runs):
        file.scores(x)
    events = json.loads(Path(file.session.end_profiling()).read_text())
    layers, macs = _layers(onnx, path)
    spent: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            spent[node].append(event["dur"] / 1e3)
            kinds[node] = event["args"]["op_name"]
    totals: dict[str, float] = defaultdict(float)
    for node, times in spent.items():
        plain = re.sub(r"_(nchwc|token_\d+)$", "", node)
        # A node may run several times in a run under one name.
        totals[layers.get(plain, kinds[node])] += float(np.median(times)) * len(times) / runs
    times_of = [LayerTime(name, ms, macs.get(name, 0)) for name, ms in totals.items()]
    return tuple(sorted(times_of, key=lambda layer: -layer.ms))


def _layers(onnx: "object", path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Layer names by the names that nodes may go by, and MACs by layer name."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))  # type: ignore[attr-defined]
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.value_info, *model.graph.output]
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    names: dict[str, str] = {}
    macs: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in weights:
            continue
        layer = re.sub(r"_weight$", "", node.input[1])
        made = node.output[0]
        names[node.name] = names[made] = layer
        for reader in readers[made]:
            names[reader.output[0]] = layer
        positions = int(np.prod(shapes.get(made, [1, 1])[2:]))
        macs[layer] = int(np.prod(weights[node.input[1]])) * positions
    return names, macs


def held_back(
    before: tuple[LayerTime, ...], after: tuple[LayerTime, ...], mac_ratio: float
) -> tuple[tuple[str, float], ...]:
    """What keeps the MAC ratio from becoming a time ratio: names, and ms beyond what was promised.

    Promised is each layer's own time before, divided by the network's MAC ratio.
    """
    then = {layer.name: layer.ms for layer in before}
    beyond = [(layer.name, layer.ms - then.get(layer.name, 0.0) / mac_ratio) for layer in after]
    return tuple(sorted((b for b in beyond if b[1] > 0), key=lambda b: -b[1]))
