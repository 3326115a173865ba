"""What a studio on a run has open: the networks of its front, the original where it is at hand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from distillnet.deploy.networks import distilled_network
from distillnet.errors import InputError
from distillnet.files.manifest import check_sealed, read_manifest
from distillnet.job.evaluating import network_scores
from distillnet.job.front import fitting_point, front_folders, take_from_front
from distillnet.job.results import finite_loss_pp
from distillnet.job.runs import Run
from distillnet.missions.unknown import RULE, read_rule
from distillnet.pages.studio.asking import Network, Score
from distillnet.pages.studio.shelf import Shelf
from distillnet.pages.subject import Original, Subject, read_bitmaps
from distillnet.search import Budget

__all__ = ["Candidate", "Workroom"]

_NETWORK = "model.pt2"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A network of the front: its figures, and the folder that its files lie in."""

    folder: Path
    result: dict[str, Any]

    @property
    def figures(self) -> dict[str, Any]:
        """What the page shows of it."""
        after, search = self.result["distilled"], self.result["search"]
        low, high = self.result["loss_ci95_pp"]
        return {
            "mac_ratio": self.result["mac_ratio"],
            "param_ratio": self.result["param_ratio"],
            "work_ratio": self.result.get("work_ratio"),
            "macs": after["macs"],
            "params": after["params"],
            "input_size": after["input_size"],
            "bytes": (self.folder / _NETWORK).stat().st_size,
            "accuracy": after["accuracy"],
            "accuracy_before": self.result["baseline"]["accuracy"],
            "loss_pp": self.result["loss_pp"],
            "low_pp": low,
            "high_pp": high,
            "worst_class_loss_pp": self.result["worst_class_loss_pp"],
            "expected_pp": search["estimate_pp"],
            "uncertain_pp": search["estimate_uncertain_pp"],
        }


class Workroom:
    """A run to try budgets on, and a folder to write others to.

    Args:
        subject: the run and all that is at hand of it.
        out: where runs are written, each in a folder of its own.
    """

    def __init__(self, subject: Subject, out: Path) -> None:
        self.subject, self.shelf = subject, Shelf(out)
        self.run: Run = subject.run
        points = front_folders(self.run)
        self.has_front = bool(points)
        own = [(self.run.directory, self.run.result)]
        self.candidates = tuple(Candidate(folder, result) for folder, result in points or own)
        self.why_no_rule = ""
        try:
            read_rule(self.run.directory)
        except InputError as error:
            self.why_no_rule = str(error) if (self.run.directory / RULE).exists() else "none"
        self._networks: dict[int, Network] = {}
        self._lock = Lock()

    @property
    def original(self) -> Original | None:
        """The original with its own weights, where they are at hand."""
        original = self.subject.original
        return original if original is not None and original.own_weights else None

    @cached_property
    def confidence(self) -> float:
        """How sure the search had to be."""
        return float(self.run.result["budget"]["confidence"])

    def choose(self, max_loss_pp: float) -> int:
        """Which candidate a budget gives; InputError where it gives none."""
        if not self.has_front:
            return 0
        budget = self._budget(max_loss_pp)
        points = [(one.folder, one.result) for one in self.candidates]
        folder, _ = fitting_point(self.run, points, budget)
        return next(i for i, one in enumerate(self.candidates) if one.folder == folder)

    def _budget(self, max_loss_pp: float) -> Budget:
        return Budget(max_loss_pp=max_loss_pp, confidence=self.confidence)

    def network(self, number: int) -> Network:
        """A candidate, which is read once."""
        if not 0 <= number < len(self.candidates):
            raise InputError(
                f"found the network {number}; expected 0 to {len(self.candidates) - 1}"
            )
        with self._lock:
            if number not in self._networks:
                self._networks[number] = self._read(self.candidates[number])
            return self._networks[number]

    def _read(self, one: Candidate) -> Network:
        height, width = one.result["distilled"]["input_size"]
        how = self.run.preprocessing.with_input_size((height, width))
        as_run = replace(self.run, directory=one.folder, result=one.result, preprocessing=how)
        within = (one.folder / _NETWORK).relative_to(self.run.directory).as_posix()
        sealed = read_manifest(self.run.directory)
        check_sealed(self.run.directory, sealed, [within])
        rule: Score | None = None
        if not self.why_no_rule and self._is_own(one):
            rule = distilled_network(self.run, unknown=True).module
        keep = read_bitmaps(self.run, one.folder)[0]
        return Network(self.run.mission, how, network_scores(as_run), keep, rule)

    def _is_own(self, one: Candidate) -> bool:
        """Whether a candidate is the run's own network, which a rule was fitted to."""
        own, its = ((folder / _NETWORK).read_bytes() for folder in (self.run.directory, one.folder))
        return own == its

    def make(self, max_loss_pp: float, name: str, on_progress: Progress) -> dict[str, Any]:
        """Write the run that a budget gives; what there is of it."""
        with self.shelf.new(name, [self.run.directory]) as folder:
            on_progress("write", 0, 1)
            result = take_from_front(self.run, self._budget(max_loss_pp), folder)
            on_progress("write", 1, 1)
        return {"name": name, "mac_ratio": result["mac_ratio"], "files": self.shelf.files(name)}

    @property
    def budget_pp(self) -> float | None:
        """What the run itself was allowed to lose."""
        return finite_loss_pp(self.run.result)
