"""The command that opens a page on this machine to try missions in."""

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.cli.checks import check_file, check_folder, check_run
from distillnet.cli.common import OpenPageOpt, run_folder
from distillnet.cli.groups import IMAGES, NETWORK, OUTPUT
from distillnet.cli.options import OriginalOpt
from distillnet.cli.output import print_line
from distillnet.cli.search_options import Aim, TimingsOpt, times_of
from distillnet.errors import InputError
from distillnet.files.results import ATLAS, RUN
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.cut.times import TimeTable
    from distillnet.pages.studio import Draftroom, Workroom

__all__ = ["studio_command"]


def studio_command(
    opened: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_ATLAS",
            help="A run folder, written by `distill`, or an atlas, written by `collect`.",
        ),
    ],
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Port to listen on, at this machine's loopback address only.",
            show_default="a free one",
            rich_help_panel=NETWORK,
        ),
    ] = 0,
    model: OriginalOpt = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the original: for a run, to show the original's answers on images; "
            "for an atlas, for everything.",
            show_default="where they were when RUN or ATLAS was made",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For an atlas: images to measure missions on, DIR/CLASS/IMAGE or train/ and val/ "
            "of that form, of which val/ is taken. Those that ATLAS was made of are left out.",
            show_default="where ATLAS was collected, if they are still there",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    timings: TimingsOpt = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder that runs are written to, each in a folder of its own.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("studio"),
    open_page: OpenPageOpt = False,
) -> None:
    """Serve a page on this machine to try missions, budgets and images in, until Ctrl-C.

    For a run it shows the networks of its front; for an atlas, any mission of its classes. Anyone
    who has the printed address can use it, but only from this machine.
    """
    is_atlas = (opened / ATLAS.marker).is_file() and not (opened / RUN.marker).is_file()
    if not is_atlas:
        _check_run(opened, data, timings)
    check_file(weights, "--weights", "a safetensors file or a PyTorch state dict")
    check_folder(data, "--data", "a folder with one folder of images per class in it")
    if model is not None:
        check_model(model)
    times = times_of(Aim.time, timings)
    from distillnet.pages.studio import serve

    def ready(address: str) -> None:
        print_line(f"The studio is at {address}")
        print_line("Ctrl-C ends it.")
        if open_page:
            webbrowser.open(address)

    if is_atlas:
        room = _draftroom(opened, out, model, weights, data, times)
    else:
        room = _workroom(opened, out, model, weights)
    serve(room, port=port, on_ready=ready)


def _check_run(opened: Path, data: Path | None, timings: Path | None) -> None:
    try:
        check_run(opened, packed=True)
    except InputError as error:
        raise InputError(f"{error}, or an atlas that `distillnet collect` wrote") from None
    for option, value in (("--data", data), ("--timings", timings)):
        if value is not None:
            raise InputError(
                f"found {option} beside the run {opened}, whose networks are measured already; "
                "leave it out, or name an atlas"
            )


def _workroom(
    opened: Path, out: Path, model: str | None, weights: Path | None
) -> "Workroom | Draftroom":
    from distillnet.job.runs import open_run
    from distillnet.pages.studio import Workroom
    from distillnet.pages.subject import gather

    run = open_run(run_folder(opened))
    return Workroom(gather(run, model=model, weights=weights, images=False), out)


def _draftroom(
    opened: Path,
    out: Path,
    model: str | None,
    weights: Path | None,
    data: Path | None,
    times: "TimeTable | None",
) -> "Workroom | Draftroom":
    from distillnet.job.options import Options
    from distillnet.missions.files import open_mission_atlas
    from distillnet.missions.network import model_of
    from distillnet.pages.studio import Draftroom

    atlas = open_mission_atlas(opened)
    network = model_of(atlas, model, weights)
    options = Options(keep_input_size=True, times=times)
    return Draftroom(atlas, network, out, options, data=data, weights=weights)
