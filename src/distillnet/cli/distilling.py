"""The command that does the main job: its options, and one call of ``distillnet.job.distill``."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.atlas import open_atlas
from distillnet.classes import parse_mission
from distillnet.cli.common import print_run
from distillnet.cli.groups import grouped
from distillnet.cli.options import (
    ComputeOptions,
    ImageOptions,
    JsonOpt,
    Method,
    NetworkOptions,
    OverwriteOpt,
    ScoreName,
    SeedOpt,
)
from distillnet.cli.output import print_json, print_line, print_result, progress
from distillnet.cli.resuming import ResumeOptions, saying_what_is_kept
from distillnet.deploy.timings import best_multiple, element_cost
from distillnet.errors import InputError
from distillnet.files import new_folder
from distillnet.files.results import RUN
from distillnet.job.distill import distill
from distillnet.job.distillation import Options
from distillnet.job.front import take_from_front
from distillnet.job.resuming import search_store
from distillnet.job.runs import open_run, write_run
from distillnet.search import Budget

__all__ = ["Aim", "distill_command"]


class Aim(StrEnum):
    """What a search makes small."""

    macs = "macs"
    latency = "latency"


_BEST = Method("best")


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """What may be lost, or is to be reached."""

    max_loss: Annotated[
        float, typer.Option(help="Closed-set accuracy that may be lost, in percentage points.")
    ] = 1.0
    max_class_loss: Annotated[
        float | None,
        typer.Option(
            help="The same for the class that loses most.", show_default="3 times --max-loss"
        ),
    ] = None
    confidence: Annotated[
        float,
        typer.Option(
            help="How sure the search has to be that the loss is respected on unseen images, 0.5 "
            "to less than 1 (best)."
        ),
    ] = 0.7
    target_macs: Annotated[
        float | None,
        typer.Option(
            help="A MAC ratio to reach instead of a loss to respect.", show_default="none"
        ),
    ] = None
    target_params: Annotated[
        float | None,
        typer.Option(help="A parameter ratio to reach instead.", show_default="none"),
    ] = None

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

    method: Annotated[Method, typer.Option(help="How to search.")] = _BEST
    score: Annotated[
        ScoreName | None,
        typer.Option(
            help="What channels or neurons are ranked by; l1 and random are baselines.",
            show_default="surgeon for best, heat for paper",
        ),
    ] = None
    split: Annotated[
        bool,
        typer.Option(
            "--split/--no-split",
            help="Write layers as two thinner ones where that pays (best).",
            show_default="split",
        ),
    ] = True
    round_to: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Round each layer's channels up to a multiple, and choose ranks among its "
            "multiples; auto measures which is fastest here (best).",
        ),
    ] = "1"
    optimise: Annotated[
        Aim,
        typer.Option(
            help="What to make small; latency weighs MACs against writing results, as measured "
            "here (best)."
        ),
    ] = Aim.macs
    param_weight: Annotated[
        float,
        typer.Option(min=0, help="How much all parameters count beside all MACs (best)."),
    ] = 0.1
    complete_only: Annotated[
        bool,
        typer.Option(
            "--complete-only",
            help="Remove whole channels only (best always does).",
            show_default="off",
        ),
    ] = False
    keep_input_size: Annotated[
        bool,
        typer.Option(
            "--keep-input-size",
            help="Never lower the input's side; implied by --input-size (paper never does).",
            show_default="off",
        ),
    ] = False
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Experimental: train the network that is found for a few minutes to answer as "
            "the original does, without labels, and remove more (best).",
            show_default="off",
        ),
    ] = False
    seen: Annotated[
        bool | None,
        typer.Option(
            "--seen/--unseen",
            help="Whether the network was trained on these images, which misleads the search in "
            "ways that it can allow for (best).",
            show_default="found out from how sure the network is of them",
        ),
    ] = None
    seed: SeedOpt = 0


_ModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE (runs the file) or "
        "FILE.pt2; none with --from.",
        show_default="none",
    ),
]
_ClassesOpt = Annotated[
    str | None,
    typer.Option(
        help="The mission: class names or indices with commas between.",
        show_default="none, needed without --from",
    ),
]
_FromOpt = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Take the network for another --max-loss from a run's front, without a search.",
        show_default="none",
    ),
]


@grouped
def distill_command(
    context: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    model: _ModelArg = None,
    classes: _ClassesOpt = None,
    from_run: _FromOpt = None,
    images: ImageOptions,
    budget: BudgetOptions,
    search: SearchOptions,
    network: NetworkOptions,
    compute: ComputeOptions,
    resuming: ResumeOptions,
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Cut a network down to a few classes within an accuracy budget; the main job."""
    if from_run is not None:
        _refuse_beside_from(context)
        _take_from(from_run, budget.budget(), out, as_json, overwrite)
        return
    if model is None or images.data is None or classes is None:
        given = {"MODEL": model, "--data": images.data, "--classes": classes}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise typer.BadParameter(
            f"{missing} missing; expected all of MODEL, --data and --classes, or --from RUN to "
            "take another network from an earlier run"
        )
    options = _options(budget, search, network, compute)
    sources = asdict(images) | {"weights": network.weights, "class_names": network.class_names}
    del sources["max_pixels"]  # no place
    reads = [path for path in sources.values() if path] + [Path(model), Path(model.split(":")[0])]
    with (
        saying_what_is_kept(out, resuming),
        new_folder(out, RUN, reads, overwrite=overwrite) as folder,
        progress() as on_progress,
    ):
        loaded = network.load(model)
        mission = parse_mission(classes, loaded.classes)
        statistics = open_atlas(images.atlas) if images.atlas else None
        split = images.split(loaded.classes, mission, search.seed)
        if statistics is None:
            (folder / "atlas").mkdir()
        done = distill(
            loaded,
            mission,
            split,
            folder / "atlas",
            options,
            atlas=statistics,
            store=search_store(out, loaded, mission, split, options, **asdict(resuming)),
            on_progress=on_progress,
        )
        write_run(done, folder, sources)
    print_run(done, out, as_json)


