"""What collecting statistics costs: time against a plain forward pass, and memory.

    python benchmarks/collect.py [MODEL] [--images N] [--rounds N]

Random images and weights: the cost does not depend on them. Plain and collecting passes alternate
in one process, so that a machine whose speed drifts slows both. Prints the median of the paired
time ratios, and how far the peak of memory rose during the collecting passes.
"""

import argparse
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from distillnet.atlas import collect
from distillnet.graph import fast_layout, run
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import Batch
from distillnet.models import random_model


def rss_mb() -> float:
    """Resident memory now, from the kernel."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and the peak of resident memory in MB, sampled every 5 ms."""
    peak = rss_mb()
    running = threading.Event()
    running.set()

    def watch() -> None:
        nonlocal peak
        while running.is_set():
            peak = max(peak, rss_mb())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    running.clear()
    watcher.join()
    return seconds, peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="zoo:bvlc_googlenet")
    parser.add_argument("--images", type=int, default=500, help="per pass, five classes")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    model = random_model(args.model)
    how = model.preprocessing
    graph = capture_model(model)
    channels = analyse(graph)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(args.images, len(how.mean), *how.input_size, generator=generator)
    labels = torch.arange(args.images) * 5 // args.images
    parts = zip(x.split(args.batch_size), labels.split(args.batch_size), strict=True)
    batches = [Batch(part, label, ()) for part, label in parts]

    def plain() -> None:
        with torch.inference_mode():
            for batch in batches:
                run(graph, {graph.input.name: fast_layout(batch.x_nchw)})

    def collecting() -> None:
        with tempfile.TemporaryDirectory() as folder:
            collect(graph, channels, batches, Path(folder), model="", weights_sha256="")

    plain()
    ratios, plain_peaks, collect_peaks = [], [], []
    for _ in range(args.rounds):
        plain_s, plain_mb = timed(plain)
        collect_s, collect_mb = timed(collecting)
        ratios.append(collect_s / plain_s)
        plain_peaks.append(plain_mb)
        collect_peaks.append(collect_mb)
    neurons = sum(math.prod(graph[site].shape) for site in channels.sites)
    print(
        f"{args.model}, {args.images} images, batches of {args.batch_size}, "
        f"{torch.get_num_threads()} threads"
    )
    print(
        f"time, collect over plain: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f} in {args.rounds} rounds"
    )
    print(
        f"memory: resident peak {max(collect_peaks) - max(plain_peaks):.1f} MB above plain; the "
        f"sums of {neurons:,} neurons take {16 * neurons / 2**20:.1f} MB"
    )


if __name__ == "__main__":
    main()
