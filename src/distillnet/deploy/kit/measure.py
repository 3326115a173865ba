#!/usr/bin/env python3
"""Measure how long small networks take on this device, for distillnet's `--timings`.

    python3 measure.py                 with ONNX Runtime (needs numpy and onnxruntime)
    python3 measure.py --runtime c     with distillnet's C engine (needs a C compiler, no packages)

Each network is written down as soon as it is measured. Start it again after an interruption, and it
goes on where it stopped.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KIT = json.loads((HERE / "kit.json").read_text())
LEAST_RUNS, LEAST_SECONDS, WARM_UP = 7, 1.0, 2


def processor():
    """The processor's name, and how many cores there are."""
    name = platform.processor() or platform.machine()
    for path, key in (("/proc/device-tree/model", None), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(errors="replace")
        except OSError:
            continue
        if key is None:
            name = text.strip("\0\n ")
            break
        lines = [line for line in text.splitlines() if line.startswith(key)]
        if lines:
            name = lines[0].partition(":")[2].strip()
    return f"{name}, {os.cpu_count()} cores"


def timed(call):
    """The median seconds of a call."""
    for _ in range(WARM_UP):
        call()
    times, end = [], time.perf_counter() + LEAST_SECONDS
    while len(times) < LEAST_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def in_onnx(name, threads):
    """The median seconds of a network in ONNX Runtime."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        str(HERE / "onnx" / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
    )
    image = np.zeros(session.get_inputs()[0].shape, np.float32)
    return timed(lambda: session.run(None, {"x": image}))


def in_c(name, flags):
    """The median seconds of a network in C, compiled for this device."""
    compiler = next((path for cc in ("cc", "gcc", "clang") if (path := shutil.which(cc))), None)
    if compiler is None:
        sys.exit("measure.py: there is no C compiler; install gcc, or leave out --runtime c")
    folder = HERE / "c" / name
    with tempfile.TemporaryDirectory() as work:
        program = str(Path(work) / "time")
        command = [compiler, "-std=c11", "-O3", "-ffp-contract=fast", "-fno-math-errno", *flags]
        command += ["-DMODEL_WEIGHTS_FROM_FILE", "-I", str(folder), str(HERE / "c" / "time.c")]
        command += [str(folder / "model.c"), *map(str, sorted(folder.glob("missions/*.c")))]
        subprocess.run([*command, "-lm", "-o", program], check=True)
        done = subprocess.run(
            [program, str(LEAST_RUNS), str(LEAST_SECONDS)], check=True, capture_output=True
        )
    return float(done.stdout)


def known_seconds(out, about):
    """What an earlier start has measured: seconds of a network, by its name."""
    if not out.exists():
        return {}
    try:
        known = json.loads(out.read_text())
        seconds = {name: float(known["seconds"][name]) for name in known["seconds"]}
        same = all(known.get(key) == about[key] for key in about)
    except (ValueError, TypeError, KeyError, AttributeError):
        sys.exit(f"measure.py: {out} is no table of times; delete it, or choose another --out")
    if not same:
        sys.exit(f"measure.py: {out} is of another kit, machine or runtime; choose another --out")
    return seconds


def main():
    """Measure what is not measured yet, network by network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runtime", choices=("onnx", "c"), default="onnx")
    parser.add_argument("--threads", type=int, default=1, help="for ONNX Runtime")
    parser.add_argument("--out", type=Path, help="default: times.json, or times-c.json with C")
    native = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
    parser.add_argument("--cflags", default=native, help="for the C compiler")
    args = parser.parse_args()
    if args.runtime == "onnx":
        try:
            import onnxruntime
        except ImportError:
            sys.exit("measure.py: onnxruntime is missing; run: pip install onnxruntime numpy")
        runtime, threads = f"onnxruntime {onnxruntime.__version__}", args.threads
    else:
        runtime, threads = f"c {args.cflags}", 1
    out = args.out or HERE / ("times.json" if args.runtime == "onnx" else "times-c.json")
    about = {"format": KIT["format"], "side": KIT["side"], "machine": processor()}
    about |= {"runtime": runtime, "threads": threads}
    table = {**about, "seconds": known_seconds(out, about)}
    for done, name in enumerate(KIT["networks"], 1):
        if name not in table["seconds"]:
            table["seconds"][name] = (
                in_onnx(name, threads)
                if args.runtime == "onnx"
                else in_c(name, args.cflags.split())
            )
            partial = out.with_suffix(".part")
            partial.write_text(json.dumps(table, indent=1) + "\n")
            partial.replace(out)
        print(f"{done} of {len(KIT['networks'])}: {name}", file=sys.stderr)
    print(f"Done: {out}. Where distillnet runs: distillnet distill ... --timings {out.name}")


if __name__ == "__main__":
    main()
