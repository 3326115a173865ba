"""What a studio on an atlas has open: the network, missions that were tried, images if at hand.

A mission's costs are counted from a plan alone, which is quick. What it would lose is told by
making its network, as ``retarget`` does, and following the atlas's samples through both networks;
where there are images that the atlas was not made of, it is measured on them as well.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import torch

from distillnet.classes import Mission, imagenet_table
from distillnet.cut.plan import Plan
from distillnet.errors import ImageError, InputError
from distillnet.graph import Graph, fast_layout, run
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from distillnet.images import ImageSet, open_images
from distillnet.job.options import Options
from distillnet.job.runs import write_run
from distillnet.missions.designing import Design
from distillnet.missions.files import MissionAtlas
from distillnet.missions.quoting import Counted, counted
from distillnet.missions.retargeting import Made, found_for, retarget
from distillnet.models import Model
from distillnet.pages.studio.asking import Network
from distillnet.pages.studio.measuring import Gauge, accuracies
from distillnet.pages.studio.shelf import Shelf
from distillnet.pages.subject import Original
from distillnet.refit.compensation import with_biases
from distillnet.search import Budget

__all__ = ["Draftroom", "Wish"]

_DESIGNS, _DRAFTS = 2, 8  # that are kept open
_IMAGENET = 1000  # outputs, which are ImageNet's unless an atlas has names of its own

Progress = Callable[[str, int, int], None]
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Wish:
    """A mission as it is asked for: classes by index, and a ratio of MACs or else a loss."""

    classes: tuple[int, ...]
    target_macs: float | None = None
    max_loss_pp: float | None = None

    @property
    def budget(self) -> Budget:
        """As a search takes it."""
        if self.target_macs is not None:
            return Budget(target_macs=self.target_macs)
        return Budget() if self.max_loss_pp is None else Budget(max_loss_pp=self.max_loss_pp)


@dataclass(frozen=True)
class _Draft:
    """A network that was made for a wish, compact, and what is known of it as the page shows it."""

    made: Made
    network: Network
    figures: dict[str, Any]


class Draftroom:
    """An atlas to try missions from, and a folder to write them to.

    Args:
        model: the network that the atlas is of.
        out: where runs are written, each in a folder of its own.
        data: a folder of images to measure on; by default that which the atlas was collected
            from, if it is still there.
        weights: where the network's weights lie, for the runs; by default as the atlas has it.

    Raises:
        InputError: the atlas is of another network.
        ImageError: ``data`` holds no images of its classes.
    """

    def __init__(
        self,
        atlas: MissionAtlas,
        model: Model,
        out: Path,
        options: Options,
        *,
        data: Path | None = None,
        weights: Path | None = None,
    ) -> None:
        self.atlas, self.model, self.options, self.shelf = atlas, model, options, Shelf(out)
        self.graph = capture_model(model)
        self.channels = analyse(self.graph)
        atlas.check_network(self.graph, model.weights_sha256, model.preprocessing)
        self._data, images = _images_of(atlas, data)
        self._weights = weights or atlas.sources.get("weights")
        self._gauge = Gauge(atlas, model, self.graph, images, options)
        self._designs: OrderedDict[tuple[int, ...], Design] = OrderedDict()
        self._drafts: OrderedDict[Wish, _Draft] = OrderedDict()
        self._lock = Lock()

    @cached_property
    def original(self) -> Original:
        """The network, as images are shown to it."""
        return Original(self.model, self.graph, self.channels, self.graph, own_weights=True)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of all classes that the network knows, as far as they are known here."""
        own = self.atlas.classes.names
        if len(own) != _IMAGENET or self.atlas.sources.get("class_names"):
            return own
        usual = imagenet_table().names
        known = self.atlas.samples
        return tuple(own[i] if i in known else usual[i] for i in range(len(own)))

    def uncut(self) -> Counted:
        """What the original costs."""
        return counted(self.graph, self.channels, Plan({}), self.options)

    def mission(self, wish: Wish) -> Mission:
        """The classes of a wish; InputError for fewer than two, or one that the atlas lacks."""
        if len(set(wish.classes)) != len(wish.classes) or len(wish.classes) < 2:
            raise InputError(f"found {len(wish.classes)} classes; choose two or more, each once")
        if missing := [i for i in wish.classes if i not in self.atlas.samples]:
            raise InputError(f"found the class {missing[0]}, which the atlas has no images of")
        return Mission(wish.classes, tuple(self.atlas.classes.names[i] for i in wish.classes))

    def count(self, wish: Wish) -> dict[str, Any]:
        """What a wish costs, if that can be told yet, and what else is known of it."""
        draft = self._draft(wish)
        if draft is not None:
            return draft.figures
        if wish.target_macs is None:  # which network that is remains to be found
            self.mission(wish)
            return {"costs": None, "expected": None, "measured": None}
        plan = self._design(wish).plan(wish.target_macs)
        return {"costs": self._costs(wish, plan), "expected": None, "measured": None}

    def expect(self, wish: Wish, on_progress: Progress) -> dict[str, Any]:
        """Make the network of a wish, unless it was; all that can be known of it."""
        draft = self._draft(wish)
        if draft is not None:
            return draft.figures
        mission, options = self.mission(wish), replace(self.options, budget=wish.budget)
        design = self._design(wish)
        on_progress("fit", 0, 1)
        made = found_for(
            self.atlas, self.graph, self.channels, mission, options, on_progress, design
        )
        found, (before, after) = made
        expected = found.expected
        figures = {
            "costs": self._costs(wish, found.plan),
            "expected": {
                **accuracies(before, after),
                "loss_pp": expected.loss_pp,
                "uncertain_pp": expected.uncertain_pp,
            },
            "measured": self._gauge.measured(found.compact(all_scores=True), mission, on_progress),
        }
        network = self._network(found.compact(), mission, found.plan)
        with self._lock:
            _remember(self._drafts, wish, _Draft(made, network, figures), _DRAFTS)
        return figures

    def network(self, wish: Wish) -> Network:
        """The network of a wish, made before."""
        draft = self._draft(wish)
        if draft is None:
            raise InputError("this mission's network is not made yet; wait until it is")
        return draft.network

    def make(self, wish: Wish, name: str, on_progress: Progress) -> dict[str, Any]:
        """Write the run of a wish; what there is of it."""
        mission = self.mission(wish)
        with self.shelf.new(name, [self.atlas.directory]) as folder:
            self.expect(wish, on_progress)
            draft, images = self._draft(wish), self._gauge.unseen(mission)
            done = retarget(
                self.atlas,
                self.model,
                mission,
                replace(self.options, budget=wish.budget),
                images=images,
                made=None if draft is None else draft.made,
                on_progress=on_progress,
            )
            sources = {"atlas": self.atlas.directory, "weights": self._weights, "data": None}
            write_run(done, folder, sources | {"val": self._data if images else None})
            on_progress("write", 1, 1)
        return {"name": name, "mac_ratio": done.mac_ratio, "files": self.shelf.files(name)}

    def _costs(self, wish: Wish, plan: Plan) -> dict[str, Any]:
        now = counted(with_biases(self.graph), self.channels, plan, self.options)
        before = self.uncut()
        return {
            **asdict(now),
            "mac_ratio": before.macs / now.macs,
            "param_ratio": before.params / now.params,
            "reached": wish.target_macs is None or before.macs / now.macs >= wish.target_macs,
        }

    def _design(self, wish: Wish) -> Design:
        mission = self.mission(wish)
        with self._lock:
            if wish.classes not in self._designs:
                made = Design.of(self.graph, self.channels, self.atlas, mission, self.options)
                _remember(self._designs, wish.classes, made, _DESIGNS)
            self._designs.move_to_end(wish.classes)
            return self._designs[wish.classes]

    def _draft(self, wish: Wish) -> _Draft | None:
        with self._lock:
            if wish in self._drafts:
                self._drafts.move_to_end(wish)
            return self._drafts.get(wish)

    def _network(self, graph: Graph, mission: Mission, plan: Plan) -> Network:
        def scores(x_nchw: torch.Tensor) -> torch.Tensor:
            return run(graph, {graph.input.name: fast_layout(x_nchw)})[graph.output]

        return Network(mission, self.model.preprocessing, scores, plan.keep)


def _images_of(atlas: MissionAtlas, data: Path | None) -> tuple[Path | None, ImageSet]:
    """A folder and the images of the atlas's classes in it, of val/ where there is one."""
    collected = atlas.sources.get("data")
    source = data or (Path(collected) if collected else None)
    if source is None:
        return None, ImageSet(())
    try:
        folders = open_images(source, atlas.classes)
    except ImageError:
        if data is not None:
            raise
        return None, ImageSet(())  # they were moved; nobody asked for them
    return source, folders.val or folders.train


def _remember(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    kept[key] = value
    while len(kept) > most:
        kept.popitem(last=False)