def _options(
    budget: BudgetOptions, search: SearchOptions, network: NetworkOptions, compute: ComputeOptions
) -> Options:
    """All that changes the result, as the job takes it."""
    return Options(
        budget=budget.budget(),
        method=search.method.value,
        score=search.score.value if search.score else None,
        keep_input_size=search.keep_input_size or network.input_size is not None,
        split=search.split,
        round_to=_multiple(search.round_to),
        element_cost=element_cost() if search.optimise is Aim.latency else 0.0,
        param_weight=search.param_weight,
        complete_only=search.complete_only,
        tune=search.tune,
        seen=search.seen,
        seed=search.seed,
        batch_size=compute.batch_size,
        workers=compute.workers,
        device=compute.device.value,
    )


def _multiple(text: str) -> int:
    """What --round-to says."""
    if text == "auto":
        return best_multiple()
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"found --round-to {text!r}; expected a number from 1 on, or auto")
    return int(text)


_BUDGET = ("max_loss", "max_class_loss", "confidence", "target_macs", "target_params")
_WITH_FROM = ("from_run", "out", "overwrite", "as_json", *_BUDGET)


def _refuse_beside_from(context: typer.Context) -> None:
    """BadParameter where an option was given that --from would silently leave aside."""
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source and source.name == "COMMANDLINE" and parameter.name not in _WITH_FROM:
            given.append("MODEL" if parameter.name == "model" else parameter.opts[0])
    if given:
        raise typer.BadParameter(
            f"{', '.join(given)} beside --from, which takes a network that is there already; "
            "expected no more than --max-loss, --max-class-loss, --target-macs or --target-params"
        )


def _take_from(run: Path, budget: Budget, out: Path, as_json: bool, overwrite: bool) -> None:
    with new_folder(out, RUN, [run], overwrite=overwrite) as folder:
        result = take_from_front(open_run(run), budget, folder)
    if as_json:
        print_json(result)
    else:
        print_result(result)
        print_line(f"Written to {out}")
