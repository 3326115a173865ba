"""The command that opens a page on this machine to try missions in."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.checks import check_file, check_run
from distillnet.cli.commands.reporting import WeightsOpt
from distillnet.cli.groups import NETWORK, OUTPUT
from distillnet.cli.options import OriginalOpt, RunArg
from distillnet.cli.output import print_line
from distillnet.models.names import check_model

__all__ = ["studio_command"]


def studio_command(
    run: RunArg,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Port to listen at, on this machine's loopback address only.",
            show_default="a free one",
            rich_help_panel=NETWORK,
        ),
    ] = 0,
    model: OriginalOpt = None,
    weights: WeightsOpt = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for the runs that are written there, each in a folder of its own.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("studio"),
    open_page: Annotated[
        bool,
        typer.Option(
            "--open",
            help="Open the page in the browser.",
            show_default="off",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> None:
    """Serve a page on this machine to try budgets and images in, until Ctrl-C.

    Whoever has the address that is printed may use it, and nobody but this machine can reach it.
    """
    check_run(run)
    check_file(weights, "--weights", "a safetensors file or a PyTorch state dict")
    if model is not None:
        check_model(model)
    from distillnet.job.runs import open_run
    from distillnet.pages.studio import serve
    from distillnet.pages.subject import gather

    def ready(address: str) -> None:
        print_line(f"The studio is at {address}")
        print_line("Ctrl-C ends it.")
        if open_page:
            webbrowser.open(address)

    subject = gather(open_run(run), model=model, weights=weights, images=False)
    serve(subject, out, port=port, on_ready=ready)
