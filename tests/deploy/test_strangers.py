"""A run that somebody else made tells what a network is, and never runs code."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from commands import run_command
from distillnet.deploy.peak import peak_mb
from distillnet.files.manifest import read_manifest, seal
from untrained_run import SIDE, net_of, refused

# What a run could name instead of its network; `{}` is a file that leaves a trace.
NAMED = ("{}:f", "torchvision:resnet18/../{}:f", "./{}:f", "{}")


@pytest.fixture
def strange(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run, with Python beside its network that leaves a trace when it is run."""
    home = shutil.copytree(run, tmp_path / "strange", ignore=shutil.ignore_patterns("atlas"))
    (home / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'trace')!r}).touch()\nf = None\n"
    )
    monkeypatch.chdir(tmp_path)
    return home


def _name(run: Path, model: str) -> None:
    for file in ("result.json", "mission.json"):
        told = json.loads((run / file).read_text())
        (run / file).write_text(json.dumps(told | {"model": model}))
    seal(run, read_manifest(run).files)  # as whoever wants it to be believed would


@pytest.mark.parametrize("named", NAMED)
def test_python_that_a_run_names_is_not_run(
    strange: Path, tmp_path: Path, monkeypatch, capsys, named: str
) -> None:
    _name(strange, named.format("strange/evil.py"))
    for command in (
        ("bench", "strange", "--runtime", "torch", "--seconds", "0"),
        ("export", "strange", "--format", "c", "--switchable", "--out", "c"),
    ):
        assert refused(monkeypatch, *command) == 2
        if named == "{}:f":
            assert "--model strange/evil.py:f" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()


def test_python_that_the_user_names_is(strange: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    _name(strange, "zoo:tf_mnist")
    command = ("bench", "strange", "--model", "strange/evil.py:f", "--runtime", "torch")
    assert refused(monkeypatch, *command) == 2  # it gives no network
    assert "evil.py:f" in capsys.readouterr().err
    assert (tmp_path / "trace").exists()


@pytest.mark.usefixtures("quick_compiler")
def test_a_folder_of_c_runs_only_where_the_user_trusts_it(
    strange: Path, run: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    run_command(monkeypatch, "export", "strange", "--format", "c")
    model = strange / "c" / "model.c"
    trace = (
        f'__attribute__((constructor)) static void f(void) {{ fopen("{tmp_path}/trace", "w"); }}'
    )
    model.write_text(f"{model.read_text()}\n#include <stdio.h>\n{trace}\n")
    command = ("evaluate", "strange", "--data", str(run.parent / "data"), "--runtime", "c")
    capsys.readouterr()
    assert refused(monkeypatch, *command) == 2
    assert "--trust" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
    assert "--trust" in (strange / "c" / "README.md").read_text()
    # bench times what it writes itself.
    run_command(
        monkeypatch, "bench", "strange", "--model", net_of(run), "--runtime", "c", "--seconds",
        "0", "--batch", "1",
    )  # fmt: skip
    assert not (tmp_path / "trace").exists()
    run_command(monkeypatch, *command, "--trust")
    assert (tmp_path / "trace").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compiler")
def test_names_in_a_run_do_not_leave_the_comments_of_its_c(
    strange: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Those of folders and classes go into C, a Makefile and CMake."""
    bad = "x\n$(shell touch trace)\n*/ int evil; /*\n\\\nset(evil"
    odd = strange.rename(tmp_path / bad.replace("/", "|"))
    mission = json.loads((odd / "mission.json").read_text())
    mission["classes"][0]["name"] = bad
    (odd / "mission.json").write_text(json.dumps(mission))
    seal(odd, read_manifest(odd).files)
    run_command(monkeypatch, "export", odd.name, "--format", "c", "--out", "c")
    for name, word in (("Makefile", "$(shell touch"), ("CMakeLists.txt", "set(evil")):
        lines = (tmp_path / "c" / name).read_text().splitlines()
        assert all(word not in line or line.startswith("#") for line in lines), name
    subprocess.run(["make", "-n", "-C", "c"], check=True, capture_output=True)
    for source in (tmp_path / "c").rglob("*.c"):
        command = ["cc", "-E", "-P", str(source)]  # without comments
        code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert "int evil" not in re.sub(r'"(\\.|[^"\\])*"', "", code), source
    assert not (tmp_path / "trace").exists()


def test_modules_that_lie_in_a_run_are_not_imported(
    strange: Path, tmp_path: Path, monkeypatch
) -> None:
    """Where the user stands in it: the process that measures memory looks elsewhere."""
    for name in ("numpy", "torch", "distillnet"):
        (strange / "evil.py").rename(strange / f"{name}.py")
        shutil.copy(strange / f"{name}.py", strange / "evil.py")
    monkeypatch.chdir(strange)
    peak_mb("torch", strange / "model.pt2", 1, (1, 3, SIDE, SIDE))
    assert not (tmp_path / "trace").exists()
