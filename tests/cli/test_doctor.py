"""What a bug report should say, gathered without importing what is looked for."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from distillnet.deploy import available_runtimes
from invocations import Cli


def test_the_doctor_agrees_with_what_is_installed(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert set(found) == {"versions", "runtimes", "machine", "folders"}
    versions = found["versions"]
    assert versions["python"] == platform.python_version()
    for name in ("distillnet", "torch", "numpy", "pillow"):
        assert versions[name] == version(name)
    assert {name for name, told in found["runtimes"].items() if told} == set(available_runtimes())
    assert found["machine"]["cores"] >= found["machine"]["cores_usable"] >= 1


def test_the_doctor_prints_no_name_of_a_user(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "ada"
    (home / ".cache" / "distillnet").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME", "DISTILLNET_DATA"):
        monkeypatch.delenv(name, raising=False)
    done = cli("doctor")
    assert done.status == 0
    assert "~/.cache/distillnet\n" in done.out.replace(" ", "")
    assert "~/.cache/torch/hub(notthereyet)" in done.out.replace(" ", "")
    assert "ada" not in done.out
    monkeypatch.setenv("TORCH_HOME", "/elsewhere")
    assert "/elsewhere/hub" in cli("doctor").out


def test_the_doctor_says_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillnet.cli.commands.doctoring.shutil.which", lambda name: None)
    found = json.loads(cli("doctor", "--json").out)
    assert found["runtimes"]["c"] is None
    assert found["runtimes"]["compiled"] is None
    lines = cli("doctor").out.splitlines()
    assert (
        next(line for line in lines if line.startswith("compiled")).rstrip().endswith("not found")
    )
