"""The examples of README.md run as they stand, one after the other, in one folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from distillnet.cli import main

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.M | re.S)


def _examples() -> list[tuple[str, str]]:
    """(language, source): one for each command of a bash block and for each python block."""
    examples: list[tuple[str, str]] = []
    for language, source in _BLOCK.findall(README.read_text(encoding="utf-8")):
        if language == "python":
            examples.append((language, source))
        else:
            lines = source.replace("\\\n", " ").splitlines()
            examples += [(language, line) for line in lines if line.startswith("distillnet ")]
    return examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture
def photos(folder: Path, request: pytest.FixtureRequest) -> None:
    """The photos and weights that some examples name, links to real data."""
    data: Path = request.getfixturevalue("data_dir")  # skips where there is none
    for part, n in (("train", 12), ("val", 6)):
        for source in sorted((data / "imagenette" / part).iterdir()):
            target = folder / "photos" / part / source.name
            target.mkdir(parents=True, exist_ok=True)
            for image in sorted(source.iterdir())[:n]:
                if not (target / image.name).exists():
                    (target / image.name).symlink_to(image.resolve())
    weights = folder / "squeezenet1_0.safetensors"
    if not weights.exists():
        weights.symlink_to((data / "weights" / weights.name).resolve())


def test_there_are_examples() -> None:
    commands = {source.split()[1] for language, source in _examples() if language == "bash"}
    assert {"demo", "inspect", "distill", "evaluate"} <= commands
    assert any(language == "python" for language, _ in _examples())


@pytest.mark.parametrize("needs_photos", [False, True])
def test_examples(
    needs_photos: bool,
    folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if needs_photos:
        request.getfixturevalue("photos")
    monkeypatch.chdir(folder)
    # In order: each builds on what those before it left.
    chosen = [example for example in _examples() if _needs_photos(example[1]) == needs_photos]
    assert chosen
    for language, source in chosen:
        if language == "python":
            exec(compile(source, str(README), "exec"), {"__name__": "__main__"})
        else:
            monkeypatch.setattr(sys, "argv", shlex.split(source))
            with pytest.raises(SystemExit) as leaving:
                main()
            assert not leaving.value.code, f"{source}\n{capsys.readouterr().err}"
        assert capsys.readouterr().out, f"{source} prints nothing"


def _needs_photos(source: str) -> bool:
    """Whether an example works on the user's own photos, which are linked to real data."""
    return any(word in source for word in ("photos", "squeezenet1_0.safetensors"))
