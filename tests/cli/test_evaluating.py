"""What an accuracy is of: images that were held out, or the user's, of which some were seen."""

import json
from pathlib import Path

from invocations import Cli, assert_refused


def test_without_images_the_held_out_ones_are_taken(cli: Cli, run_folder: Path) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    done = cli("evaluate", run_folder, "--json")
    assert done.status == 0, done.err
    printed = json.loads(done.out)
    assert (printed["n"], printed["n_seen"]) == (result["n_images"]["val"], 0)
    assert printed["accuracy"] == result["distilled"]["accuracy"]
    assert "flatter" not in done.err


def test_what_the_network_was_made_of_is_said_first(cli: Cli, run_folder: Path) -> None:
    made_of = 3 * 8
    for data, seen in (("photos/train", made_of), ("photos", 0), ("photos/val", 0)):
        done = cli("evaluate", run_folder, "--data", data, "--json")
        assert done.status == 0, done.err
        assert json.loads(done.out)["n_seen"] == seen
        said = f"{made_of} of these {made_of} images are among those that the network was made from"
        assert (said in done.err) == bool(seen)
        if seen:
            assert done.err.index(said) < done.err.index("Evaluating")


def test_a_network_from_the_front_is_made_of_the_same_images(cli: Cli, run_folder: Path) -> None:
    done = cli("distill", "--from", run_folder, "--max-loss", "100", "--out", "taken")
    assert done.status == 0, done.err
    done = cli("evaluate", "taken", "--json")
    assert json.loads(done.out)["n"] == 3 * 4


def test_a_run_that_does_not_know_its_images_asks_for_some(cli: Cli, run_folder: Path) -> None:
    (run_folder / "images.safetensors").unlink()
    done = cli("evaluate", run_folder)
    assert_refused(done)
    assert "not recorded there; pass images with --data" in done.err
    done = cli("evaluate", run_folder, "--data", "photos/train", "--json")
    assert json.loads(done.out)["n_seen"] is None
    assert "flatter" in done.err  # as for all that one can know
