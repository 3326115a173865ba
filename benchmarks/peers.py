"""The C engine beside onnx2c, which writes C of an ONNX file: flash, memory, time, agreement.

    python benchmarks/peers.py ONNX2C --data DIR [NETWORK ...]

ONNX2C is its command, built from https://github.com/kraiskil/onnx2c; without it nothing is done.
NETWORK is as in benchmarks/memory.py; of GoogLeNet onnx2c writes 213 MB, which take gcc gigabytes.
Both write the same network, float32, one thread, and are compiled alike. The ONNX file is the one
that `export` writes, in forms that onnx2c reads: means over the map as GlobalAveragePool, and
without attributes that say what holds anyhow. With -ffast-math, compilers may add up onnx2c's
products in another order, in vectors, as this engine's are. Flash is text and data of the objects,
weights among them; memory is the arena or bss, and the deepest stack of one run. Times are
processor time of one image, in turns; largest differences are from PyTorch, of the scores' range.
"""

import argparse
import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.deploy.networks import Deployable
from distillnet.deploy.onnx_file import write_onnx
from distillnet.engine import compile_compact, compiler, noise_image, write_folder
from distillnet.graph import Graph, GraphModule
from distillnet.images.preprocessing import Preprocessing
from memory import LARGE, graph_of

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-w", "-fPIC")
NAMES = ("onnx2c", "onnx2c, -ffast-math", "this engine", "by rows")

# One call on a stack that was painted before, and how much of the paint is gone.
STACK = """
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#define BYTES (64u << 20)
typedef struct { void (*run)(void *, void *, void *, void *); void *a, *b, *c, *d; } call;
static void *carry_out(void *arg)
{
    const call *c = arg;
    c->run(c->a, c->b, c->c, c->d);
    return NULL;
}
long stack_of(void *run, void *a, void *b, void *c, void *d)
{
    unsigned char *stack = aligned_alloc(4096, BYTES);
    call what = {(void (*)(void *, void *, void *, void *))run, a, b, c, d};
    pthread_attr_t how;
    pthread_t thread;
    memset(stack, 0xa5, BYTES);
    pthread_attr_init(&how);
    pthread_attr_setstack(&how, stack, BYTES);
    pthread_create(&thread, &how, carry_out, &what);
    pthread_join(thread, NULL);
    long left = 0;
    while (left < BYTES && stack[left] == 0xa5)
        left++;
    free(stack);
    return BYTES - left;
}
void nothing(void) {}
"""


@dataclass
class Form:
    """A network as code that was compiled: what it is called with, and what it takes."""

    function: Any
    arguments: tuple[int, ...]
    y: NDArray[np.float32]
    flash: int
    memory: int
    kept: tuple[object, ...]  # what the arguments point to

    def run(self) -> None:
        self.function(*self.arguments)


