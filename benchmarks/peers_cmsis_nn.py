"""The int8 C engine beside CMSIS-NN, the kernels that TFLite Micro runs on Arm's microcontrollers.

    python benchmarks/peers_cmsis_nn.py CMSIS_NN --data DIR [NETWORK ...]

CMSIS_NN is its source, from https://github.com/ARM-software/CMSIS-NN; without it nothing is done.
NETWORK is as in benchmarks/int8.py, which takes ranges alike. Of each, two folders are written that
the firmware of examples/cortex-m takes: the engine's, and one that calls CMSIS-NN's functions layer
by layer, with the same bytes as weights and in the same scales. At the end it does as TFLite: a
mean keeps its input's scale, and scores are bytes. Both are compiled with gcc for a Cortex-M7 and
run in QEMU, which counts instructions, not cycles. Flash is without the picture. CMSIS-NN's arena
is laid out as TFLite Micro's greedy planner does: whole maps, the input among them, and scratch
buffers. --layers also tells instructions by kind of layer, the engine's with whole maps.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.deploy.int8.c import calibrate, prepare, write_network
from distillnet.deploy.networks import Deployable
from distillnet.engine import MissionBits
from distillnet.engine.int8 import Quantised, quantise
from distillnet.engine.int8.fixed import Scale
from distillnet.engine.int8.quantise import input_bytes
from distillnet.images import limit, load_all
from int8 import calibration_images, network_of
from peers_cmsis_nn_source import Peer, kind_of

BOARD = Path(__file__).parents[1] / "examples" / "cortex-m"
TARGET = ("-std=gnu11", "-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard",
          "-ffunction-sections", "-fdata-sections", "-w")  # fmt: skip
EMULATOR = ("qemu-system-arm", "-M", "mps2-an500", "-cpu", "cortex-m7", "-nographic", "-icount",
            "shift=0", "-semihosting-config", "enable=on,target=native", "-kernel")  # fmt: skip
OURS = {"engine, -O2": ("-O2",), "engine, -O3": ("-O3",)}
# As its CMake and README have them for a Cortex-M7, with TFLite's rounding and the other one.
FAST = ("-Ofast", "-DOPTIONAL_RESTRICT_KEYWORD=__restrict")
PEERS = {
    "CMSIS-NN": FAST,
    "CMSIS-NN, single rounding": (*FAST, "-DCMSIS_NN_USE_SINGLE_ROUNDING"),
}
NS_PER_TICK = 40  # of the board's timer; an instruction takes one
TRACE = """#include <stdint.h>
#include <stdio.h>
extern void say(const char *text);
#define STEP(index, call)                                                                      \\
    do {                                                                                       \\
        static const char *const names[] = {NAMES};                                            \\
        const uint32_t before = *(volatile uint32_t *)0x40000004;                              \\
        call;                                                                                  \\
        const long ticks = (long)(before - *(volatile uint32_t *)0x40000004);                  \\
        char told[120];                                                                        \\
        snprintf(told, sizeof told, "layer %s: %ld\\n", names[index], ticks);                  \\
        say(told);                                                                             \\
    } while (0)
"""
ROOMS = ("Convolution", "FullyConnected", "Pooling", "Concatenation", "NNSupport")


@dataclass(frozen=True)
class Firmware:
    """What is built once for all pictures: objects, flags, and the folder with model.h."""

    folder: Path
    flags: tuple[str, ...]
    objects: tuple[Path, ...]

    def run(self, picture: NDArray[np.uint8]) -> str:
        """What the board says about a picture (H, W, C)."""
        values = ",".join(map(str, picture.reshape(-1)))
        text = f'#define EXPECTED ""\nstatic const unsigned char picture[] = {{{values}}};\n'
        (self.folder / "picture.h").write_text(text)
        sources = (BOARD / "main.c", BOARD / "startup.c", *self.objects)
        out = self.folder / "firmware.elf"
        gcc(
            *self.flags, f"-I{self.folder}", "-DMISSION=model_mission_all", *map(str, sources),
            "--specs=nano.specs", "--specs=nosys.specs", "-nostartfiles", "-Wl,--gc-sections",
            "-T", str(BOARD / "mps2.ld"), "-lm", "-o", str(out),
        )  # fmt: skip
        done = subprocess.run([*EMULATOR, out], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if "instructions:" not in said:
            raise SystemExit(f"the firmware failed: {said[-400:]}")
        return said


def gcc(*arguments: str, at: Path | None = None) -> None:
    subprocess.run(["arm-none-eabi-gcc", *TARGET, *arguments], check=True, cwd=at)


def built(folder: Path, sources: Sequence[Path], flags: tuple[str, ...], name: str) -> Firmware:
    """Compile sources of a folder into another in it."""
    (out := folder / name).mkdir()
    gcc(*flags, f"-I{folder}", "-c", *map(str, sources), at=out)
    return Firmware(folder, flags, tuple(sorted(out.glob("*.o"))))


def library(source: Path, flags: tuple[str, ...], folder: Path) -> Path:
    """CMSIS-NN's functions for whole numbers."""
    folder.mkdir()
    files = [str(f) for room in ROOMS for f in (source / "Source" / f"{room}Functions").glob("*.c")]
    whole = [f for f in files if not re.search(r"_(f16|f32|flt)", f)]
    gcc(*flags, f"-I{source / 'Include'}", "-c", *whole, at=folder)
    out = folder / "libcmsis-nn.a"
    subprocess.run(["arm-none-eabi-ar", "rcs", out, *folder.glob("*.o")], check=True)
    return out


