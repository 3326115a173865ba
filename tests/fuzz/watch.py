"""A reader that is watched while it reads."""

import hashlib
import random
import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from readers import READERS, allowed

__all__ = ["Finding", "Watched", "corpus_of", "damaged"]

CORPUS = Path(__file__).resolve().parent / "corpus"
_HANGS_S = 10
_FREE_BYTES, _PER_BYTE = 200_000_000, 10
_WARM = 20  # executions, while modules are imported
# What no reader may ever do; the compiler that torch may ask for is none of theirs.
_FORBIDDEN = frozenset(
    ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
)


class Finding(BaseException):
    """Something that no reader may do; not an Exception, so that no reader handles it."""


def corpus_of(name: str) -> list[bytes]:
    """What was found earlier, for one reader."""
    return [path.read_bytes() for path in sorted((CORPUS / name.replace(" ", "-")).glob("*"))]


def damaged(name: str, seeds: list[bytes], draw: random.Random) -> bytes:
    """A seed, damaged once or a few times over."""
    data = draw.choice(seeds)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = READERS[name].damage(data, draw)
    return data


class Watched:
    """A reader that is watched: counts executions, raises Finding.

    Args:
        latest: where the input is kept while it is read, for whoever finds the process dead.
    """

    def __init__(self, name: str, folder: Path, latest: Path) -> None:
        self.reader, self.folder, self.latest = READERS[name], folder, latest
        self.runs = self.refused = 0
        self.slowest_s = self.most_mb = 0.0
        self.seen: set[bytes] = set()
        self.armed = False
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGPROF, self._late)

    @property
    def told(self) -> dict[str, float]:
        """What was tried so far."""
        return {
            "runs": self.runs,
            "inputs": len(self.seen),
            "refused": self.refused,
            "slowest_s": round(self.slowest_s, 3),
            "most_mb": round(self.most_mb, 1),
        }

    def _audit(self, event: str, args: tuple[object, ...]) -> None:
        if self.armed and event in _FORBIDDEN:
            raise Finding(f"{event} {args!r:.200}")

    def _late(self, number: int, frame: FrameType | None) -> None:
        raise Finding(f"more than {_HANGS_S} s")

    def __call__(self, data: bytes) -> None:
        self.latest.write_bytes(data)
        self.seen.add(hashlib.blake2b(data, digest_size=8).digest())
        before, began = _peak_bytes(), time.process_time()
        self.runs += 1
        # Of processor time: others may keep this process waiting.
        signal.setitimer(signal.ITIMER_PROF, _HANGS_S)
        self.armed = True
        try:
            self.reader.read(data, self.folder)
        except allowed:
            self.refused += 1
        except Exception as error:
            raise Finding(f"{type(error).__name__}: {error}") from error
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if self.runs <= _WARM:
            return
        self.slowest_s = max(self.slowest_s, time.process_time() - began)
        more = _peak_bytes() - before
        self.most_mb = max(self.most_mb, more / 1e6)
        if more > _FREE_BYTES + _PER_BYTE * len(data):
            raise Finding(f"{more / 1e6:.0f} MB for {len(data)} bytes")


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
