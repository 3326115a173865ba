"""Images that are unusual or damaged: read where they can be, named and counted where not."""

import json
import shutil
from pathlib import Path

import pytest

from distillnet.cli.output import warn_unreadable
from invocations import DISTILL, OPTIONS, Cli, distill_words


def test_unusual_images_work(cli: Cli) -> None:
    done = cli(*distill_words(data="odd"), "--val", "photos/val", "--json")
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert result["n_images"]["statistics"] + result["n_images"]["search"] == 3 * 10
    assert result["n_images"]["unreadable"] == 0


def test_val_of_a_folder_that_holds_train_and_val_is_its_val(cli: Cli) -> None:
    done = cli(*distill_words(data="odd"), "--val", "photos", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["n_images"]["val"] == 3 * 4


def test_unreadable_images_are_named_and_counted(cli: Cli) -> None:
    for args in (
        ("collect", "net.py:net", *OPTIONS, "--data", "many", "--out", "atlas", "--json"),
        (*DISTILL, "--val", "many", "--json"),
    ):
        done = cli(*args)
        assert done.status == 0, done.err
        result = json.loads(done.out)
        assert result.get("n_images", result)["unreadable"] == 1
        assert "1 image could not be read" in done.err
        assert done.err.count("many/1/007.png: not an image") == 1
    done = cli("evaluate", "run", "--data", "many", "--json")
    assert json.loads(done.out)["n"] == 119
    assert "many/1/007.png" in done.err


def test_one_damaged_image_of_twenty_is_no_reason_to_stop(cli: Cli, home: Path) -> None:
    for c, n in (("0", 10), ("1", 5), ("2", 5)):
        (home / "twenty" / c).mkdir(parents=True)
        for i in range(n):
            shutil.copy(home / "many" / c / f"{i:03}.png", home / "twenty" / c)
    (home / "twenty" / "0" / "003.png").write_bytes(b"")
    done = cli(*distill_words(data="twenty"))
    assert done.status == 0, done.err
    assert "Note: 1 image could not be read" in done.out


def test_photos_of_a_kind_that_is_not_read_are_mentioned(cli: Cli, home: Path) -> None:
    shutil.copytree(home / "photos", home / "phone")
    for i in range(3):
        (home / "phone" / "train" / "1" / f"IMG_{i}.HEIC").write_bytes(b"of a phone")
    done = cli(*distill_words(data="phone"))
    assert done.status == 0, done.err
    assert "Note: 3 .heic files in the folders of these classes were left out" in done.out
    warnings = json.loads((home / "run" / "result.json").read_text())["warnings"]
    assert any("3 .heic files" in warning for warning in warnings)


def test_few_of_many_unreadable_images_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    warn_unreadable([f"{i}.png: cut" for i in range(13)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("13 images")
    assert lines[1:] == [*(f"  {i}.png: cut" for i in range(10)), "  and 3 more"]
