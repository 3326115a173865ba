"""Make the tables of docs/results.md again: ``make results``.

    python scripts/results.py --data DIR [--out DIR] [--list] [NAME ...]

results.toml has the tables and their commands. What a command prints is kept in OUT/NAME/, and all
of it in OUT/results.md, with date, machine and commit; a table that was made by the same commands
is not made again. Exit status 1: a command failed, and the others were run nevertheless.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillnet.cut.times import machine
from distillnet.files import new_file

ROOT = Path(__file__).parents[1]
TABLES = Path(__file__).with_name("results.toml")
_PYTHON = {"distillnet": [sys.executable, "-m", "distillnet"], "python": [sys.executable]}


@dataclass(frozen=True)
class Table:
    """A table: what makes it, and about how many minutes that takes."""

    name: str
    title: str
    minutes: float
    commands: tuple[str, ...]


def read_tables(path: Path) -> tuple[Table, ...]:
    """The tables that a file lists."""
    listed = tomllib.loads(path.read_text(encoding="utf-8"))["table"]
    return tuple(Table(**{**one, "commands": tuple(one["commands"])}) for one in listed)


def words_of(command: str, table: str, data: Path, out: Path) -> list[str]:
    """A command line as it is run; folders take the place of {data}, {out} and {of.NAME}."""

    def folder(match: re.Match[str]) -> str:
        kind, _, other = match[1].partition(".")
        return str(data if kind == "data" else out / (other or table))

    first, *words = [
        re.sub(r"\{(data|out|of\.\w+)\}", folder, word) for word in shlex.split(command)
    ]
    return [*_PYTHON.get(first, [first]), *words]


def is_made(table: Table, out: Path) -> bool:
    """Whether a table was made by the commands that it has now."""
    kept = out / table.name / "made.json"
    return kept.exists() and json.loads(kept.read_text())["commands"] == list(table.commands)


def make(table: Table, data: Path, out: Path) -> int:
    """Run a table's commands, one after the other; the status of the first that fails, or 0."""
    folder = out / table.name
    folder.mkdir(parents=True, exist_ok=True)
    start, printed = time.perf_counter(), []
    for command in table.commands:
        words = words_of(command, table.name, data, out)
        print(f"{table.name}: {shlex.join(words)}", file=sys.stderr, flush=True)
        done = subprocess.run(
            words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        if done.returncode:
            print(f"{table.name}: status {done.returncode}", file=sys.stderr)
            return done.returncode
        printed.append(f"$ {command}\n\n{done.stdout.rstrip()}\n")
    made = {
        "commands": list(table.commands),
        "seconds": round(time.perf_counter() - start),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "commit": _commit(),
    }
    (folder / "printed.txt").write_text("\n".join(printed), encoding="utf-8")
    with new_file(folder / "made.json") as work:
        work.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return 0


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def document(tables: Sequence[Table], out: Path) -> str:
    """All tables that were made, as Markdown."""
    parts = ["# Results, made by `make results`"]
    for table in tables:
        if not is_made(table, out):
            continue
        folder = out / table.name
        made = json.loads((folder / "made.json").read_text())
        told = f"{made['date']}, {made['commit']}, {made['machine']}, {made['seconds']:,} s"
        printed = (folder / "printed.txt").read_text(encoding="utf-8").rstrip()
        parts.append(f"## {table.title}\n\n{told}\n\n```\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Make what is missing; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="what results.toml calls {data}")
    parser.add_argument("--out", type=Path, default=ROOT / "results", help="where tables are kept")
    parser.add_argument("--tables", type=Path, default=TABLES, help="the list of tables")
    parser.add_argument("--list", action="store_true", help="print the tables and their commands")
    parser.add_argument("names", nargs="*", metavar="NAME", help="tables to make; default: all")
    args = parser.parse_args()
    tables = read_tables(args.tables)
    out = args.out.resolve()
    if strange := set(args.names) - {table.name for table in tables}:
        parser.error(f"found the table {min(strange)!r}; --list tells which there are")
    wanted = [table for table in tables if not args.names or table.name in args.names]
    if args.list:
        for table in wanted:
            state = "made" if is_made(table, out) else f"about {table.minutes:g} minutes"
            print(f"{table.name}: {table.title} ({state})")
            print(*(f"    {command}" for command in table.commands), sep="\n")
        return 0
    if args.data is None or not args.data.is_dir():
        parser.error(f"found --data {args.data}; expected a folder with images and weights")
    failed = 0
    for table in wanted:
        if not is_made(table, out):
            failed += bool(make(table, args.data.resolve(), out))
        with new_file(out / "results.md") as work:
            work.write_text(document(tables, out), encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
