"""The paper's Table 3, measured: k of ten classes removed, parameters removed, accuracy lost.

    python benchmarks/table3.py --data DIR --out ROWS.jsonl [--resume] [--method best]
        --weights-mnist FILE --weights-cifar FILE [--removed K [K ...]]

DIR holds MNIST's files and the folder cifar10; the weights are those that `distillnet train`
writes for zoo:tf_mnist and zoo:tf_cifar, and without a file its network is left out. Each row is
one run of the command in a process of its own: the mission is what remains when the first k
classes are removed. ROWS.jsonl keeps the whole result of every run; --resume computes only what
it lacks.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distillnet.files import new_file

N_CLASSES = 10
HEADER = (
    "classes removed",
    "parameters removed, %",
    "paper's, %",
    "MACs removed, %",
    "twice the ideal, %",
    "loss, pp (95 %)",
    "worst class, pp",
    "seconds",
)


@dataclass(frozen=True)
class Network:
    """One of the paper's two networks."""

    model: str
    data: str  # below the data folder
    paper: tuple[int, ...]  # parameters removed in percent for k = 1, 2, ...


NETWORKS = {
    "mnist": Network("zoo:tf_mnist", ".", (10, 20, 30, 40, 49, 49, 57, 71)),
    "cifar": Network("zoo:tf_cifar", "cifar10", (10, 20, 30, 40, 50, 60, 68, 76)),
}


@dataclass(frozen=True)
class Setting:
    """All that a row depends on beside the code and the images."""

    network: str
    k: int
    method: str
    max_loss_pp: float
    weights_sha256: str
    param_weight: float = 0.1


@dataclass(frozen=True)
class Row:
    """One run: its setting and what its result.json held."""

    setting: Setting
    result: dict[str, Any]

    def removed_percent(self, what: str) -> float:
        """The share of "params" or "macs" that is gone; whole channels only."""
        before, after = (self.result[network][what] for network in ("baseline", "distilled"))
        return 100 * float(1 - after / before)


# Tables -------------------------------------------------------------------------------------


def cells(row: Row) -> list[str]:
    """The cells of one row, in the order of ``HEADER``."""
    k, result = row.setting.k, row.result
    removed = row.removed_percent("params")
    low, high = result["loss_ci95_pp"]
    return [
        str(k),
        f"{removed:.1f}",
        str(NETWORKS[row.setting.network].paper[k - 1]),
        f"{row.removed_percent('macs'):.1f}",
        twice_the_ideal(k, removed),
        f"{result['loss_pp']:+.2f} ({low:+.2f} to {high:+.2f})",
        f"{result['worst_class_loss_pp']:+.2f}",
        f"{result['seconds']['total']:.0f}",
    ]


def twice_the_ideal(k: int, removed_percent: float) -> str:
    """Whether that much is removed; the paper's ideal is a tenth of the parameters per class."""
    wanted = 2 * 100 * k // N_CLASSES
    if wanted >= 100:  # no network is left
        return "-"
    return f"{wanted}, {'yes' if removed_percent >= wanted else 'no'}"


def table(rows: Iterable[Row]) -> str:
    """A Markdown table, one line per row, sorted by the number of classes removed."""
    ordered = sorted(rows, key=lambda row: row.setting.k)
    lines = [HEADER, ["---"] * len(HEADER), *map(cells, ordered)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# Runs ---------------------------------------------------------------------------------------


def command(setting: Setting, weights: Path, data: Path, out: Path) -> list[str]:
    """The command line of one run."""
    network = NETWORKS[setting.network]
    return [
        *(sys.executable, "-m", "distillnet", "distill", network.model),
        *("--weights", str(weights), "--data", str(data / network.data)),
        *("--classes", ",".join(map(str, range(setting.k, N_CLASSES)))),
        *("--method", setting.method, "--max-loss", f"{setting.max_loss_pp:g}"),
        *("--param-weight", f"{setting.param_weight:g}"),
        *("--json", "--out", str(out)),
    ]


def measure(setting: Setting, weights: Path, data: Path) -> Row:
    """Run the command and read what it leaves; ends the benchmark where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        called = command(setting, weights, data, out)
        status = subprocess.run(called, stdout=subprocess.DEVNULL, check=False).returncode
        if status:
            sys.exit(f"status {status} of: {' '.join(called)}")
        return Row(setting, json.loads((out / "result.json").read_text(encoding="utf-8")))


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON lines file that ``write_rows`` wrote."""
    values = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Row(Setting(**value["setting"]), value["result"]) for value in values]


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write all rows anew, so that an interruption leaves the file as it was."""
    with new_file(path) as work:
        work.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    for name, network in NETWORKS.items():
        parser.add_argument(f"--weights-{name}", type=Path, help=f"of {network.model}")
    parser.add_argument("--method", default="best", help="of distillnet distill")
    parser.add_argument("--param-weight", type=float, default=0.1, help="of distillnet distill")
    parser.add_argument("--removed", type=int, nargs="+", choices=range(1, 9), default=range(1, 9))
    parser.add_argument("--out", type=Path, required=True, help="all results, as JSON lines")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --out has")
    args = parser.parse_args()
    weights = {name: getattr(args, f"weights_{name}") for name in NETWORKS}
    weights = {name: path for name, path in weights.items() if path is not None}
    if not weights:
        parser.error("expected --weights-mnist, --weights-cifar or both")
    if args.out.exists() and not args.resume:
        parser.error(f"{args.out} exists; expected --resume to go on with it, or another --out")

    rows = {row.setting: row for row in (read_rows(args.out) if args.out.exists() else [])}
    for name, file in weights.items():
        digest = _sha256(file)
        settings = [
            Setting(name, k, args.method, 1.0, digest, args.param_weight)
            for k in sorted(set(args.removed))
        ]
        for setting in settings:
            if setting not in rows:
                rows[setting] = measure(setting, file, args.data)
                write_rows(list(rows.values()), args.out)
                print(NETWORKS[name].model, *cells(rows[setting]), sep=" | ", file=sys.stderr)
        print(f"{NETWORKS[name].model}, `--method {args.method} --max-loss 1`\n")
        print(table(rows[setting] for setting in settings), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
