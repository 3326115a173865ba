"""Names that a user gives to classes go all the way: folders, results, files for devices."""

import json
import shutil
from pathlib import Path

import pytest

from invocations import OPTIONS, Cli

TABLE = ("--class-names", "names.tsv")


@pytest.fixture
def pets(home: Path, cli: Cli) -> Path:
    """Photos in folders with names of the user's own; ``cli`` removes them."""
    for part in ("train", "val"):
        for source, own in (("0", "Tom"), ("1", "jays"), ("2", "my cup")):
            shutil.copytree(home / "photos" / part / source, home / "pets" / part / own)
    return home / "pets"


@pytest.mark.slow
def test_own_names_go_all_the_way(pets: Path, home: Path, cli: Cli) -> None:
    (home / "list.txt").write_text("\ufeffmy cup=cup\r\nTom = crane\r\n\r\nJay\r\n")
    own = ["my cup", "Tom", "jay"]
    model = ("net.py:net", *OPTIONS, *TABLE, "--data", "pets")
    done = cli("distill", *model, "--classes", "@list.txt", "--out", "run", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert [(c["index"], c["name"]) for c in result["classes"]] == list(
        zip((2, 0, 1), own, strict=True)
    )
    assert list(result["baseline"]["per_class"]) == own
    mission = json.loads((home / "run" / "mission.json").read_text())
    assert [c["name"] for c in mission["classes"]] == own
    assert mission["classes"][0]["aliases"] == ["mug", "cup"]

    # A run finds images by the user's names and by the network's.
    for data in ("pets", "photos"):
        told = json.loads(cli("evaluate", "run", "--data", data, "--json").out)
        assert (list(told["per_class"]), told["n"]) == (own, 12)

    assert cli("export", "run", "--format", "c").status == 0
    about = json.loads((home / "run" / "c" / "about.json").read_text())
    assert about["missions"] == {"run": own}
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    assert cli("export", "run").status == 0
    file = onnx.load(home / "run" / "model.onnx")
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(metadata["class_names"]) == own


def test_statistics_are_by_the_users_names(pets: Path, cli: Cli) -> None:
    model = ("net.py:net", *OPTIONS, *TABLE, "--data", "pets", "--out", "atlas", "--json")
    done = cli("collect", *model, "--classes", "Tom=crane,my cup=cup")
    assert done.status == 0, done.err
    assert json.loads(done.out)["counts"] == {"Tom": 8, "my cup": 8}


@pytest.mark.slow
def test_without_classes_all_folders_are_the_mission(home: Path, cli: Cli) -> None:
    words = ("net.py:net", *OPTIONS, *TABLE, "--data", "photos", "--out", "run", "--json")
    done = cli("distill", *words)
    assert done.status == 0, done.err
    classes = json.loads(done.out)["classes"]
    assert [entry["name"] for entry in classes] == ["crane", "jay", "mug"]
