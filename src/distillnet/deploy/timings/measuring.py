"""Measuring this machine's table of times; what it means is said in ``cut.times``."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import nn

from distillnet.cut.times import CHAINS, POOL, SIDE, Chain, TimeTable, machine
from distillnet.deploy.bench import interleave
from distillnet.deploy.extras import is_installed, need

__all__ = ["chain_module", "measure_times", "onnx_chain"]

_ROUNDS, _RUNS, _WARM_UP = 5, 9, 2

Call = Callable[[], object]


def measure_times(
    threads: int = 1, on_progress: Callable[[int, int], None] = lambda done, of: None
) -> TimeTable:
    """Times of all chains here: in ONNX Runtime where it is installed, else in PyTorch."""
    runtime = "onnxruntime" if is_installed("onnxruntime", "onnx") else "torch"
    make = _in_onnx if runtime == "onnxruntime" else _in_torch
    before, rounds = torch.get_num_threads(), []
    try:
        calls = [make(chain, threads) for chain in CHAINS.values()]
        # In turns, so that what else the machine does falls on all of them; but some runs of each
        # together, as layers of one network find their numbers in the cache.
        for done in range(1, _ROUNDS + 1):
            rounds.append([interleave([call], 0, _RUNS, warm_up=_WARM_UP) for call in calls])
            on_progress(done, _ROUNDS)
    finally:
        torch.set_num_threads(before)
    medians = np.median([[np.median(times) for times in row] for row in rounds], axis=0)
    seconds = dict(zip(CHAINS, medians.tolist(), strict=True))
    return TimeTable(machine(), f"{runtime} {_version(runtime)}", threads, seconds)


def chain_module(chain: Chain) -> nn.Sequential:
    """A chain of pools, and of convolutions with a ReLU behind each."""
    parts: list[nn.Module] = []
    for n_in, n_out, kernel in chain:
        if kernel == POOL:
            parts.append(nn.MaxPool2d(3, 1, padding=1))
        else:
            parts += [nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*parts)


def onnx_chain(chain: Chain) -> bytes:
    """The same as an ONNX file: x (1, C, SIDE, SIDE) -> y; needs the extra onnx."""
    onnx = need("onnx", "onnx")
    make = onnx.helper
    nodes, weights, last = [], [], "x"
    for i, (n_in, n_out, k) in enumerate(chain):
        made = "y" if i == len(chain) - 1 else f"r{i}"
        if k == POOL:
            how = {"kernel_shape": [3, 3], "pads": [1] * 4}
            nodes.append(make.make_node("MaxPool", [last], [made], **how))
            last = made
            continue
        values = np.full((n_out, n_in, k, k), 1e-3, np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{i}"))
        nodes += [
            make.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[k // 2] * 4),
            make.make_node("Relu", [f"c{i}"], [made]),
        ]
        last = made
    ends = [
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, n, SIDE, SIDE])
        for name, n in (("x", chain[0][0]), ("y", chain[-1][1]))
    ]
    graph = make.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)])
    model.ir_version = 9  # what older runtimes on devices read, too
    content: bytes = model.SerializeToString()
    return content


def _in_torch(chain: Chain, threads: int) -> Call:
    torch.set_num_threads(threads)
    module = chain_module(chain).to(memory_format=torch.channels_last)
    x = torch.zeros(1, chain[0][0], SIDE, SIDE).contiguous(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return module(x)

    return call


def _in_onnx(chain: Chain, threads: int) -> Call:
    ort = need("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(onnx_chain(chain), options, providers=["CPUExecutionProvider"])
    x = np.zeros((1, chain[0][0], SIDE, SIDE), np.float32)
    return lambda: session.run(None, {"x": x})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
