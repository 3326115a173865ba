"""The command that adds atlases up."""

from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.groups import OUTPUT
from distillnet.cli.missions.noise import print_noisy
from distillnet.cli.missions.options import check_atlas_folder
from distillnet.cli.options import JsonOpt
from distillnet.cli.output import print_json, print_table
from distillnet.files import check_writable, new_folder
from distillnet.files.results import ATLAS

__all__ = ["merge_command"]


def merge_command(
    atlases: Annotated[
        list[Path],
        typer.Argument(metavar="ATLAS...", help="Two or more atlases, written by `collect`."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="ATLAS", help="The folder to write.", rich_help_panel=OUTPUT)
    ],
    as_json: JsonOpt = False,
) -> None:
    """Merge atlases into one: of different classes, or of different images of the same classes."""
    check_writable(out, ATLAS)
    for path in atlases:
        check_atlas_folder(path)
    from distillnet.missions.merging import merge
    from distillnet.missions.noise import add_noisy, read_noise

    if any(read_noise(path) for path in atlases):
        with new_folder(out, ATLAS, atlases) as folder:
            added = add_noisy(atlases, folder)
            noise = read_noise(folder)
        print_noisy(out, {str(c): n for c, n in added.counts.items()}, noise, as_json)
        return
    with new_folder(out, ATLAS, atlases) as folder:
        merged = merge(atlases, folder)
    names, counts = merged.classes.names, merged.statistics.counts
    if as_json:
        print_json({"out": str(out), "counts": {names[c]: n for c, n in counts.items()}})
    else:
        rows = [[names[c], str(n), str(merged.samples[c])] for c, n in counts.items()]
        print_table(f"Atlas {out}", ["class", "images", "samples"], rows)
