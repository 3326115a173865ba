"""When a result is not to be trusted, it says so."""

from types import SimpleNamespace

import pytest

from distillnet.classes import Mission
from distillnet.evaluate import Evaluation
from distillnet.job.distillation import Options
from distillnet.job.provenance import Provenance
from distillnet.job.results import warnings_of
from distillnet.search import Budget

NAMES = ("cat", "dog", "owl", "bat")


def _provenance(search: bytes, val: bytes) -> Provenance:
    return Provenance(frozenset([b"s"]), frozenset([search]), frozenset([val, b"c"]))


def _said(
    accuracy: float = 0.9,
    n: int = 50,
    classes: int = 4,
    loss_of_owl: float = 0.0,
    target_macs: float | None = None,
    **others: object,
) -> tuple[str, ...]:
    """What is said of a result that gives no cause, but for what is told."""
    names = NAMES[:classes]
    baseline = Evaluation(
        accuracy, None, dict.fromkeys(names, accuracy), (), dict.fromkeys(names, n)
    )
    losses = {"owl": loss_of_owl}
    after = {name: share - losses.get(name, 0.0) for name, share in baseline.per_class.items()}
    done = {
        "options": Options(budget=Budget(1.0, target_macs)),
        "mission": Mission(tuple(range(classes)), names),
        "baseline": baseline,
        "distilled": Evaluation(accuracy, None, after, ()),
        "worst_class_loss_pp": 100 * loss_of_owl,
        "unreadable": (),
        "n_images": {"val": n},
        "images": SimpleNamespace(left_out={}),
        "provenance": _provenance(b"a", b"b"),
        "found": SimpleNamespace(seen=False),
    }
    return warnings_of(SimpleNamespace(**done | others))  # type: ignore[arg-type]


def test_nothing_is_said_where_there_is_no_cause() -> None:
    assert _said() == ()


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ({"accuracy": 0.35}, ("35 %", "hardly more than by chance", "--mean")),
        ({"accuracy": 0.55, "classes": 2}, ("55 %", "chance")),
        ({"loss_of_owl": 0.05}, ("owl loses 5.0 points", "more than the 3")),
        ({"unreadable": ("a.png: empty",)}, ("1 image could not be read",)),
        ({"unreadable": ("a", "b")}, ("2 images could not be read",)),
        (
            {"images": SimpleNamespace(left_out={".heic": 12, ".svg": 1})},
            ("12 .heic files and 1 .svg file", "JPEG"),
        ),
        ({"provenance": _provenance(b"a", b"a")}, ("1 of the images", "copies", "flatter")),
        ({"n": 8}, ("8 of the class cat", "20 or more", "12 points")),
        ({"found": SimpleNamespace(seen=True)}, ("--unseen",)),
        ({"n_images": {"val": 0}}, ("No image was read", "--data")),
    ],
)
def test_a_cause_is_named(cause: dict[str, object], words: tuple[str, ...]) -> None:
    (said,) = _said(**cause)  # type: ignore[arg-type]
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    "no_cause",
    [
        {"accuracy": 0.42},
        {"accuracy": 0.7, "classes": 2},  # not much, and more than by chance
        {"loss_of_owl": 0.029},
        {"loss_of_owl": 0.3, "target_macs": 2.0},  # was not asked for
        {"n": 20},
    ],
)
def test_what_is_no_cause(no_cause: dict[str, float]) -> None:
    assert _said(**no_cause) == ()  # type: ignore[arg-type]


def test_the_class_of_which_there_are_fewest_is_named() -> None:
    few = Evaluation(
        0.9, None, dict.fromkeys(NAMES, 0.9), (), {**dict.fromkeys(NAMES, 90), "owl": 5}
    )
    (said,) = _said(baseline=few)
    assert "5 of the class owl" in said
