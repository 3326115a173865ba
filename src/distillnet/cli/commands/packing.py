"""The commands that make a small file of a network or a run, and make them of it again."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.checks import check_apart, check_run, refuse_beside
from distillnet.cli.commands.exporting import images_of_run
from distillnet.cli.groups import BUDGET, OUTPUT, SEARCH, SELDOM, grouped
from distillnet.cli.options import ImageOptions, JsonOpt, NetworkOptions, OverwriteOpt, SeedOpt
from distillnet.cli.output import print_json, print_line, print_table, progress
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file, new_folder
from distillnet.files.packed import is_packed
from distillnet.files.results import RUN

if TYPE_CHECKING:
    from distillnet.deploy.packing import Result, Source
    from distillnet.job.partition import Images

__all__ = ["pack_command", "unpack_command"]


class PackMethod(StrEnum):
    """How values come to be shared."""

    best = "best"
    paper = "paper"


# Of a run all else is known.
_WITH_RUN = ("network", "data", "out", "max_loss", "method", "coarseness", "as_json")


@grouped
def pack_command(
    context: typer.Context,
    network: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help="A run folder, or a MODEL as `distill` takes it."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write.", rich_help_panel=OUTPUT)
    ],
    images: ImageOptions,
    options: NetworkOptions,
    max_loss: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Top-1 accuracy that packing may lose, among all classes that the network knows, "
            "in percentage points.",
            rich_help_panel=BUDGET,
        ),
    ] = 1.0,
    method: Annotated[
        PackMethod,
        typer.Option(
            help="best: rounding with error feedback and refitting; paper: thresholds and k-means, "
            "which is Deep Compression without its training.",
            rich_help_panel=SEARCH,
        ),
    ] = PackMethod.best,
    coarseness: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="How coarse to round, as an earlier call printed it; for paper, the threshold in "
            "standard deviations of a layer.",
            show_default="as coarse as --max-loss allows",
            rich_help_panel=SELDOM,
        ),
    ] = None,
    seed: SeedOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Round a network's weights to few values and write them to a file, entropy-coded.

    Weights are fitted and judged on the images of --data; no labels of other classes are needed,
    and nothing is trained. `unpack` gives back exactly what was measured.
    """
    is_run = Path(network).is_dir()
    if is_run:
        refuse_beside(context, f"the run {network}", _WITH_RUN)
        check_run(Path(network))
    elif images.data is None:
        raise InputError("there is no folder of images to fit weights on; pass one with --data")
    images.check()
    check_writable(out)
    check_apart(out, [images.data])
    table = None if is_run else options.check(network)
    from distillnet.deploy.packing import of_model, pack

    with new_file(out) as work, progress() as on_progress:
        if is_run:
            source, split = _run_and_images(Path(network), images)
        else:
            model = options.load(network)
            found = images.find(None, table or model.classes)
            source, split = of_model(model, found.mission), images.split(found, seed)
        done = pack(
            source, split, work, method=method.value, max_loss_pp=max_loss, setting=coarseness,
            on_progress=on_progress,
        )  # fmt: skip
    values = _json(done, out)
    if as_json:
        print_json(values)
    else:
        _print(values)


def _run_and_images(folder: Path, images: ImageOptions) -> tuple["Source", "Images"]:
    from distillnet.deploy.packing import of_run
    from distillnet.job.runs import open_run

    run = open_run(folder)
    split = images_of_run(run, images.data)
    if split is None:
        raise InputError(
            "the run's images are not where they were; pass the folder that they are in now "
            "with --data"
        )
    return of_run(run), split


def unpack_command(
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `pack` wrote.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="What to write: a safetensors file for packed weights, a .pt2 file for a "
            "programme, a folder for a run.",
            rich_help_panel=OUTPUT,
        ),
    ],
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Turn a packed file back into weights, a MODEL or a run, with exactly the packed values."""
    if not is_packed(packed):
        found = "is not a packed file" if packed.exists() else "does not exist"
        raise InputError(f"{packed} {found}; expected one that `distillnet pack` wrote")
    from distillnet.deploy.packing import KINDS_OF_FILES, unpack
    from distillnet.models.packed import read_packed

    found_ = read_packed(packed)
    if found_.kind == "run":
        check_writable(out, RUN, overwrite=overwrite)
        with new_folder(out, RUN, overwrite=overwrite) as work:
            unpack(found_, work)
    else:
        check_writable(out)
        with new_file(out) as work:
            unpack(found_, work)
    if as_json:
        print_json({"out": str(out), "kind": found_.kind, "about": dict(found_.about)})
    else:
        print_line(f"Written to {out}: {KINDS_OF_FILES[found_.kind]}")


def _json(done: "Result", out: Path) -> dict[str, Any]:
    values = asdict(done)
    return {"out": str(out), **values, "bytes": done.bytes, "ratio": done.ratio}


def _print(values: dict[str, Any]) -> None:
    rows = []
    for step in values["steps"]:
        open_ = step["accuracy_open"]
        rows.append(
            [
                step["name"], f"{step['bytes']:,}", f"{100 * step['accuracy']:.1f} %",
                "-" if open_ is None else f"{100 * open_:.1f} %",
            ]
        )  # fmt: skip
    print_table(
        f"{values['kind']}, 1/{values['ratio']:.1f} of the bytes, {values['n']} val images",
        ["step", "bytes", "accuracy", "among all classes"],
        rows,
    )
    print_line(
        f"{100 * values['kept']:.1f} % of the weights are not 0; coarseness "
        f"{values['setting']:.3g}; {values['expected_loss_pp']:+.2f} points expected to be lost. "
        f"Written to {values['out']}"
    )