def compile_objects(sources: Sequence[Path], folder: Path, more: Sequence[str] = ()) -> list[Path]:
    objects = []
    for i, source in enumerate(sources):
        objects.append(folder / f"{i}.o")
        command = [compiler(), *FLAGS, *more, "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    return objects


def link(objects: Sequence[Path], out: Path) -> ctypes.CDLL:
    command = [compiler(), "-shared", *map(str, objects), "-lm", "-lpthread", "-o", str(out)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(out))


def sizes(objects: Sequence[Path]) -> tuple[int, int]:
    """Bytes of text and data, and of bss."""
    said = subprocess.run(["size", *map(str, objects)], check=True, capture_output=True, text=True)
    rows = [list(map(int, line.split()[:3])) for line in said.stdout.splitlines()[1:]]
    return sum(text + data for text, data, _ in rows), sum(bss for *_, bss in rows)


def ours(graph: Graph, x: NDArray[np.float32], folder: Path, by_rows: bool) -> Form:
    folder.mkdir()
    count = graph[graph.output].shape[0]
    program, mission = compile_compact(graph, "all", tuple(map(str, range(count))), by_rows=by_rows)
    zeros = {"all": np.zeros(count, np.float32)}
    write_folder(program, [mission], zeros, folder, "net", banner="benchmark")
    sources = [folder / name for name in ("model.c", "weights.c", "missions/all.c")]
    objects = compile_objects(sources, folder, ["-ffp-contract=fast", f"-I{folder}"])
    library = link(objects, folder / "net.so")
    arena = np.empty(program.arena_bytes + 64, np.uint8)
    at = arena.ctypes.data + -arena.ctypes.data % 64
    y = np.empty(count, np.float32)
    mission_at = ctypes.addressof(ctypes.c_char.in_dll(library, "net_mission_all"))
    flash, bss = sizes(objects)
    library.net_run.argtypes = [ctypes.c_void_p] * 4
    arguments = (mission_at, at, x.ctypes.data, y.ctypes.data)
    memory = bss + program.arena_bytes
    return Form(library.net_run, arguments, y, flash, memory, (arena, library))


def onnx2c(command: Path, graph: Graph, x: NDArray[np.float32], folder: Path, *flags: str) -> Form:
    folder.mkdir()
    count = graph[graph.output].shape[0]
    how = Preprocessing(graph.input.shape[1:], (0.0,) * len(x), (1.0,) * len(x))
    classes = tuple(map(str, range(count)))
    module = GraphModule(graph).eval()
    network = Deployable("net", module, how, classes, {"producer": "benchmarks/peers.py"})
    file, source = folder / "net.onnx", folder / "net.c"
    write_onnx(network, file, batch=1)
    in_plain_forms(file)
    done = subprocess.run([command, str(file)], capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"onnx2c refuses the network: {done.stderr.decode()[-400:]}")
    source.write_bytes(done.stdout)
    objects = compile_objects([source], folder, flags)
    library = link(objects, folder / "net.so")
    y = np.empty(count, np.float32)
    flash, bss = sizes(objects)
    library.entry.argtypes = [ctypes.c_void_p] * 2
    return Form(library.entry, (x.ctypes.data, y.ctypes.data), y, flash, bss, (library,))


def in_plain_forms(path: Path) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(str(path))
    nodes = []
    for node in model.graph.node:
        for attribute in list(node.attribute):
            if attribute.name in ("storage_order", "noop_with_empty_axes", "allowzero"):
                node.attribute.remove(attribute)
        if node.op_type != "ReduceMean":
            nodes.append(node)
            continue
        keeps = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        mean = node.output[0] if keeps else f"{node.output[0]}:map"
        nodes.append(helper.make_node("GlobalAveragePool", [node.input[0]], [mean]))
        if not keeps:
            nodes.append(helper.make_node("Flatten", [mean], [node.output[0]]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def stack_of(form: Form, measure: ctypes.CDLL) -> int:
    """Beyond what a thread that does nothing has used."""
    measure.stack_of.restype = ctypes.c_long
    measure.stack_of.argtypes = [ctypes.c_void_p] * 5

    def used(function: Any, arguments: Sequence[int]) -> int:
        at = ctypes.cast(function, ctypes.c_void_p)
        return int(measure.stack_of(at, *(*arguments, 0, 0, 0, 0)[:4]))

    return used(form.function, form.arguments) - used(measure.nothing, ())


def in_turns(calls: Sequence[Callable[[], None]], seconds: float) -> NDArray[np.float64]:
    """ms of processor time, (runs, calls)."""
    rows: list[list[float]] = []
    end = time.process_time() + seconds
    while len(rows) < 5 or time.process_time() < end:
        row = []
        for call in calls:
            start = time.process_time()
            call()
            row.append(1e3 * (time.process_time() - start))
        rows.append(row)
    return np.array(rows)


def compare(name: str, args: argparse.Namespace, folder: Path) -> None:
    folder.mkdir()
    graph = graph_of(name, args.data).to(torch.float32)
    x = noise_image(graph.input.shape, LARGE if "googlenet" in name else 1.5)
    with torch.inference_mode():
        wanted = GraphModule(graph).eval()(torch.from_numpy(x)[None])[0].numpy()
    forms = [
        onnx2c(args.onnx2c, graph, x, folder / "onnx2c"),
        onnx2c(args.onnx2c, graph, x, folder / "fast", "-ffast-math"),
        ours(graph, x, folder / "ours", False),
        ours(graph, x, folder / "rows", True),
    ]
    source = folder / "stack.c"
    source.write_text(STACK)
    measure = link(compile_objects([source], folder), folder / "stack.so")
    times = in_turns([form.run for form in forms], args.seconds)
    for i, (what, form) in enumerate(zip(NAMES, forms, strict=True)):
        off = float(np.abs(form.y - wanted).max() / np.ptp(wanted))
        ratio = float(np.median(times[:, i] / times[:, 0]))
        print(
            f"{name}, {what}: {np.median(times[:, i]):.2f} ms ({ratio:.3f}), flash "
            f"{form.flash:,}, memory {form.memory:,} and stack {stack_of(form, measure):,} bytes, "
            f"differs by {off:.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx2c", type=Path)
    parser.add_argument("networks", nargs="*", default=["squeezenet", "mobilenet", "tf_mnist"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_intermixed_args()
    if not args.onnx2c.is_file():
        print(f"there is no onnx2c at {args.onnx2c}; skipped. Build it, or name another path")
        sys.exit(0)
    torch.set_num_threads(1)
    for i, name in enumerate(args.networks):
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args, Path(folder) / str(i))


if __name__ == "__main__":
    main()
