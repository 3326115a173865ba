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
        "--filters", "0=4", "--categories", "2", "--remove", "2", "--input-resolution", "0.25",
        "--json",
    )  # fmt: skip
    assert_refused(done)
    assert "impossible" in done.err or "0.25x" in done.err  # too small a map for its kernels
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