def numbers(said: str) -> dict[str, int]:
    """What a firmware took; instructions in thousands."""
    found = re.findall(r"^(flash|ram|stack|instructions): (\d+)", said, re.M)
    arena = re.findall(r"the arena's (\d+)", said)
    return {key: int(value) for key, value in (*found, ("arena", arena[0]))}


def scores(said: str) -> NDArray[np.float64]:
    return np.array(re.findall(r": (-?\d+) thousandths", said), float) / 1000


def layers(said: str) -> list[tuple[str, int]]:
    """Names, kinds first, and ticks, or what else a firmware tells of its layers."""
    return [(name, int(n)) for name, n in re.findall(r"^layer (.+): (\d+)$", said, re.M)]


def by_kind(said: str) -> str:
    found: Counter[str] = Counter()
    for name, ticks in layers(said):
        found[name.split()[0]] += ticks * NS_PER_TICK
    return ", ".join(f"{kind} {n / 1e6:.1f}" for kind, n in found.most_common())


def traced(network: Quantised) -> str:
    """A header under which the engine's source tells of each step."""
    names = (f'"{kind_of(network, s)} {s.name}"' for s in network.program.steps)
    return TRACE.replace("NAMES", ", ".join(names))


@dataclass(frozen=True)
class Case:
    """A network in whole numbers, with and without steps by turns, and images of its classes."""

    of: Deployable
    by_rows: Quantised
    whole_maps: Quantised
    missions: tuple[MissionBits, ...]
    scores: Scale  # of the last layer where they are bytes
    x: torch.Tensor
    pictures: NDArray[np.uint8]  # (N, H, W, C)

    @property
    def macs(self) -> int:
        total = 0
        for step in self.by_rows.program.steps:
            if step.strips:
                _, h, w = self.by_rows.program.places[step.writes].shape
                h, w = (1, 1) if step.kernel == "conv_scores" else (h, w)
                total += self.by_rows.filters[step.name].weight_mkkc.size * h * w
        return total


def case_of(name: str, args: argparse.Namespace) -> Case:
    of, _, train, val = network_of(name, args.data)
    prepared = prepare(of, "all")
    ranges, judges = calibration_images(train, of)
    _, found = calibrate(prepared, [ranges], [judges])
    both = [
        quantise(prepared.prepared.graph, prepared.prepared.missions, found, 1, by_rows=by_rows)
        for by_rows in (True, False)
    ]
    how = of.preprocessing
    assert how.channels != "BGR", "pictures are RGB"
    x = load_all(limit(val, args.images, 0), how).x_nchw
    mean, std = (torch.tensor(v)[:, None, None] for v in (how.mean, how.std))
    pictures = ((x * std + mean) * how.divisor).round().clamp(0, 255).to(torch.uint8)
    last = found[prepared.prepared.graph.output]
    return Case(
        of, both[0][0], both[1][0], both[0][1], Scale.of(*last), x,
        np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy()),
    )  # fmt: skip


