"""The playbook's commands print what the library finds, as a table and as JSON."""

import json

import pytest

from invocations import Cli, assert_refused


def test_firenets_as_a_table_and_as_json(cli: Cli) -> None:
    args = ("explore", "firenet", "--squeeze-ratio", "0.125,0.5", "--input-size", "64")
    found = json.loads(cli(*args, "--json").out)
    assert found["input_size"] == [64, 64]
    assert [network["params"] for network in found["networks"]] == [1_248_424, 3_404_392]
    assert found["networks"][1]["model"] == "zoo:firenet:squeeze_ratio=0.5"
    text = cli(*args).out
    assert "1,248,424" in text
    assert "SqueezeNet 1.0" in text
    assert "zoo:firenet:squeeze_ratio=0.5" in text


def test_changes_that_were_asked_for_are_the_rows(cli: Cli) -> None:
    done = cli(
        "explore", "changes", "net.py:net", "--input-size", "16",
        "--filters", "0=4", "--categories", "2", "--remove", "2", "--input-resolution", "0.05",
        "--json",
    )  # fmt: skip
    assert_refused(done)
    assert "0.05x larger input data resolution' makes '3' impossible" in done.err
    words = ("explore", "changes", "net.py:net", "--input-size", "16", "--filters", "0=4")
    rows = json.loads(cli(*words, "--kernel", "3=4", "--stride", "0=2", "--json").out)["changes"]
    assert [row["modification"] for row in rows] == [
        *("initial network", "4x more filters in 0", "4x larger filter resolution in 3"),
        "stride 2 of 0",
    ]
    assert rows[0]["params_ratio"] == 1
    assert rows[1]["params"] == (27 + 1) * 24 + (9 * 24 + 1) * 8 + (25 * 8 + 1) * 4
    assert [row["type"] for row in rows] == ["none", "local", "local", "global"]


def test_without_changes_those_of_the_slides(cli: Cli) -> None:
    text = cli("explore", "changes", "zoo:tf_mnist").out
    assert "4x more categories to classify" in text
    assert "Δ computation" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--filters", "conv1"), "such as conv1=4"),
        (("--filters", "conv1=-1"), "such as conv1=4"),
        (("--kernel", "=2"), "such as conv1=4"),
        (("--stride", "conv1=1.5"), "expected a whole number"),
        (("--categories", "0"), "above 0"),
        (("--remove", "conv1"), "expected one of"),
    ],
)
def test_wrong_changes_are_refused(args: tuple[str, ...], message: str, cli: Cli) -> None:
    done = cli("explore", "changes", "zoo:tf_mnist", *args)
    assert_refused(done)
    assert message in done.err


def test_scaling_as_a_table_and_as_json(cli: Cli) -> None:
    words = ("explore", "scaling", "zoo:tf_mnist", "--image-ms", "2", "--workers", "1,16")
    found = json.loads(cli(*words, "--latency", "0", "--json").out)
    assert found["gradient_bytes"] == 4 * 3_274_634
    server, tree, _ = (row["speedup"] for row in found["predictions"][3:])
    step_s, transfer_s = 1024 * 0.002, 4 * 3_274_634 / 1.25e9
    assert server == pytest.approx(step_s / (step_s / 16 + 30 * transfer_s))
    assert tree == pytest.approx(step_s / (step_s / 16 + 8 * transfer_s))
    assert found["measured"] == []
    assert "reduction tree" in cli(*words).out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--workers", "0"), "whole numbers from 1"),
        (("--workers", "two"), "whole numbers from 1"),
        (("--workers", "65", "--measure"), "from 1 to 64"),
        (("--bandwidth", "0"), "above 0"),
        (("--image-ms", "-1"), "above 0"),
    ],
)
def test_wrong_clusters_are_refused(args: tuple[str, ...], message: str, cli: Cli) -> None:
    done = cli("explore", "scaling", "zoo:tf_mnist", *args)
    assert_refused(done)
    assert message in done.err


@pytest.mark.slow
def test_local_ranks_are_measured(cli: Cli) -> None:
    found = json.loads(
        cli(
            "explore", "scaling", "zoo:tf_mnist", "--measure", "--workers", "2", "--batch", "8",
            "--steps", "1", "--json",
        ).out
    )  # fmt: skip
    exchanges = [row["exchange"] for row in found["measured"]]
    assert exchanges == ["parameter server", "reduction tree", "DistributedDataParallel"]
    assert all(row["step_s"] > 0 and row["predicted_step_s"] > 0 for row in found["measured"])
    assert all(0 < row["cluster"]["cores"] <= 2 for row in found["measured"])
    assert_refused(cli("explore", "scaling", "zoo:tf_mnist", "--measure", "--workers", "1"))
