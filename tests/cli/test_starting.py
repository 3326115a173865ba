"""What can be said without a network is said before torch is imported, which takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from distillnet.cli.commands.benching import BenchRuntime
from distillnet.cli.commands.export_options import Format
from distillnet.cli.options import Runtime
from distillnet.deploy import FORMATS, RUNTIMES
from distillnet.job.options import SCORE_NAMES
from distillnet.search import SCORES
from invocations import OPTIONS

HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxruntime", "safetensors", "matplotlib"}
IMAGE = {"numpy", "PIL"}
COMMANDS = (
    *("demo", "distill", "evaluate", "export", "bench", "inspect", "collect", "train", "doctor"),
    *("explore", "explore firenet", "explore changes", "explore scaling"),
    *("reproduce", "reproduce baselines"),
    *("pack", "unpack", "reproduce table2", "reproduce table3", "reproduce table4"),
    *("reproduce table1", "reproduce readings", "reproduce composition"),
    *("unknown", "mission"),
    *("merge", "plan", "retarget"),
    *("report", "studio"),
)
_REPORT = """
import sys
from distillnet.cli import main
try:
    main()
    status = 0
except SystemExit as leaving:
    status = leaving.code or 0
print(status, *{name.partition(".")[0] for name in sys.modules})
"""


def _start(home: Path, *args: str) -> tuple[int, set[str], str]:
    """The exit status of a command in a process of its own, what it imported, what it said."""
    done = subprocess.run(
        [sys.executable, "-c", _REPORT, *args], cwd=home, capture_output=True, text=True
    )
    status, *imported = done.stdout.splitlines()[-1].split()
    return int(status), set(imported), done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("--version",),
        ("doctor",),
        *((*command.split(), "--help") for command in COMMANDS),
    ],
    ids=" ".join,
)
def test_help_imports_next_to_nothing(args: tuple[str, ...], home: Path) -> None:
    status, imported, err = _start(home, *args)
    assert (status, err) == (0, "")
    assert not imported & (HEAVY | IMAGE)


def test_the_package_imports_what_is_asked_for() -> None:
    steps = """
import sys
def heavy():
    return sorted({"torch", "PIL"} & set(sys.modules))
import distillnet as dn
print(heavy(), dn.__all__ == sorted(dn.__all__) and set(dn.__all__) <= set(dir(dn)))
dn.parse_mission("tench, church", dn.imagenet_table()), dn.Budget(), dn.InputError
print(heavy())
dn.open_images
print(heavy())
print(all(hasattr(dn, name) for name in dn.__all__), heavy())
"""
    done = subprocess.run([sys.executable, "-c", steps], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[] True", "[]", "['PIL']", "True ['PIL', 'torch']"]


SQUEEZE = ("torchvision:squeezenet1_0", "--data", "photos", "--out", "new")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("distil",), "'distill'"),
        (("distill", *SQUEEZE, "--max-los", "2"), "--max-loss"),
        (("distill", *SQUEEZE, "--max-loss", "-2"), "--max-loss"),
        (("distill", *SQUEEZE, "--method", "paper", "--tune"), "--tune"),
        (("distill", *SQUEEZE, "--score", "surgeon", "--method", "paper"), "surgeon"),
        (("distill", *SQUEEZE, "--classes", "football,tench,unicorn"), "2 of 3 names"),
        (("distill", *SQUEEZE, "--classes", "tench,church"), "'church'"),
        (("distill", *SQUEEZE, "--classes", "@absent.txt"), "absent.txt"),
        (("distill", *SQUEEZE, "--class-names", "names.tsv"), "names 4 classes, but"),
        (("distill", *SQUEEZE, "--weights", "absent.pt"), "absent.pt does not exist"),
        (("distill", *SQUEEZE, "--val", "absent"), "--val: absent does not exist"),
        (("distill", *SQUEEZE, "--out", "photos/train/run"), "inside the folder of images photos"),
        (("distill", *SQUEEZE, "--out", "notes"), "notes holds other files"),
        (("distill", *SQUEEZE, "--mean", "grey"), "--mean 'grey'"),
        (("distill", "torchvision:squeezenet", *SQUEEZE[1:]), "squeezenet1_0"),
        (("distill", "timm:resnet10", *SQUEEZE[1:]), "resnet10t"),
        (("distill", "absent.py:net", *SQUEEZE[1:]), "no file absent.py"),
        (("distill", "absent.pt2", *SQUEEZE[1:]), "no file absent.pt2"),
        (("distill", "--from", "void", "--out", "new"), "void is not a run folder"),
        (("collect", *SQUEEZE, "--classes", "zebras,unicorn"), "'unicorn'"),
        (("inspect", "zoo:mnist"), "tf_mnist"),
        (("train", "zoo:alexnet", "--data", "photos", "--out", "w"), "zoo:tf_mnist"),
        (("evaluate", "absent", "--data", "photos"), "absent is not a run folder"),
        (("evaluate", "net.py", "--data", "photos"), "(a file)"),
        (("export", "void"), "no mission.json"),
        (("export", "void", "--format", "c"), "void is not a run folder"),
        (("bench", "absent"), "no such folder"),
        (("explore", "firenet", "--base", "many"), "base=many"),
        (("explore", "changes", "zoo:nun"), "nin"),
        (("explore", "changes", "zoo:firenet:base=0"), "base=0"),
        (("report", "absent"), "no such folder"),
        (("report", "net.py"), "(a file)"),
        (("studio", "void"), "void is not a run folder"),
        (("demo", "--out", "notes"), "notes holds other files"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_imported(
    args: tuple[str, ...], message: str, home: Path
) -> None:
    status, imported, err = _start(home, *args)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not imported & HEAVY
    assert not (home / "new").exists()


def test_a_table_of_class_names_tells_classes_before_the_network(home: Path) -> None:
    """Where only the network knows its outputs, the user's own file is believed until then."""
    own = ("net.py:net", *OPTIONS, "--class-names", "names.tsv", "--data", "photos", "--out", "new")
    status, imported, err = _start(home, "distill", *own, "--classes", "jay,wren")
    assert (status, "'wren'" in err) == (2, True)
    assert not imported & HEAVY


def test_choices_of_options_are_those_of_the_library() -> None:
    assert set(SCORE_NAMES) == set(SCORES)
    assert [entry.value for entry in BenchRuntime] == list(RUNTIMES)
    assert [entry.value for entry in Format] == [*FORMATS, "c"]
    assert {entry.value for entry in Runtime} <= set(RUNTIMES)
