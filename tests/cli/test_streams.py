"""Names of all kinds and streams that are closed: one readable line, nothing that is obeyed."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from distillnet.cli.output import print_line, print_table, warn
from invocations import DISTILL, N_CLASSES, OPTIONS, Cli, assert_refused

ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\r\u202efdp"


def _distillnet(home: Path, *args: str, shell: str = "") -> subprocess.CompletedProcess[bytes]:
    """The command in a shell, which may close its streams."""
    words = [sys.executable, "-m", "distillnet", *args]
    return subprocess.run(
        ["sh", "-c", f'"$@" {shell}', "sh", *words], cwd=home, capture_output=True, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, home: Path) -> None:
    done = _distillnet(home, "inspect", "net.py:net", *OPTIONS, shell=closed)
    assert done.returncode == 0
    assert b"Error" not in done.stderr
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    done = _distillnet(home, "inspect", "absent.pt2", shell=closed)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_what_the_terminal_would_obey_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    warn(ESCAPES)
    print_line(ESCAPES)
    print_table(ESCAPES, ["a", "b"], [[ESCAPES, ESCAPES]])
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert text.isprintable() or set(text) - {c for c in text if c.isprintable()} == {"\n"}
        assert "\\x1b[2J" in text
        assert "\\x9b31m" in text


def test_names_of_files_reach_the_terminal_as_text(home: Path, cli: Cli) -> None:
    table = home / "table.tsv"
    table.write_text(
        "index\tname\n" + "".join(f"{i}\tclass {i}{ESCAPES[:-5]}\n" for i in range(N_CLASSES))
    )
    done = cli(*DISTILL, "--class-names", "table.tsv")
    assert done.status == 0, done.err
    assert "\\x1b[2J" in done.out
    assert "\x1b" not in done.out
    for args in (("inspect", f"{ESCAPES}.pt2"), ("evaluate", f"run{ESCAPES}", "--data", "photos")):
        refused = cli(*args)
        assert_refused(refused)
        assert "\x1b" not in refused.err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode")
def test_names_that_are_not_utf8(home: Path, cli: Cli) -> None:
    """Of the data, of an image that cannot be read, and of the run itself."""
    odd = os.fsdecode(b"ph\xf6tos\xff")
    (home / odd).mkdir()
    subprocess.run(["cp", "-r", "many/.", odd], cwd=home, check=True)
    os.rename(home / odd / "1" / "007.png", home / odd / "1" / f"{odd}.png")  # noqa: PTH104
    run = os.fsdecode(b"r\xfcn\xff")
    done = cli(*DISTILL, "--data", odd, "--out", run)
    assert done.status == 0, done.err
    assert "\\udcff" in done.err + done.out
    for args in (
        ("evaluate", run, "--data", odd, "--json"),
        ("export", run, "--format", "c"),
        ("export", run, "--format", "pt2"),
    ):
        done = cli(*args)
        assert done.status == 0, done.err
    assert (home / run / "c" / "Makefile").exists()


def test_too_small_an_address_space(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1_500_000_000, -1))
    done = cli("inspect", "net.py:net", *OPTIONS)
    assert_refused(done, 1)
    assert "1.5 GB of address space, and PyTorch needs 4" in done.err
    assert len(done.err.splitlines()) == 1
