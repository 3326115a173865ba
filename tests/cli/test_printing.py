"""What commands print: help, JSON for programs, tables and progress for people."""

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from commands import every_command
from distillnet.cli import app
from distillnet.cli.groups import HEADINGS
from distillnet.cli.output import print_table, progress
from invocations import COLLECT, DISTILL, OPTIONS, Cli, distill_words


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_version_and_the_list_of_commands_are_whole(cli: Cli) -> None:
    done = cli("--version")
    assert (done.status, done.out) == (0, f"distillnet {version('distillnet')}\n")
    assert "..." not in cli("--help").out.replace("[ARGS]...", "")


def test_every_command_and_option_has_help_with_its_default(cli: Cli) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {"demo", "train", "inspect", "collect", "distill", "evaluate"} <= set(commands)
    for words, command in every_command():
        name = " ".join(words)
        assert command.help, name
        done = cli(*words, "--help")
        assert (done.status, done.err) == (0, "")
        # An option begins in the second column; what follows deeper belongs to it.
        text = re.sub(r"\n {4,}", " ", done.out)
        lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  --")}
        lines.pop("--help")
        assert lines
        for option, line in lines.items():
            assert "[default:" in line or "required]" in line, f"{name} {option}: {line}"


def test_options_are_in_groups_everyday_ones_first(cli: Cli) -> None:
    text = cli("distill", "--help").out
    headings = re.findall(r"^(\w[\w ]*):$", text, re.M)
    assert headings == [
        *("Arguments", "Mission", "Budget", "Images", "Network", "Search", "Output"),
        *("Seldom needed", "Other"),
    ]
    sections = dict(zip(headings, re.split(r"^\w[\w ]*:$", text, flags=re.M)[1:], strict=True))
    for heading, options in {
        "Mission": ("--data", "--classes", "--out"),
        "Budget": ("--max-loss",),
        "Seldom needed": ("--param-weight", "--workers"),
        "Other": ("--help",),
    }.items():
        for option in options:
            assert re.search(rf"^  {option}\b", sections[heading], re.M), (heading, option)


def test_no_option_is_without_a_heading() -> None:
    for words, command in every_command():
        for param in command.params:
            if param.param_type_name == "option":
                assert param.rich_help_panel in HEADINGS, f"{words}: {param.opts}"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("distillnet dis", ["distill"]),
        ("distillnet distill --max-c", ["--max-class-loss"]),
        ("distillnet distill --max-l", ["--max-loss"]),
        ("distillnet distill --method ", ["best", "paper"]),
    ],
)
def test_a_shell_can_complete(words: str, offered: list[str]) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'distillnet'; " + _MAIN],
        env={**os.environ, **asked, "_DISTILLNET_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")


_MAIN = "from distillnet.cli import main; main()"

NETWORK_KEYS = {"input_size", "params", "macs", "accuracy", "accuracy_open", "per_class"}
RESULT_KEYS = {
    *("model", "method", "classes", "baseline", "distilled", "mac_ratio", "param_ratio"),
    *("mac_ratio_with_partial", "inception_mac_ratio", "loss_pp", "worst_class_loss_pp"),
    *("loss_ci95_pp", "n_images", "seconds", "peak_rss_mb"),
}


def test_json_is_all_there_is_on_standard_output(cli: Cli, home: Path) -> None:
    for args, keys in (
        (distill_words("talkative"), RESULT_KEYS),
        (("evaluate", "run", "--data", "photos"), {"accuracy", "accuracy_open", "per_class", "n"}),
        (("inspect", "net.py:talkative", *OPTIONS), {"layers", "params", "macs"}),
        (("collect", "net.py:talkative", *COLLECT[2:]), {"counts", "unreadable"}),
        (
            ("train", "zoo:tf_mnist", "--data", "photos", "--out", "w", "--epochs", "1"),
            {"accuracy", "unreadable"},
        ),
    ):
        done = cli(*args, "--json")
        assert done.status == 0, done.err
        assert keys <= set(json.loads(done.out))
        assert ("the file says hello" in done.err) == ("talkative" in " ".join(args))
    result = json.loads((home / "run" / "result.json").read_text())
    assert set(result["baseline"]) >= NETWORK_KEYS <= set(result["distilled"])
    assert set(result["n_images"]) == {"statistics", "search", "val", "unreadable"}
    assert set(result["seconds"]) == {"collect", "search", "tune", "total"}
    assert result["classes"][2] == {"index": 2, "name": "2"}


@pytest.mark.slow
def test_json_of_a_process_and_bars_on_a_terminal(home: Path, cli: Cli) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "distillnet", *distill_words("talkative"), "--json"],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        shown = b""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65536):
                shown += part
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert set(json.loads(out)) >= RESULT_KEYS
    assert "hello" in text
    for label in (
        "Collecting statistics",
        "images/s",
        "Searching",
        "candidates/s",
        "Evaluating",
        "━",
    ):
        assert label in text
    assert re.search(r"\d:\d\d:\d\d", text)  # time left


def test_lines_where_there_is_no_terminal(cli: Cli) -> None:
    done = cli(*DISTILL)
    assert re.search(r"^Collecting statistics: 12/12, [\d.]+ images/s$", done.err, re.M)
    assert re.search(r"^Evaluating: (\d+)/\1, ", done.err, re.M)
    assert "\x1b" not in done.err + done.out
    assert "Written to run" in done.out
    # The network that is written has three outputs and knows of no fourth.
    table, _, words = done.out.partition("Loss ")
    assert "among all" not in table
    assert "Among all 4 classes" in words


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a [red] title", ["x", "[b]"], [["[/red]", ":cat:"]])
    out = capsys.readouterr().out
    for text in ("a [red] title", "[b]", "[/red]", ":cat:"):
        assert text in out


def test_no_figure_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [f"{n}.123456789" for n in range(30)]
    print_table("wide", [f"column {n}" for n in range(30)], [figures])
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(f"column {n}" in out and figure in out for n, figure in enumerate(figures))


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_of_the_next_job_begins_anew(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rate is that of its own time, and its total its own."""
    clock = iter((0.0, 1000.0, 1000.0, 1000.0, 1010.0))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = _Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress() as on_progress:
        on_progress("collect", 500, 500)
        on_progress("search", 1, 1)
        on_progress("collect", 0, 40)
        on_progress("collect", 20, 40)
    assert "20/40" in stream.getvalue()
    if not terminal:
        assert "20/40, 2.0 images/s, 10 s left" in stream.getvalue()


@pytest.mark.slow
def test_a_reader_that_leaves_early(home: Path) -> None:
    command = f"{sys.executable} -m distillnet inspect net.py:net {' '.join(OPTIONS)} | true"
    done = subprocess.run(
        command, shell=True, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
