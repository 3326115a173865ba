"""Damage files for as long as one likes, and print what was tried: ``make fuzz``.

Each reader is tried in a process of its own, guided by coverage (atheris) where that is installed,
else by chance. A finding is any exception but DistillnetError, a death of the process, more than
10 seconds, more than 10 times the input's size + 200 MB of new memory, or a command that is run.
What was found is kept in --findings; what is worth keeping for good goes into corpus/.

    python tests/fuzz/run.py --seconds 60 --only image,front
    python tests/fuzz/run.py --runs 60000 --seconds 36000 --json fuzz.json
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
_SAID = "fuzz: "
_LATE_S = 180  # after its time, a worker hangs where no signal reaches it
_MOST_FINDINGS = 20
_ANEW = 0.3  # share of inputs that are made of a seed, not of what libFuzzer kept
_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")


@dataclass
class Tried:
    """What was tried of one reader.

    Attributes:
        runs: executions.
        inputs: different ones, all of them damaged but for the seeds.
        refused: executions that ended in a message.
        covered: edges of our and the libraries' Python code, by the seeds and in the end; None
            where the fuzzer is not guided.
        slowest_s: processor time.
        most_mb: memory beyond what was in use before.
    """

    reader: str
    runs: int = 0
    inputs: int = 0
    refused: int = 0
    covered: tuple[int, int] | None = None
    slowest_s: float = 0.0
    most_mb: float = 0.0
    findings: list[str] = field(default_factory=list)

    def add(self, said: str, guide: str) -> None:
        """Take a worker's words for what it did, and libFuzzer's for what that covered."""
        lines = [line for line in said.splitlines() if line.startswith(_SAID)]
        told = [json.loads(line.removeprefix(_SAID)) for line in lines]
        counts = [t for t in told if "runs" in t]
        for name in ("runs", "inputs", "refused"):
            setattr(self, name, getattr(self, name) + (counts[-1][name] if counts else 0))
        for name in ("slowest_s", "most_mb"):
            setattr(self, name, max([getattr(self, name), *(t[name] for t in counts)]))
        self.findings += [t["finding"] for t in told if "finding" in t]
        if edges := [int(found[1]) for found in _COVERED.finditer(guide)]:
            first = edges[0] if self.covered is None else self.covered[0]
            self.covered = (first, max(edges[-1], self.covered[1] if self.covered else 0))

    def row(self) -> str:
        """A line of the table."""
        covered = f"{self.covered[0]:>6,} {self.covered[1]:>6,}" if self.covered else f"{'':13}"
        return (
            f"{self.reader:18} {self.runs:>9,} {self.inputs:>9,} {self.refused:>9,} {covered} "
            f"{self.slowest_s:>7.2f} {self.most_mb:>5.0f} {len(self.findings):>3}"
        )


_HEAD = (
    f"{'reader':18} {'runs':>9} {'inputs':>9} {'refused':>9} {'edges':>6} {'later':>6} "
    f"{'most s':>7} {'MB':>5} {'':>3}"
)

# The worker -----------------------------------------------------------------------------------


def _say(**told: object) -> None:
    print(_SAID + json.dumps(told), flush=True)


def _work(name: str, home: Path, seconds: float, runs: int, seed: int, guided: bool) -> None:
    from readers import READERS
    from watch import Finding, Watched, corpus_of, damaged

    folder, reader = home / "fuzz", READERS[name]
    seeds = [*reader.seeds(folder), *corpus_of(name)]
    watched = Watched(name, folder, home / "latest")
    if not guided:
        draw = random.Random(seed)
        end = time.monotonic() + seconds
        try:
            for data in seeds:
                watched(data)
            while time.monotonic() < end and watched.runs < runs:
                watched(damaged(name, seeds, draw))
        except Finding as finding:
            _say(finding=str(finding))
        _say(**watched.told)
        return

    import atheris

    kept = home / "corpus"
    kept.mkdir()
    for i, data in enumerate(seeds):
        (kept / str(i)).write_bytes(data)
    said = 0.0

    def once(data: bytes) -> None:
        nonlocal said
        try:
            watched(data)
        except Finding as finding:
            _say(finding=str(finding))
            _say(**watched.told)
            raise
        if time.monotonic() - said > 1 or watched.runs == runs:  # libFuzzer ends the process itself
            said = time.monotonic()
            _say(**watched.told)

    def change(data: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < _ANEW:  # else most are of those that were refused already
            data = draw.choice(seeds)
        if draw.random() < reader.by_bytes or not data:
            changed: bytes = atheris.Mutate(data, most)
            return changed
        return reader.damage(data, draw)[:most]

    words = [
        sys.argv[0], f"-max_total_time={int(seconds)}", f"-runs={runs}", f"-seed={seed + 1}",
        "-max_len=300000", "-len_control=0", "-rss_limit_mb=0", f"-artifact_prefix={home}/",
        str(kept),
    ]  # fmt: skip
    atheris.Setup(words, once, custom_mutator=change)
    atheris.Fuzz()


# The parent -----------------------------------------------------------------------------------


def _fuzz(
    name: str, made: Path, seconds: float, runs: int, seed: int, guided: bool, findings: Path
) -> Tried:
    """Let a worker work, and another go on where one ended with a finding."""
    tried = Tried(name)
    end = time.monotonic() + seconds
    attempt = 0
    while (left := end - time.monotonic()) > 1 and tried.runs < runs:
        attempt += 1
        with tempfile.TemporaryDirectory(dir=_fast()) as folder:
            home, before = Path(folder), len(tried.findings)
            shutil.copytree(made, home / "fuzz")
            done = (name, home, left, runs - tried.runs, seed + 1000 * attempt, guided)
            said, guide = home / "said", home / "guide"
            status = _forked(lambda done=done: _work(*done), said, guide, left + _LATE_S)
            words = guide.read_text(errors="replace")
            tried.add(said.read_text(errors="replace"), words)
            if status and len(tried.findings) == before:
                tried.findings.append(f"ended with {status}: {words[-300:]}")
            if len(tried.findings) == before or len(tried.findings) >= _MOST_FINDINGS:
                break
            _keep(name, home / "latest", findings)
    return tried


def _forked(work: Callable[[], None], said: Path, errors: Path, seconds: float) -> int:
    """Do it in a child, which has imported already what is imported here; its exit status."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for path, handle in ((said, 1), (errors, 2)):
                with path.open("wb") as file:
                    os.dup2(file.fileno(), handle)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - a finding, and all else that may happen
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def _keep(name: str, latest: Path, findings: Path) -> None:
    if latest.exists():
        data = latest.read_bytes()
        findings.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(data).hexdigest()[:12]
        (findings / f"{name.replace(' ', '-')}-{digest}").write_bytes(data)