def engine(case: Case, flags: tuple[str, ...], folder: Path, trace: bool = False) -> Firmware:
    folder.mkdir()
    write_network(
        case.whole_maps if trace else case.by_rows, case.missions, case.of, folder, "model"
    )
    if trace:
        (folder / "trace.h").write_text(traced(case.whole_maps))
        flags = (*flags, "-include", str(folder / "trace.h"))
    sources = [folder / s for s in ("model.c", "weights.c", "missions/all.c")]
    weights = f'-DMODEL_WEIGHTS_BIN="{folder / "weights.bin"}"'
    return built(folder, sources, (*flags, weights), "objects")


def cmsis_nn(case: Case, flags: tuple[str, ...], lib: Path, folder: Path, *more: str) -> Firmware:
    folder.mkdir()
    how, step = (
        case.of.preprocessing,
        next(s for s in case.by_rows.program.steps if s.kernel == "input"),
    )
    mean, std = (np.array(v, np.float32)[:, None] for v in (how.mean, how.std))
    values = (np.arange(256, dtype=np.float32) / np.float32(how.divisor) - mean) / std
    peer = Peer(case.by_rows, input_bytes(values, step).astype(np.uint8), case.scores)
    peer.write()
    classes = tuple(case.of.classes)
    peer.save(folder, classes)
    sizes = built(folder, [folder / "model.c"], (*flags, "-DSIZES"), "sizes")
    sizes = replace(sizes, objects=(*sizes.objects, lib))
    for name, size in layers(sizes.run(case.pictures[0])):
        peer.scratch[peer.named[name]] = size
    peer.save(folder, classes)
    done = built(folder, [folder / "model.c"], (*flags, *more), "objects")
    return replace(done, objects=(*done.objects, lib))


def compare(name: str, args: argparse.Namespace, libs: dict[str, Path], folder: Path) -> None:
    folder.mkdir()
    case = case_of(name, args)
    include = f"-I{args.cmsis_nn / 'Include'}"
    forms = {what: engine(case, f, folder / what) for what, f in OURS.items()}
    for what, flags in PEERS.items():
        forms[what] = cmsis_nn(case, (*flags, include), libs[what], folder / what)
    with torch.inference_mode():
        wanted = case.of.module(case.x).numpy()
    print(f"{name}: {case.macs / 1e6:.1f} million MACs, {len(wanted)} val images")
    picture, best = case.pictures[0].nbytes, np.zeros(0)
    for what, form in forms.items():
        told = [form.run(p) for p in case.pictures]
        found, y = numbers(told[0]), np.stack([scores(t) for t in told])
        best = best if best.size else y
        off = np.abs(y - best).max() / np.ptp(best)
        print(
            f"  {what}: {found['instructions'] / 1e3:,.1f} million instructions, "
            f"{found['instructions'] * 1e3 / case.macs:.2f} a MAC; flash "
            f"{found['flash'] - picture:,}, RAM {found['ram']:,} (arena {found['arena']:,}), stack "
            f"{found['stack']:,} bytes; {(y.argmax(1) != wanted.argmax(1)).sum()} decisions differ "
            f"from float32's, {(y.argmax(1) != best.argmax(1)).sum()} from the engine's, scores by "
            f"{100 * off:.1f} % of their range",
            flush=True,
        )
    if args.layers:
        one = case.pictures[0]
        ours = engine(case, OURS["engine, -O3"], folder / "traced", trace=True).run(one)
        print(f"  engine, whole maps, million instructions: {by_kind(ours)}")
        for what, flags in PEERS.items():
            where = folder / f"{what}, traced"
            form = cmsis_nn(case, (*flags, include), libs[what], where, "-DTRACED")
            print(f"  {what}: {by_kind(form.run(one))}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cmsis_nn", type=Path)
    parser.add_argument("networks", nargs="*", default=["mobilenet", "squeezenet"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2, help="of each class")
    parser.add_argument("--layers", action="store_true")
    args = parser.parse_intermixed_args()
    args.cmsis_nn = args.cmsis_nn.resolve()
    if not (args.cmsis_nn / "Include" / "arm_nnfunctions.h").is_file():
        print(f"there is no CMSIS-NN at {args.cmsis_nn}; skipped. Get it, or name another path")
        sys.exit(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        libs = {}
        for i, (what, flags) in enumerate(PEERS.items()):
            libs[what] = library(args.cmsis_nn, flags, Path(folder) / f"library-{i}")
        for i, name in enumerate(args.networks):
            compare(name, args, libs, Path(folder) / str(i))


if __name__ == "__main__":
    main()
