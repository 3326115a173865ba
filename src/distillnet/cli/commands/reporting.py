"""The command that writes a run's report, and what options of pages have in common."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.checks import check_file, check_folder, check_run
from distillnet.cli.common import OpenPageOpt
from distillnet.cli.groups import IMAGES, NETWORK, OUTPUT
from distillnet.cli.options import JsonOpt, OriginalOpt, RunArg
from distillnet.cli.output import print_json, print_line, progress
from distillnet.files import check_writable
from distillnet.models.names import check_model

__all__ = ["WeightsOpt", "report_command"]

WeightsOpt = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of the original, needed for its answers and for feature maps.",
        show_default="where they were when RUN was made",
        rich_help_panel=NETWORK,
    ),
]
PageImagesOpt = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of images: DIR/CLASS/IMAGE, or train/ and val/ of that form, of which val/ "
        "is taken.",
        show_default="the images held out for the run's own figures",
        rich_help_panel=IMAGES,
    ),
]


def report_command(
    run: RunArg,
    data: PageImagesOpt = None,
    model: OriginalOpt = None,
    weights: WeightsOpt = None,
    with_images: Annotated[
        bool,
        typer.Option(
            "--with-images",
            help="Put images into the page, and pictures that show one: only if whoever gets the "
            "page may see the people in them.",
            show_default="off",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="The page to write.",
            show_default="RUN/report.html",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    open_page: OpenPageOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Write one HTML page that shows what was removed and why, to read and to send on.

    The page works offline and needs no other file. What the run or this machine lacks is left
    out, and the page says which command adds it.
    """
    check_run(run)
    check_folder(data, "--data", "a folder with one folder of images per class in it")
    check_file(weights, "--weights", "a safetensors file or a PyTorch state dict")
    if model is not None:
        check_model(model)
    path = out or run / "report.html"
    check_writable(path)
    from distillnet.pages.report import write_report

    with progress() as on_progress:
        path, absent = write_report(
            run,
            path,
            data=data,
            model=model,
            weights=weights,
            with_images=with_images,
            on_progress=on_progress,
        )
    size = path.stat().st_size
    if as_json:
        lacking = [{"title": a.title, "why": a.why, "command": a.command} for a in absent]
        print_json({"path": str(path), "bytes": size, "absent": lacking})
    else:
        for one in absent:
            more = f"; {one.command} adds it" if one.command else ""
            print_line(f"Left out: {one.title} ({one.why}){more}")
        print_line(f"Written to {path}, {size / 1e6:.1f} MB")
    if open_page:
        webbrowser.open(path.resolve().as_uri())