def _fast() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main(say: Callable[[str], None]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all readers together")
    parser.add_argument("--runs", type=int, default=10**9, help="of each reader, if time allows")
    parser.add_argument("--only", help="readers, commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-chance", action="store_true", help="without coverage")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--json", type=Path, help="a file for what was tried")
    args = parser.parse_args()
    guided = not args.by_chance and find_spec("atheris") is not None
    if guided:
        import atheris

        # What is imported for the first time within tells libFuzzer where it goes.
        instrumented = atheris.instrument_imports(include=["distillnet", "PIL", "safetensors"])
    with instrumented if guided else nullcontext():
        from PIL import Image

        from readers import READERS, fuzz_folder

        Image.init()

    names = args.only.split(",") if args.only else list(READERS)
    all_tried: list[Tried] = []
    end = time.monotonic() + args.seconds
    say("guided by coverage" if guided else "by chance; with atheris installed, by coverage")
    say(_HEAD)
    with tempfile.TemporaryDirectory(dir=_fast()) as folder:
        made, told = Path(folder) / "fuzz", [Path(folder) / name for name in ("said", "errors")]
        if _forked(lambda: fuzz_folder(Path(folder)), *told, seconds=_LATE_S * 5):
            raise RuntimeError(told[1].read_text())
        for i, name in enumerate(names):
            seconds = (end - time.monotonic()) / (len(names) - i)
            tried = _fuzz(name, made, seconds, args.runs, args.seed, guided, args.findings)
            all_tried.append(tried)
            say(tried.row())
            for text in dict.fromkeys(tried.findings):
                say(f"    {text}")
    total = Tried("all")
    for tried in all_tried:
        for count in ("runs", "inputs", "refused"):
            setattr(total, count, getattr(total, count) + getattr(tried, count))
        total.findings += tried.findings
        total.slowest_s = max(total.slowest_s, tried.slowest_s)
        total.most_mb = max(total.most_mb, tried.most_mb)
    say(total.row())
    if args.json:
        found = {"guided": guided, "seed": args.seed, "readers": list(map(asdict, all_tried))}
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if total.findings else 0


if __name__ == "__main__":
    sys.path[:0] = [str(HERE)]
    sys.exit(main(lambda line: print(line, flush=True)))
