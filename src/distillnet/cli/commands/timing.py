"""The command that measures how long single layers take, here or on another device."""

import json
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.checks import refuse_beside
from distillnet.cli.groups import NETWORK, OUTPUT
from distillnet.cli.options import JsonOpt
from distillnet.cli.output import print_json, print_line, progress
from distillnet.cut.times import times_cache
from distillnet.files import check_writable, new_file, new_folder
from distillnet.files.results import KIT

__all__ = ["timings_command"]


def timings_command(
    context: typer.Context,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the times to this file, for --timings.",
            show_default="none",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    kit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Measure nothing here; write a folder to measure another device with, where only "
            "onnxruntime and numpy, or a C compiler, are needed.",
            show_default="none",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Threads that the runtime may use.", rich_help_panel=NETWORK
        ),
    ] = 1,
    as_json: JsonOpt = False,
) -> None:
    """Measure how long layers take on this machine, so that distill makes networks fast here."""
    if kit is not None:
        refuse_beside(context, "--kit", ("kit", "as_json"))
        check_writable(kit, KIT)
        from distillnet.deploy.timings import write_kit

        with new_folder(kit, KIT) as folder:
            write_kit(folder)
        if as_json:
            print_json({"kit": str(kit)})
        else:
            print_line(f"Written to {kit}. Copy it to the device; its README.md says what to run.")
        return
    for path in (out, times_cache()):
        if path is not None:
            check_writable(path)
    from distillnet.deploy.timings import measure_times

    with progress() as on_progress:
        table = measure_times(threads, lambda done, of: on_progress("timings", done, of))
    cache = times_cache()
    for path in (out, cache):  # what was asked for first
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as work:
                work.write_text(table.dumps(), encoding="utf-8")
    if as_json:
        print_json(json.loads(table.dumps()))
        return
    print_line(f"{table.machine}, {table.runtime}, threads used: {table.threads}")
    print_line(
        f"Writing a number takes as long as {table.element:.0f} multiply-adds; channels in "
        f"multiples of {table.multiple} are fastest."
    )
    print_line(f"Written to {cache}" + (f" and {out}" if out else "") + "; distill reads it.")
