"""The command that does the main job: its options, and one call of ``distillnet.job.distill``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from distillnet.atlas import Atlas, open_atlas
from distillnet.classes import parse_mission
from distillnet.cli.common import images_of, load, print_run
from distillnet.cli.options import (
    BatchOpt,
    Device,
    DeviceOpt,
    InputSizeOpt,
    JsonOpt,
    MeanOpt,
    Method,
    NamesOpt,
    ScoreName,
    SeedOpt,
    StdOpt,
    WeightsOpt,
    WorkersOpt,
)
from distillnet.cli.output import print_json, print_line, print_result, progress
from distillnet.deploy.timings import best_multiple, element_cost
from distillnet.errors import InputError
from distillnet.files import new_folder
from distillnet.job.distill import distill
from distillnet.job.distillation import Options
from distillnet.job.runs import RUN_MARKER, open_run, take_from_front, write_run
from distillnet.search import Budget

__all__ = ["Aim", "distill_command"]


class Aim(StrEnum):
    """What a search makes small."""

    macs = "macs"
    latency = "latency"


_OutOpt = Annotated[Path, typer.Option(help="The run folder to write.")]
_AnyModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE (runs the file) or "
        "FILE.pt2; none with --from.",
        show_default="none",
    ),
]
_AnyDataOpt = Annotated[
    Path | None,
    typer.Option(
        help="Images: DIR/<class>/<image>, or train/ and val/ of that form.",
        show_default="none, needed without --from",
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
_ValOpt = Annotated[
    Path | None,
    typer.Option(
        help="Images for the final figures only.",
        show_default="DATA/val beside DATA/train, else a held-out fifth of each class",
    ),
]
_SearchOpt = Annotated[
    Path | None,
    typer.Option(help="Images for the search.", show_default="half of DATA's"),
]
_AtlasOpt = Annotated[
    Path | None,
    typer.Option(help="Statistics that `collect` wrote.", show_default="collect them"),
]
_MaxLossOpt = Annotated[
    float, typer.Option(help="Closed-set accuracy that may be lost, in percentage points.")
]
_MaxClassLossOpt = Annotated[
    float | None,
    typer.Option(help="The same for the class that loses most.", show_default="3 times --max-loss"),
]
_MethodOpt = Annotated[Method, typer.Option(help="How to search.")]
_ScoreOpt = Annotated[
    ScoreName | None,
    typer.Option(
        help="What channels or neurons are ranked by; l1 and random are baselines.",
        show_default="surgeon for best, heat for paper",
    ),
]
_SplitOpt = Annotated[
    bool,
    typer.Option(
        "--split/--no-split",
        help="Write layers as two thinner ones where that pays (best).",
        show_default="split",
    ),
]
_RoundToOpt = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="Round each layer's channels up to a multiple, and choose ranks among its multiples; "
        "auto measures which is fastest here (best).",
    ),
]
_OptimiseOpt = Annotated[
    Aim,
    typer.Option(
        help="What to make small; latency weighs MACs against writing results, as measured here "
        "(best)."
    ),
]
_ParamWeightOpt = Annotated[
    float,
    typer.Option(min=0, help="How much all parameters count beside all MACs (best)."),
]
_CompleteOnlyOpt = Annotated[
    bool,
    typer.Option(
        "--complete-only",
        help="Remove whole channels only (best always does).",
        show_default="off",
    ),
]
_KeepInputSizeOpt = Annotated[
    bool,
    typer.Option(
        "--keep-input-size",
        help="Never lower the input's side; implied by --input-size (paper never does).",
        show_default="off",
    ),
]
_TargetMacsOpt = Annotated[
    float | None,
    typer.Option(help="A MAC ratio to reach instead of a loss to respect.", show_default="none"),
]
_TargetParamsOpt = Annotated[
    float | None,
    typer.Option(help="A parameter ratio to reach instead.", show_default="none"),
]


def distill_command(
    context: typer.Context,
    out: _OutOpt,
    model: _AnyModelArg = None,
    data: _AnyDataOpt = None,
    classes: _ClassesOpt = None,
    from_run: _FromOpt = None,
    weights: WeightsOpt = None,
    val: _ValOpt = None,
    search: _SearchOpt = None,
    atlas: _AtlasOpt = None,
    max_loss: _MaxLossOpt = 1.0,
    max_class_loss: _MaxClassLossOpt = None,
    method: _MethodOpt = Method("best"),
    score: _ScoreOpt = None,
    split: _SplitOpt = True,
    round_to: _RoundToOpt = "1",
    optimise: _OptimiseOpt = Aim.macs,
    param_weight: _ParamWeightOpt = 0.1,
    complete_only: _CompleteOnlyOpt = False,
    keep_input_size: _KeepInputSizeOpt = False,
    target_macs: _TargetMacsOpt = None,
    target_params: _TargetParamsOpt = None,
    input_size: InputSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    class_names: NamesOpt = None,
    seed: SeedOpt = 0,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    device: DeviceOpt = Device.auto,
    as_json: JsonOpt = False,
) -> None:
    """Cut a network down to a few classes within an accuracy budget; the main job."""
    budget = Budget(max_loss, target_macs, target_params, max_class_loss)
    if from_run is not None:
        _refuse_beside_from(context)
        _take_from(from_run, budget, out, as_json)
        return
    if model is None or data is None or classes is None:
        given = {"MODEL": model, "--data": data, "--classes": classes}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise typer.BadParameter(
            f"{missing} missing; expected all of MODEL, --data and --classes, or --from RUN to "
            "take another network from an earlier run"
        )
    options = Options(
        budget=budget,
        method=method.value,
        score=score.value if score else None,
        keep_input_size=keep_input_size or input_size is not None,
        split=split,
        round_to=_multiple(round_to),
        element_cost=element_cost() if optimise is Aim.latency else 0.0,
        param_weight=param_weight,
        complete_only=complete_only,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        device=device.value,
    )
    sources = {"data": data, "val": val, "search": search, "atlas": atlas}
    sources |= {"weights": weights, "class_names": class_names}
    reads = [path for path in sources.values() if path] + [Path(model), Path(model.split(":")[0])]
    with new_folder(out, RUN_MARKER, reads) as folder, progress() as on_progress:
        loaded = load(model, weights, input_size, mean, std, class_names)
        mission = parse_mission(classes, loaded.classes)
        statistics: Atlas | None = open_atlas(atlas) if atlas else None
        images = images_of(
            loaded.classes, mission, data, val=val, search=search, atlas=atlas, seed=seed
        )
        if statistics is None:
            (folder / "atlas").mkdir()
        done = distill(
            loaded,
            mission,
            images,
            folder / "atlas",
            options,
            atlas=statistics,
            on_progress=on_progress,
        )
        write_run(
            done, folder, {name: str(path) if path else None for name, path in sources.items()}
        )
    print_run(done, out, as_json)


def _multiple(text: str) -> int:
    """What --round-to says."""
    if text == "auto":
        return best_multiple()
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"found --round-to {text!r}; expected a number from 1 on, or auto")
    return int(text)


_BUDGET = ("max_loss", "max_class_loss", "target_macs", "target_params")
_WITH_FROM = ("from_run", "out", "as_json", *_BUDGET)


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


def _take_from(run: Path, budget: Budget, out: Path, as_json: bool) -> None:
    with new_folder(out, RUN_MARKER, [run]) as folder:
        result = take_from_front(open_run(run), budget, folder)
    if as_json:
        print_json(result)
    else:
        print_result(result)
        print_line(f"Written to {out}")
