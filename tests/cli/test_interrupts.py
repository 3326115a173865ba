"""Ctrl-C at any time: one word, status 130, and every file as it was."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillnet.cli.process.signals import ended_like_ctrl_c
from invocations import COLLECT, DISTILL, SEARCH, Cli, assert_refused, drop_unfinished, tree

cli_distill = importlib.import_module("distillnet.cli.commands.distilling")


def _interrupted_at(wanted: str) -> Callable[[], contextlib.AbstractContextManager[object]]:
    @contextlib.contextmanager
    def progress() -> Iterator[object]:
        def update(stage: str, done: int, of: int) -> None:
            if stage == wanted:
                raise KeyboardInterrupt

        update.on_front = lambda points: None  # type: ignore[attr-defined]
        yield update

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["collect", "read", "search", "evaluate"])
@pytest.mark.parametrize("earlier", [False, True])
def test_ctrl_c_in_each_stage(
    stage: str,
    earlier: bool,
    cli: Cli,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if earlier:
        request.getfixturevalue("run_folder")
    before = tree(home)
    monkeypatch.setattr(cli_distill, "progress", _interrupted_at(stage))
    done = cli(*SEARCH)
    assert_refused(done, 130)
    assert done.err.splitlines()[-1] == "interrupted"
    kept = stage in ("search", "evaluate")
    assert ("--resume goes on" in done.err) == drop_unfinished(home / "run") == kept
    assert tree(home) == before


@pytest.mark.parametrize(
    ("module", "name", "args"),
    [
        ("job.runs", "write_run", SEARCH),
        (
            "models.train",
            "save_weights",
            ("train", "zoo:tf_mnist", "--data", "photos", "--out", "w"),
        ),
        ("missions.collecting", "collect_model", COLLECT),
        ("job.evaluating", "evaluate_run", ("evaluate", "run", "--data", "photos")),
        ("job.demo", "run_demo", ("demo", "--out", "run")),
    ],
)
def test_ctrl_c_in_each_command(
    module: str,
    name: str,
    args: tuple[str, ...],
    run_folder: Path,
    cli: Cli,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        for path in args:
            if isinstance(path, Path) and path.is_dir():
                (path / "half").write_text("")
        raise KeyboardInterrupt

    before = tree(home)
    monkeypatch.setattr(importlib.import_module(f"distillnet.{module}"), name, interrupted)
    done = cli(*args, *(("--epochs", "1") if args[0] == "train" else ()))
    assert_refused(done, 130)
    assert done.err.splitlines()[-1] == "interrupted"
    assert drop_unfinished(home / "run") == (name == "write_run")
    assert tree(home) == before


@pytest.mark.slow
@pytest.mark.usefixtures("signals_are_heard")
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "terminated"),
    ],
)
def test_a_signal_from_outside(number: int, status: int, word: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "distillnet", "demo", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # Its workplace shows that it trains.
        while process.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (status, "", f"{word}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_a_library_lost_can_be_sent_again() -> None:
    with ended_like_ctrl_c() as received:
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):  # as a library may
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(10)
    assert received == [signal.SIGTERM] * 2


@pytest.mark.usefixtures("signals_are_heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_this_process(
    number: int, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others that follow while things are put in order change nothing."""

    def ended(*args: object, **options: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    before, handler = tree(home), signal.getsignal(number)
    monkeypatch.setattr("distillnet.job.distill.distill", ended)
    done = cli(*DISTILL)
    assert_refused(done, 128 + number)
    assert done.err.strip() == "terminated"
    assert tree(home) == before
    assert signal.getsignal(number) is handler
