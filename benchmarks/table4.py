"""The paper's Table 4 on the C engine: TF-MNIST with k of ten classes removed, original over cut.

    python benchmarks/table4.py --data DATA --weights tf_mnist.safetensors --out RUNS

Each row is one `distillnet distill` (kept in RUNS/k, and not done again) and one `distillnet bench
--runtime c`, whose ratio is the median of pairs of runs in turns.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from table3 import Setting, command

PAPER = (1.07, 1.18, 1.40, 1.61, 1.90, 2.45, 3.09, 4.26)  # on a phone


def _json_of(arguments: list[str]) -> Any:
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--removed", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--max-loss", type=float, default=1.0)
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    print(
        "| classes removed | paper | time ratio | ms | MAC ratio | loss, pp |\n" + "|---" * 6 + "|"
    )
    for k in args.removed:
        run = args.out / str(k)
        if not run.exists():
            setting = Setting("mnist", k, "best", args.max_loss, "")
            _json_of(command(setting, args.weights, args.data, run))
        result = json.loads((run / "result.json").read_text())
        timed = _json_of(
            [sys.executable, "-m", "distillnet", "bench", str(run), "--runtime", "c", "--batch",
             "1", "--seconds", "3", "--json"]
        )  # fmt: skip
        before, after = (entry["median_ms"] for entry in timed["entries"])
        print(
            f"| {k} | {PAPER[k - 1]:.2f} | {timed['time_ratio']['c']:.2f} | {before:.3f} to "
            f"{after:.3f} | {result['mac_ratio']:.2f} | {result['loss_pp']:+.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
