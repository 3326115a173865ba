"""The examples of README.md run as they stand, one after the other, in one folder."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import distillnet as dn
from distillnet.cli import main
from distillnet.deploy import distilled_network
from distillnet.images.preprocessing import preprocess

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
    for part, n in (("train", 7), ("val", 3)):
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


@pytest.mark.slow
@pytest.mark.usefixtures("peaks")
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="found no C compiler")
def test_the_c_of_the_readme_names_a_digit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled with warnings as errors, beside the folder that the examples exported."""
    if not (folder / "run" / "c").exists():
        pytest.skip("the examples before it did not run")
    monkeypatch.chdir(folder)
    (block,) = re.findall(r"^```c\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    main_c = """
#include <stdio.h>
int main(void)
{
    static float image[MODEL_CHANNELS * MODEL_HEIGHT * MODEL_WIDTH];
    puts(class_of(image));
    return 0;
}
"""
    Path("run/c/main.c").write_text(block + main_c)
    sources = ["main.c", "model.c", "weights.c", "missions/run.c"]
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I.", "-o", "main"]
    subprocess.run(["cc", *flags, *sources, "-lm"], cwd="run/c", check=True)
    done = subprocess.run(["./main"], cwd="run/c", check=True, capture_output=True, text=True)
    assert done.stdout.strip() in {"3", "5", "8"}


def _needs_photos(source: str) -> bool:
    """Whether an example works on the user's own photos, which are linked to real data."""
    return any(word in source for word in ("photos", "squeezenet1_0.safetensors"))


RECIPE = README.parent / "docs" / "raspberry-pi.md"


@pytest.mark.slow
def test_the_recipe_for_a_device_runs_without_torch(
    folder: Path, photos: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its service says of photos what the run's own network says; torch and distillnet are away."""
    monkeypatch.chdir(folder)
    blocks = _BLOCK.findall(RECIPE.read_text(encoding="utf-8"))
    distill, fit, export = next(text for kind, text in blocks if kind == "bash").splitlines()
    for i, kind in enumerate(sorted(Path("photos/train").iterdir())[3:6]):  # none of the mission's
        Path("others").mkdir(exist_ok=True)
        Path(f"others/kind {i}").symlink_to(kind.resolve())
    assert distill in README.read_text(encoding="utf-8")
    made = Path("fish-dog-church").exists()  # by the README's examples, if they ran here
    for command in [fit, export] if made else [distill, fit, export]:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as leaving:
            main()
        assert not leaving.value.code
    Path("service.py").write_text(next(text for kind, text in blocks if kind == "python"))
    Path("inbox").mkdir()
    opened = dn.open_run(Path("fish-dog-church"))
    want = {}
    network = distilled_network(opened, unknown=True)
    for i, path in enumerate(sorted(Path("photos/val").rglob("*.JPEG"))):
        if not path.parent.name.startswith(("n01440764", "n02102040", "n03028079")):
            continue
        shutil.copyfile(path, f"inbox/{i}.jpg")
        with Image.open(path) as image:
            x = preprocess(image, opened.preprocessing)
        with torch.inference_mode():
            best = int(network.module(x[None]).argmax())
        want[f"{i}.jpg"] = network.classes[best]
    assert want
    (broken := Path("inbox/a.jpg")).write_bytes(b"\xff\xd8\xff cut off")
    os.utime(broken, (0, 0))  # it has been so for long
    alone = (
        "import sys; sys.modules.update(torch=None, distillnet=None); sys.argv = ['', 'inbox']; "
    )
    service = subprocess.Popen(
        [sys.executable, "-c", alone + "exec(open('service.py').read())"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert service.stdout is not None
        lines = [service.stdout.readline() for _ in (broken, *want)]
    finally:
        service.kill()
        service.wait()
    said = dict(line.split(": ", 1) for line in lines)
    assert said.pop(broken.name).startswith("cannot be read")
    assert {name: line.split(",")[0] for name, line in said.items()} == want
    assert {path.name for path in Path("inbox").iterdir()} == {broken.name, *want}


def test_the_table_of_results_is_the_one_in_docs() -> None:
    script = README.parent / "scripts" / "readme.py"
    with_results = runpy.run_path(str(script))["with_results"]
    readme = README.read_text(encoding="utf-8")
    results = (README.parent / "docs" / "results.md").read_text(encoding="utf-8")
    assert with_results(readme, results) == readme, "run `make readme`"
    assert with_results(readme, results.replace("| input |", "| side |")) != readme
