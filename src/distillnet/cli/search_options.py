"""The options of ``distill`` that say what may be lost and how to search."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.groups import BUDGET, IMAGES, SEARCH, SELDOM
from distillnet.cli.options import ComputeOptions, Method, NetworkOptions, ScoreName, SeedOpt
from distillnet.cut.times import TimeTable, known_times, read_times
from distillnet.errors import InputError
from distillnet.job.options import Options
from distillnet.search.budget import Budget

__all__ = [
    "Aim",
    "BudgetOptions",
    "Partial",
    "SearchOptions",
    "TimingsOpt",
    "job_options",
    "times_of",
]


class Aim(StrEnum):
    """What a search makes small."""

    time = "time"
    macs = "macs"


class Partial(StrEnum):
    """What partial removal takes at once; ``job.options.PARTIAL``."""

    neurons = "neurons"
    blocks = "blocks"


_BEST = Method("best")
_NEURONS = Partial("neurons")

TimingsOpt = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="How long layers take on the target device, as measured there with the kit that "
        "`distillnet timings --kit` writes.",
        show_default="this machine's if `distillnet timings` has measured it, else a built-in "
        "table",
        rich_help_panel=SEARCH,
    ),
]


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """What may be lost, or is to be reached."""

    max_loss: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            help="Accuracy among the chosen classes that may be lost, in percentage points.",
            rich_help_panel=BUDGET,
        ),
    ] = 1.0
    max_class_loss: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Accuracy that any single class may lose, in percentage points.",
            show_default="3 times --max-loss",
            rich_help_panel=BUDGET,
        ),
    ] = None
    target_macs: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Divide the number of MACs by this, whatever accuracy that costs.",
            show_default="none",
            rich_help_panel=BUDGET,
        ),
    ] = None
    target_params: Annotated[
        float | None,
        typer.Option(
            metavar="RATIO",
            help="Divide the number of parameters by this, whatever accuracy that costs.",
            show_default="none",
            rich_help_panel=BUDGET,
        ),
    ] = None
    confidence: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="How sure the search must be that the loss stays within the budget on new images: "
            "0.5 to just under 1.",
            rich_help_panel=SELDOM,
        ),
    ] = 0.7

    def budget(self) -> Budget:
        """As the search takes it."""
        return Budget(
            self.max_loss,
            self.target_macs,
            self.target_params,
            self.max_class_loss,
            self.confidence,
        )


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search, and for what."""

    method: Annotated[
        Method,
        typer.Option(
            help="Search method: best is distillnet's own, paper that of Distill-Net.",
            rich_help_panel=SEARCH,
        ),
    ] = _BEST
    optimise: Annotated[
        Aim,
        typer.Option(
            help="What to minimise: the time that the network takes, or its multiply-adds "
            "(--method best).",
            rich_help_panel=SEARCH,
        ),
    ] = Aim.time
    timings: TimingsOpt = None
    keep_input_size: Annotated[
        bool,
        typer.Option(
            "--keep-input-size",
            help="Never shrink the input image; implied by --input-size and by --method paper.",
            show_default="off",
            rich_help_panel=SEARCH,
        ),
    ] = False
    labels: Annotated[
        bool,
        typer.Option(
            "--labels/--no-labels",
            help="Fit the last layer to your folders' names, or leave all layers answering as the "
            "original does (--method best).",
            show_default="labels",
            rich_help_panel=SEARCH,
        ),
    ] = True
    views: Annotated[
        bool,
        typer.Option(
            "--views/--no-views",
            help="Where images are few, use several views of each: mirrored, nearer or turned a "
            "little, unless the network takes them for something else (--method best).",
            show_default="views",
            rich_help_panel=SEARCH,
        ),
    ] = True
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Experimental: train the smaller network for a few minutes to answer as the "
            "original does. Needs no labels, and lets the search remove more (--method best).",
            show_default="off",
            rich_help_panel=SEARCH,
        ),
    ] = False
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Whether the network was trained on these images. Networks are overconfident on "
            "those, and the search can allow for that (--method best).",
            show_default="guessed from how confident the network is",
            rich_help_panel=IMAGES,
        ),
    ] = None
    score: Annotated[
        ScoreName | None,
        typer.Option(
            help="How channels or neurons are ranked; l1 and random are baselines.",
            show_default="surgeon for best, heat for paper",
            rich_help_panel=SELDOM,
        ),
    ] = None
    split: Annotated[
        bool,
        typer.Option(
            "--split/--no-split",
            help="Replace a layer by two thinner ones where that saves more (--method best).",
            show_default="split",
            rich_help_panel=SELDOM,
        ),
    ] = True
    round_to: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Round the channels and the rank of each layer up to a multiple of N; auto takes "
            "the fastest by the timings, or 1 with --optimise macs (--method best).",
            rich_help_panel=SELDOM,
        ),
    ] = "auto"
    param_weight: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="WEIGHT",
            help="How much removing parameters counts beside removing MACs (--method best).",
            rich_help_panel=SELDOM,
        ),
    ] = 0.1
    complete_only: Annotated[
        bool,
        typer.Option(
            "--complete-only",
            help="Remove whole channels only, no single neurons (best always does).",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False
    partial: Annotated[
        Partial,
        typer.Option(
            help="What paper removes from a map besides whole channels: neurons, one by one as the "
            "paper does, from which hardly any runtime gains; or blocks, the same positions in "
            "some 32 channels at once, which the C engine skips.",
            rich_help_panel=SELDOM,
        ),
    ] = _NEURONS
    reading: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How paper finds its thresholds: one price for all layers, of MACs or, with "
            "-params, mainly of parameters; layer by layer from front, from back or by saving, "
            "each taking all that is left or, with -shared, a part; one quantile; one multiple of "
            "each layer's mean activity; one output for all layers. The suffix -open counts errors "
            "among all classes of the network.",
            rich_help_panel=SELDOM,
        ),
    ] = "price"
    seed: SeedOpt = 0


def job_options(
    budget: BudgetOptions, search: SearchOptions, network: NetworkOptions, compute: ComputeOptions
) -> Options:
    """All that changes the result, as the job takes it."""
    return Options(
        budget=budget.budget(),
        method=search.method.value,
        score=search.score.value if search.score else None,
        keep_input_size=search.keep_input_size or network.input_size is not None,
        split=search.split,
        optimise=search.optimise.value,
        times=times_of(search.optimise, search.timings),
        round_to=_multiple(search.round_to),
        param_weight=search.param_weight,
        complete_only=search.complete_only,
        partial=search.partial.value,
        reading=search.reading,
        labels=search.labels,
        views=search.views,
        tune=search.tune,
        seen=search.seen,
        seed=search.seed,
        batch_size=compute.batch_size,
        workers=compute.workers,
        device=compute.device.value,
        max_unreadable_percent=compute.max_unreadable,
    )


def _multiple(text: str) -> int:
    """What --round-to says; 0 leaves it to the table of times."""
    if text == "auto":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"found --round-to {text!r}; expected a number from 1 on, or auto")
    return int(text)


def times_of(aim: Aim, timings: Path | None) -> TimeTable | None:
    """The table of times that is asked for; this machine's where none is."""
    if aim is Aim.macs:
        if timings is not None:
            raise InputError(
                "found --timings beside --optimise macs, which asks for no times; leave one out"
            )
        return None
    return known_times() if timings is None else read_times(timings)
