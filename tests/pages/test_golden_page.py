"""A page as it was looked at and found good; DISTILLNET_UPDATE_GOLDEN=1 writes it anew.

Charts and pictures, which other versions of libraries draw a little differently, are left out.
"""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from distillnet.classes import ClassTable, Mission
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.runs import Run
from distillnet.pages.report import report_page
from distillnet.pages.subject import Refusals, Subject
from distillnet.search import Verdict

GOLDEN = Path(__file__).parent / "golden" / "report.html"
NAMES = ("<script>alert(1)</script>", "a & b", "$c$")


def _network(accuracy: float, scale: int) -> dict[str, Any]:
    return {
        "input_size": [32, 32],
        "params": 40_000 // scale,
        "macs": 8_000_000 // scale,
        "macs_with_partial": 6_000_000 // scale,
        "accuracy": accuracy,
        "accuracy_open": accuracy - 0.1,
        "per_class": dict(zip(NAMES, (accuracy, accuracy - 0.05, accuracy + 0.05), strict=True)),
    }


def _result() -> dict[str, Any]:
    verdict = Verdict(0.5, 0.6, (0.0, 1.0, 0.5), 0.01, estimate_pp=0.6, estimate_uncertain_pp=0.3,
                      n_images=300)  # fmt: skip
    return {
        "model": "net.py:<b>Net</b>",
        "method": "paper",
        "classes": [{"index": i, "name": name} for i, name in enumerate(NAMES)],
        "n_classes": 10,
        "budget": {"max_loss_pp": 1.0, "max_class_loss_pp": 3.0, "confidence": 0.7,
                   "target_macs": None, "target_params": None},
        "baseline": _network(0.9, 1),
        "distilled": _network(0.89, 2),
        "mac_ratio": 2.0,
        "inception_mac_ratio": None,
        "param_ratio": 2.0,
        "loss_pp": 1.0,
        "worst_class_loss_pp": 1.0,
        "loss_ci95_pp": [-0.5, 2.5],
        "expected_loss_pp": 0.6,
        "expected_ci95_pp": [0.0, 1.2],
        "stopped_by": "the best smaller network: a loss of 2.0 +- 0.5 points is expected",
        "tuned": False,
        "warnings": ["The figures are of few images & <i>that</i> is said."],
        "n_images": {"statistics": 100, "search": 300, "val": 200, "unreadable": 0},
        "search": {field.name: getattr(verdict, field.name) for field in fields(Verdict)},
        "layers": [
            {"site": "<conv>:relu", "threshold": 0.25, "channels": 2, "channels_removed": 1,
             "neurons": 8, "neurons_kept": 3, "compression_ratio": 8 / 3, "tau": 0.5,
             "tau_prime": 0.75}
        ],
    }  # fmt: skip


def _subject(folder: Path) -> Subject:
    (folder / "model.pt2").write_bytes(bytes(90_000))
    keep = torch.tensor([[[True, True], [True, False]], [[False, False], [False, False]]])
    table = ClassTable(NAMES, ((),) * 3)
    run = Run(folder, _result(), Mission((0, 1, 2), NAMES), table,
              Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3), "0" * 64, 0, {}, {})  # fmt: skip
    lacks = {"atlas": "no statistics", "original": "no original", "images": "no images"}
    by_class = {i: {"<conv>:relu": keep} for i in range(3)}
    figures = {"n": 300, "n_unknown": 200, "auroc": 0.96, "false_reject": 0.05,
               "false_accept": 0.1, "false_accepts_at_5_percent_false_rejects": 0.1}  # fmt: skip
    refusals = Refusals(figures, ((0.0, 0.6), (0.01, 0.3), (0.05, 0.1), (0.5, 0.0)))
    return Subject(
        run, (), {"<conv>:relu": keep}, by_class, None, None, None, None, lacks, refusals
    )


def _without_drawings(page: str) -> str:
    page = re.sub(r"<svg .*?</svg>", "<svg/>", page, flags=re.S)
    page = re.sub(r"data:image/[^\"]*", "data:", page)
    page = re.sub(r"<style>.*?</style>", "<style/>", page, flags=re.S)
    page = re.sub(r"<script>\"use strict.*?</script>", "<script/>", page, flags=re.S)
    page = re.sub(r"sha256-[A-Za-z0-9+/=]+", "sha256-", page)
    return re.sub(r"distillnet \d[\w.]*", "distillnet VERSION", page)


def test_the_page_is_the_one_that_was_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    folder.mkdir()
    page = _without_drawings(report_page(_subject(folder))[0])
    if os.environ.get("DISTILLNET_UPDATE_GOLDEN"):
        GOLDEN.write_text(page, encoding="utf-8")
    assert page == GOLDEN.read_text(encoding="utf-8")
    assert "alert(1)" not in page.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")
