"""What this machine takes time for, measured once and remembered.

Two things keep multiplications from being all that counts. Runtimes lay channels out in blocks
(ONNX Runtime's are of 8 or 16) and take slower code, or change the layout, where a layer does not
fill them; and every number that a layer makes has to be written and read again. Both are asked of
small networks in ONNX Runtime where it is installed, else in torch.
"""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from distillnet.deploy.bench import interleave, machine
from distillnet.deploy.extras import is_installed, need
from distillnet.errors import InputError
from distillnet.files.documents import read_document

__all__ = ["MULTIPLES", "best_multiple", "element_cost", "time_of_multiples"]

MULTIPLES = (1, 2, 4, 8, 16, 32)
_WIDTHS = (19, 27, 35, 42, 53, 61, 74, 86, 99, 117)  # that a search may leave
_SIDE, _LAYERS, _RUNS = 28, 3, 25
# (channels in, out, kernel) of layers with many multiplications for a number they make, and few.
_SHAPES = ((16, 64, 1), (32, 64, 1), (64, 64, 1), (128, 64, 1), (32, 32, 3), (64, 64, 3))

Call = Callable[[], object]
Chain = Sequence[tuple[int, int, int]]  # convolutions: channels in, out, kernel


def best_multiple(threads: int = 1) -> int:
    """The multiple to which widths that a search may leave are rounded up for the least time."""

    def measure(runtime: str) -> float:
        table = time_of_multiples(runtime, threads)
        return min(table, key=lambda multiple: table[multiple])

    return round(_remembered("multiple", threads, measure))


def element_cost(threads: int = 1) -> float:
    """How many multiply-adds take as long as writing one number of a layer's output does.

    The time of single layers is fitted by  a x MACs + b x numbers; this is b / a.
    """

    def measure(runtime: str) -> float:
        chains = [((64, n_in, 1), (n_in, n_out, kernel)) for n_in, n_out, kernel in _SHAPES]
        times = _medians(runtime, chains, threads)
        places = _SIDE * _SIDE
        macs = [places * sum(i * o * k * k for i, o, k in chain) for chain in chains]
        made = [places * sum(o for _, o, _ in chain) for chain in chains]
        table = np.array([macs, made], dtype=np.float64).T
        # Relative errors, so that small layers count as much.
        (per_mac, per_number), *_ = np.linalg.lstsq(
            table / times[:, None], np.ones(len(times)), rcond=None
        )
        return float(max(0.0, per_number / max(per_mac, 1e-30)))

    return _remembered("element", threads, measure)


def time_of_multiples(runtime: str, threads: int) -> dict[int, float]:
    """Mean seconds of a chain over many widths, rounded up to each of ``MULTIPLES``."""
    rounded = {m: [-(-width // m) * m for width in _WIDTHS] for m in MULTIPLES}
    widths = sorted({width for row in rounded.values() for width in row})
    times = _medians(runtime, [[(width, width, 3)] * _LAYERS for width in widths], threads)
    best = dict(zip(widths, times.tolist(), strict=True))
    return {m: float(np.mean([best[width] for width in row])) for m, row in rounded.items()}


def _medians(runtime: str, chains: Sequence[Chain], threads: int) -> np.ndarray:
    """Median seconds of each chain, run in turns: what else the machine does falls on all."""
    make = _in_onnx if runtime == "onnxruntime" else _in_torch
    before = torch.get_num_threads()  # of the search that asks
    try:
        calls = [make(chain, threads) for chain in chains]
        return np.median(interleave(calls, 0, _RUNS, warm_up=2), axis=0)
    finally:
        torch.set_num_threads(before)


def _in_torch(chain: Chain, threads: int) -> Call:
    torch.set_num_threads(threads)
    layers = [nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in chain]
    module = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
    module = module.to(memory_format=torch.channels_last)
    x = torch.zeros(1, chain[0][0], _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return module(x)

    return call


def _in_onnx(chain: Chain, threads: int) -> Call:
    onnx, ort = need("onnx", "onnx"), need("onnxruntime", "onnx")
    make = onnx.helper
    nodes, weights, last = [], [], "x"
    for i, (n_in, n_out, k) in enumerate(chain):
        made = "y" if i == len(chain) - 1 else f"r{i}"
        values = np.full((n_out, n_in, k, k), 1e-3, np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{i}"))
        nodes += [
            make.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[k // 2] * 4),
            make.make_node("Relu", [f"c{i}"], [made]),
        ]
        last = made
    ends = [
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n, _SIDE, _SIDE])
        for name, n in (("x", chain[0][0]), ("y", chain[-1][1]))
    ]
    graph = make.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)])
    model.ir_version = 9
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.zeros((1, chain[0][0], _SIDE, _SIDE), np.float32)
    return lambda: session.run(None, {"x": x})


def _remembered(what: str, threads: int, measure: Callable[[str], float]) -> float:
    """A measurement, from the user's cache folder where this machine and runtime made it before."""
    runtime = "onnxruntime" if is_installed("onnxruntime", "onnx") else "torch"
    key = f"{what}: {machine()}, {runtime} {_version(runtime)}, threads {threads}"
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "distillnet" / "timings.json"
    known: dict[str, float] = {}
    with suppress(InputError):  # one that is damaged is measured anew
        known = read_document(cache, dict[str, float], "measure again")
    if key not in known:
        known[key] = measure(runtime)
        with suppress(OSError):  # a cache that cannot be written is no reason to fail
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return float(known[key])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
