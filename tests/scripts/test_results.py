"""``make results``: what was made is kept and not made again, and its commands exist."""

import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "results.py"
LIST = """
[[table]]
name = "one"
title = "The first"
minutes = 1
commands = [
    "python -c \\"print('x'); open('{out}/ran', 'a').write('1')\\"",
    "python -c \\"print(open('{data}/d').read())\\"",
]
[[table]]
name = "bad"
title = "One that fails"
minutes = 1
commands = ["python -c 'raise SystemExit(3)'"]
[[table]]
name = "two"
title = "The second"
minutes = 1
commands = ["python -c \\"print(len(open('{of.one}/ran').read()))\\""]
"""


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def _run(tmp_path: Path, *words: str, listed: str = LIST) -> subprocess.CompletedProcess[str]:
    (tmp_path / "list.toml").write_text(listed)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "d").write_text("of the data")
    command = [sys.executable, SCRIPT, "--data", tmp_path / "data", "--out", tmp_path / "out"]
    command += ["--tables", tmp_path / "list.toml", *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_each_table_is_made_once_and_the_others_despite_one_that_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert _run(tmp_path).returncode == 1
        assert (out / "one" / "ran").read_text() == "1"
        text = (out / "results.md").read_text()
        assert "## The first" in text
        assert "x" in text
        assert "of the data" in text
        assert "One that fails" not in text
        assert text.index("## The first") < text.index("## The second")
    assert json.loads((out / "one" / "made.json").read_text())["machine"]
    # Other commands make a table anew.
    other = LIST.replace("print('x')", "print('y')")
    assert _run(tmp_path, "one", listed=other).returncode == 0
    assert (out / "one" / "ran").read_text() == "11"
    assert "made" in _run(tmp_path, "--list", "two").stdout
    assert _run(tmp_path, "three").returncode == 2


def test_the_listed_commands_exist(results: ModuleType) -> None:
    tables = results.read_tables(results.TABLES)
    assert len({table.name for table in tables}) == len(tables) > 15
    seen: set[str] = set()
    for table in tables:
        for command in table.commands:
            first, second, *_ = shlex.split(command)
            assert first in ("distillnet", "python")
            if first == "python":
                assert (ROOT / second).is_file(), command
            for other in (part.split("}")[0] for part in command.split("{of.")[1:]):
                assert other in seen, f"{table.name} needs {other}, which comes later"
        seen.add(table.name)
