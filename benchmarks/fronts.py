"""How far what was expected of the networks on runs' fronts is from what report images found.

    python benchmarks/fronts.py RUN [RUN ...]

Printed are, for each input size, how many networks there are, the least and the largest ratio of
MACs, and by how many points more was found lost than expected: the mean, the least and the most.
Report images judge all networks of a run, so those are not independent of each other.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="what distill wrote")
    args = parser.parse_args()
    sides = defaultdict(list)
    for run in args.runs:
        paths = sorted(run.glob("front/*/result.json"))
        if not paths:
            parser.error(f"{run} has no front; expected a folder that `distillnet distill` wrote")
        for path in paths:
            told = json.loads(path.read_text())
            more_pp = told["loss_pp"] - told["expected_loss_pp"]
            sides[told["distilled"]["input_size"][0]].append((told["mac_ratio"], more_pp))
    print("| side | networks | MACs | found less expected, mean | least to most |")
    print("|---" * 5 + "|")
    for side, networks in sorted(sides.items()):
        ratios, more = zip(*networks, strict=True)
        print(
            f"| {side} | {len(networks)} | {min(ratios):.1f}x to {max(ratios):.1f}x "
            f"| {fmean(more):+.1f} | {min(more):+.1f} to {max(more):+.1f} |"
        )


if __name__ == "__main__":
    main()
