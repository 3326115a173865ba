"""The C engine beside IREE and ONNX Runtime, one thread, float32: time of an image, agreement.

    pip install iree-base-compiler iree-base-runtime
    python benchmarks/peers_iree.py --data DIR [NETWORK ...]

NETWORK is as in benchmarks/memory.py. All read the same network, IREE and ONNX Runtime the file
that `export` writes. IREE compiles it for this processor, with the options that its
documentation gives for speed, and again with convolutions turned to channels last, which suits
its kernels better; it runs in the caller's thread. Times are of calls from Python, in turns, whose
share is a few microseconds. Largest differences are from PyTorch, of the scores' range.
"""

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from distillnet.deploy.bench import interleave
from distillnet.deploy.networks import Deployable
from distillnet.deploy.onnx_file import write_onnx
from distillnet.engine import build_native, compile_compact, noise_image, write_folder
from distillnet.graph import Graph, GraphModule
from distillnet.images.preprocessing import Preprocessing
from memory import LARGE, graph_of

CHANNELS_LAST = (
    "--iree-preprocessing-pass-pipeline="
    "builtin.module(util.func(iree-preprocessing-convert-conv-to-channels-last))"
)

Call = Callable[[], NDArray[np.float32]]


def ours(graph: Graph, x: NDArray[np.float32], folder: Path) -> Call:
    count = graph[graph.output].shape[0]
    program, mission = compile_compact(graph, "all", tuple(map(str, range(count))))
    folder.mkdir()
    zeros = {"all": np.zeros(count, np.float32)}
    write_folder(program, [mission], zeros, folder, "net", banner="benchmark")
    native = build_native(folder, "net", graph.input.shape)
    bound = native.mission("all")
    return lambda: native.scores(bound, x[None])[0]


def onnx_runtime(file: Path, x: NDArray[np.float32]) -> Call:
    how = ort.SessionOptions()
    how.intra_op_num_threads = how.inter_op_num_threads = 1
    session = ort.InferenceSession(str(file), how, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x[None]})[0][0]


def iree(file: Path, x: NDArray[np.float32], *options: str) -> Call:
    tools = importlib.import_module("iree.compiler.tools")
    runtime = importlib.import_module("iree.runtime")
    mlir = file.with_suffix(".mlir")
    convert = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(file), "-o", str(mlir)]
    subprocess.run([*convert, "--opset-version", "17"], check=True)
    compiled = tools.compile_file(
        str(mlir),
        input_type="onnx",
        target_backends=["llvm-cpu"],
        extra_args=[
            "--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3", "--iree-opt-data-tiling",
            *options,
        ],
    )  # fmt: skip
    config = runtime.Config("local-sync")
    module = runtime.load_vm_module(
        runtime.VmModule.copy_buffer(config.vm_instance, compiled), config
    )
    [entry] = [n for n in module.vm_module.function_names if "__init" not in n and "$" not in n]
    run = getattr(module, entry)

    def call() -> NDArray[np.float32]:
        result = run(x[None])  # to_host() shows its memory, which goes with it
        return np.array(result.to_host()[0])

    return call


def compare(name: str, args: argparse.Namespace, folder: Path) -> None:
    graph = graph_of(name, args.data).to(torch.float32)
    x = noise_image(graph.input.shape, LARGE if "googlenet" in name else 1.5)
    module = GraphModule(graph).eval()
    with torch.inference_mode():
        wanted = module(torch.from_numpy(x)[None])[0].numpy()
    how = Preprocessing(graph.input.shape[1:], (0.0,) * len(x), (1.0,) * len(x))
    classes = tuple(map(str, range(len(wanted))))
    network = Deployable("net", module, how, classes, {"producer": "benchmarks/peers_iree.py"})
    file = folder / "net.onnx"
    write_onnx(network, file, batch=1)
    calls = {
        "engine": ours(graph, x, folder / "c"),
        "ONNX Runtime": onnx_runtime(file, x),
        "IREE": iree(file, x),
        "IREE, channels last": iree(file, x, CHANNELS_LAST),
    }
    seconds = interleave(list(calls.values()), args.seconds, least_runs=5)
    for i, (what, call) in enumerate(calls.items()):
        off = float(np.abs(call() - wanted).max() / np.ptp(wanted))
        ratio = float(np.median(seconds[:, i] / seconds[:, 0]))
        ms = 1e3 * float(np.median(seconds[:, i]))
        print(f"{name}, {what}: {ms:.2f} ms ({ratio:.2f}), differs by {off:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["squeezenet", "mobilenet", "tf_mnist"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_intermixed_args()
    if find_spec("iree") is None or find_spec("iree.compiler") is None:
        parser.error("there is no IREE here; pip install iree-base-compiler iree-base-runtime")
    torch.set_num_threads(1)
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args, Path(folder))


if __name__ == "__main__":
    main()
