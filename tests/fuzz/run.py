"""Damage files for as long as one likes, and print what was tried: ``make fuzz``.

Each reader works in a process of its own, guided by coverage (atheris) where that is installed,
else by chance. A finding is any exception but DistillnetError, a death of the process, more than
10 seconds, more than 10 times the input's size + 200 MB of new memory, or a command that is run.
What was found is kept in --findings; what is worth keeping for good goes into corpus/.

    python tests/fuzz/run.py --seconds 60 --only image,front
"""

import argparse
import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
_HANGS_S = 10
_FREE_BYTES, _PER_BYTE = 200_000_000, 10
# What no reader may ever do; the compiler that torch may ask for is none of theirs.
_FORBIDDEN = frozenset(
    ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
)
_SAID = "fuzz: "


class Finding(BaseException):
    """Something that no reader may do; not an Exception, so that no reader handles it."""


def corpus_of(name: str) -> list[bytes]:
    """What was found earlier, for one reader."""
    return [path.read_bytes() for path in sorted((CORPUS / name.replace(" ", "-")).glob("*"))]


class Watched:
    """A reader that is watched: counts executions, raises Finding.

    Args:
        latest: where the input is kept while it is read, for whoever finds the process dead.
    """

    def __init__(self, name: str, folder: Path, latest: Path) -> None:
        from readers import READERS, allowed

        self.reader, self.allowed, self.folder, self.latest = READERS[name], allowed, folder, latest
        self.runs = self.refused = 0
        self.armed = False
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, self._late)

    def _audit(self, event: str, args: tuple[object, ...]) -> None:
        if self.armed and event in _FORBIDDEN:
            raise Finding(f"{event} {args!r:.200}")

    def _late(self, number: int, frame: FrameType | None) -> None:
        raise Finding(f"more than {_HANGS_S} s")

    def __call__(self, data: bytes) -> None:
        self.latest.write_bytes(data)
        before = _peak_bytes()
        self.runs += 1
        signal.alarm(_HANGS_S)
        self.armed = True
        try:
            self.reader.read(data, self.folder)
        except self.allowed:
            self.refused += 1
        except Exception as error:
            raise Finding(f"{type(error).__name__}: {error}") from error
        finally:
            self.armed = False
            signal.alarm(0)
        if self.runs > 20 and _peak_bytes() - before > _FREE_BYTES + _PER_BYTE * len(data):
            raise Finding(f"{(_peak_bytes() - before) / 1e6:.0f} MB for {len(data)} bytes")


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def damaged(name: str, seeds: list[bytes], draw: random.Random) -> bytes:
    """A seed, damaged once or a few times over."""
    from readers import READERS

    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = READERS[name].damage(data, draw)
    return data


# The worker -----------------------------------------------------------------------------------


def _work(name: str, folder: Path, seconds: float, seed: int, guided: bool, latest: Path) -> None:
    run = _guided if guided else _by_chance
    run(name, folder, seconds, seed, latest)


def _prepared(name: str, folder: Path, latest: Path) -> tuple[Watched, list[bytes]]:
    from readers import READERS

    seeds = [*READERS[name].seeds(folder), *corpus_of(name)]
    return Watched(name, folder, latest), seeds


def _by_chance(name: str, folder: Path, seconds: float, seed: int, latest: Path) -> None:
    watched, seeds = _prepared(name, folder, latest)
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    try:
        for data in seeds:
            watched(data)
        while time.monotonic() < end:
            watched(damaged(name, seeds, draw))
    except Finding as finding:
        print(_SAID + json.dumps({"finding": str(finding)}), flush=True)
    print(_SAID + json.dumps({"runs": watched.runs, "refused": watched.refused}), flush=True)


def _instrumented() -> AbstractContextManager[None]:
    """What is imported for the first time within it tells libFuzzer where it goes."""
    import atheris

    instrumented: AbstractContextManager[None] = atheris.instrument_imports(
        include=["distillnet", "PIL", "safetensors"]
    )
    return instrumented


