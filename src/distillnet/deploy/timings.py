"""Measuring this machine's table of times; what it means is said in ``cut.times``."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import nn

from distillnet.cut.times import CHAINS, SIDE, Chain, TimeTable, machine
from distillnet.deploy.bench import interleave
from distillnet.deploy.extras import is_installed, need

__all__ = ["chain_module", "measure_times", "onnx_chain"]

_RUNS, _WARM_UP = 25, 2

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
        # In turns: what else the machine does falls on all of them.
        interleave(calls, 0, 0, warm_up=_WARM_UP)
        for done in range(1, _RUNS + 1):
            rounds.append(interleave(calls, 0, 1, warm_up=0)[0])
            on_progress(done, _RUNS)
    finally:
        torch.set_num_threads(before)
    seconds = dict(zip(CHAINS, np.median(rounds, axis=0).tolist(), strict=True))
    return TimeTable(machine(), f"{runtime} {_version(runtime)}", threads, seconds)


def chain_module(chain: Chain) -> nn.Sequential:
    """A chain of convolutions with a ReLU behind each."""
    layers = [nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in chain]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


def onnx_chain(chain: Chain) -> bytes:
    """The same as an ONNX file: x (1, C, SIDE, SIDE) -> y; needs the extra onnx."""
    onnx = need("onnx", "onnx")
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
