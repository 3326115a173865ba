"""An interrupted search: what it found is kept, gone on with, or taken as it is."""

import json
import shutil
from pathlib import Path

import pytest

from crashes import texts
from distillnet.search import candidates
from invocations import SEARCH, Cli, assert_refused

UNFINISHED = "unfinished"
WIDE = ("--max-loss", "60", "--max-class-loss", "100")


class _Refits:
    """Counts refits, and interrupts the process at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done, self.stop_at = 0, -1
        self.refit = candidates.refit
        patch.setattr(candidates, "refit", self)

    def __call__(self, *args: object, **options: object) -> object:
        if self.done == self.stop_at:
            raise KeyboardInterrupt
        self.done += 1
        return self.refit(*args, **options)


@pytest.fixture
def refits(monkeypatch: pytest.MonkeyPatch) -> _Refits:
    return _Refits(monkeypatch)


def _result(run: Path) -> dict[str, object]:
    """All figures but those of this process's time and memory."""
    values = json.loads((run / "result.json").read_text())
    return {name: v for name, v in values.items() if name not in ("seconds", "peak_rss_mb")}


def _interrupted(cli: Cli, refits: _Refits, after: int, *words: str) -> str:
    refits.done, refits.stop_at = 0, after
    done = cli(*SEARCH, *words)
    refits.done, refits.stop_at = 0, -1
    assert_refused(done, 130)
    return done.err


@pytest.mark.slow
@pytest.mark.parametrize(("earlier", "after"), [(False, 4), (True, 4), (True, 1)])
def test_an_interrupted_search_goes_on(
    earlier: bool, after: int, cli: Cli, home: Path, run_folder: Path, refits: _Refits
) -> None:
    words = (*WIDE, "--views")
    assert cli(*SEARCH, *words).status == 0
    undisturbed, expected = refits.done, _result(run_folder)
    networks = (run_folder / "bitmaps.safetensors").read_bytes()
    before = texts(run_folder)
    if not earlier:
        shutil.rmtree(run_folder)
        before = {}
    told = _interrupted(cli, refits, after, *words)
    assert "kept in run/unfinished" in told
    assert "--resume" in told
    assert "--best-so-far" in told
    left = texts(run_folder)
    assert {name: t for name, t in left.items() if not name.startswith(UNFINISHED)} == before
    done = cli(*SEARCH, *words, "--resume")
    assert done.status == 0
    assert undisturbed - after <= refits.done < undisturbed
    assert _result(run_folder) == expected
    assert (run_folder / "bitmaps.safetensors").read_bytes() == networks
    assert not (run_folder / UNFINISHED).exists()


@pytest.mark.slow
def test_the_best_so_far_is_taken(cli: Cli, run_folder: Path, refits: _Refits) -> None:
    shutil.rmtree(run_folder)
    refits.stop_at = 3
    assert_refused(cli(*SEARCH, *WIDE), 130)
    refits.done, refits.stop_at = 0, -1
    done = cli(*SEARCH, *WIDE, "--best-so-far")
    assert done.status == 0, done.err
    result = _result(run_folder)
    assert result["stopped_by"] == "an interruption"
    assert result["mac_ratio"] > 1
    assert not (run_folder / UNFINISHED).exists()


@pytest.mark.parametrize("option", ["--resume", "--best-so-far"])
def test_nothing_to_resume(option: str, run_folder: Path, cli: Cli) -> None:
    before = texts(run_folder)
    done = cli(*SEARCH, option)
    assert_refused(done)
    assert "found no run/unfinished/search.json" in done.err
    assert "method paper" in cli(*SEARCH, option, "--method", "paper").err
    assert texts(run_folder) == before


@pytest.mark.slow
def test_what_cannot_be_resumed(cli: Cli, home: Path, run_folder: Path, refits: _Refits) -> None:
    """Damaged, of other settings, or replaced by a search from the beginning."""
    _interrupted(cli, refits, 3)
    assert "differs in its options" in cli(*SEARCH, "--resume", "--no-split").err
    assert "differs in its classes" in cli(*SEARCH, "--resume", "--classes", "0,1").err
    kept = texts(run_folder / UNFINISHED)
    network = next(name for name in kept if name.endswith(".safetensors"))
    for name, text in (
        (network, kept[network][:-9]),
        (network, b""),
        ("search.json", b""),
        ("search.json", b"[]"),
        ("search.json", b"{" * 100_000),
        ("search.json", kept["search.json"].replace(b'"known"', b'"unknown"')),
        ("search.json", kept["search.json"].replace(network[:32].encode(), b"../../photos")),
    ):
        (run_folder / UNFINISHED / name).write_bytes(text)
        done = cli(*SEARCH, "--resume")
        assert_refused(done)
        assert "cannot be read" in done.err or "does not hold what" in done.err
        assert "eave out --resume" in done.err
        (run_folder / UNFINISHED / name).write_bytes(kept[name])
    assert texts(run_folder / UNFINISHED) == kept
    done = cli(*SEARCH)
    assert done.status == 0
    assert "which this one replaces" in done.err
    assert not (run_folder / UNFINISHED).exists()