def _guided(name: str, folder: Path, seconds: float, seed: int, latest: Path) -> None:
    import atheris

    watched, seeds = _prepared(name, folder, latest)
    kept = folder / "corpus"
    kept.mkdir()
    for i, data in enumerate(seeds):
        (kept / str(i)).write_bytes(data)

    said = 0.0

    def once(data: bytes) -> None:
        nonlocal said
        try:
            watched(data)
        except Finding as finding:
            print(_SAID + json.dumps({"finding": str(finding)}), flush=True)
            raise
        finally:
            if time.monotonic() - said > 1:  # libFuzzer ends the process itself
                said = time.monotonic()
                told = {"runs": watched.runs, "refused": watched.refused}
                print(_SAID + json.dumps(told), flush=True)

    def change(data: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < 0.5 or not data:
            return atheris.Mutate(data, most)
        return watched.reader.damage(data, draw)[:most]

    words = [
        sys.argv[0], f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-max_len=300000",
        "-len_control=0", "-rss_limit_mb=0", "-print_final_stats=0",
        f"-artifact_prefix={folder}/", str(kept),
    ]  # fmt: skip
    atheris.Setup(words, once, custom_mutator=change)
    atheris.Fuzz()


# The parent -----------------------------------------------------------------------------------


def _supervise(
    name: str, seconds: float, seed: int, guided: bool, findings: Path
) -> dict[str, object]:
    """Let a worker work, and another go on where one ended with a finding."""
    total: dict[str, object] = {"runs": 0, "refused": 0, "findings": []}
    found: list[str] = []
    runs = refused = 0
    end = time.monotonic() + seconds
    attempt = 0
    while (left := end - time.monotonic()) > 1 and len(found) < 20:
        attempt += 1
        with tempfile.TemporaryDirectory(dir=_fast()) as home:
            latest = Path(home) / "latest"
            command = [
                sys.executable, str(HERE / "run.py"), "--worker", name, "--seconds", str(left),
                "--seed", str(seed + 1000 * attempt), "--home", home,
                *(["--by-chance"] if not guided else []),
            ]  # fmt: skip
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", check=False
            )
            told = [json.loads(line.removeprefix(_SAID)) for line in done.stdout.splitlines()
                    if line.startswith(_SAID)]  # fmt: skip
            runs += max((t["runs"] for t in told if "runs" in t), default=0)
            refused += max((t["refused"] for t in told if "refused" in t), default=0)
            what = [t["finding"] for t in told if "finding" in t]
            if done.returncode and not what:
                what = [f"ended with {done.returncode}: {done.stderr[-300:]}"]
            for text in what:
                found.append(text)
                if latest.exists():
                    data = latest.read_bytes()
                    findings.mkdir(parents=True, exist_ok=True)
                    digest = hashlib.sha256(data).hexdigest()[:12]
                    (findings / f"{name.replace(' ', '-')}-{digest}").write_bytes(data)
            if not what:
                break
    total |= {"runs": runs, "refused": refused, "findings": found}
    return total


def _fast() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main(say: Callable[[str], None]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all readers together")
    parser.add_argument("--only", help="readers, commas between")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-chance", action="store_true", help="without coverage")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.by_chance = args.by_chance or find_spec("atheris") is None
    if args.worker:
        with nullcontext() if args.by_chance else _instrumented():
            from readers import fuzz_folder

        folder = fuzz_folder(args.home)
        latest = args.home / "latest"
        _work(args.worker, folder, args.seconds, args.seed, not args.by_chance, latest)
        return 0
    from readers import READERS

    names = args.only.split(",") if args.only else list(READERS)
    n, bad = 0, 0
    for name in names:
        done = _supervise(
            name, args.seconds / len(names), args.seed, not args.by_chance, args.findings
        )
        say(f"{name:15} {done['runs']:>9,} runs, {done['refused']:>9,} refused, "
            f"{len(done['findings'])} findings")  # fmt: skip
        for text in dict.fromkeys(done["findings"]):
            say(f"    {text}")
        n += done["runs"]
        bad += len(done["findings"])
    say(f"{'all':15} {n:>9,} runs, {bad} findings")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.path[:0] = [str(HERE)]
    sys.exit(main(lambda line: print(line, flush=True)))
