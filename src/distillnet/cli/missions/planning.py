"""The command that quotes a mission before it is made."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import Mission
from distillnet.cli.groups import MISSION, grouped
from distillnet.cli.missions.options import (
    AtlasArg,
    AtlasOptions,
    ClassesOpt,
    check_atlas_folder,
    mission_of,
)
from distillnet.cli.options import ComputeOptions, JsonOpt
from distillnet.cli.output import print_json, print_table, progress
from distillnet.cli.search_options import BudgetOptions
from distillnet.errors import InputError

if TYPE_CHECKING:
    from distillnet.missions.quoting import Quote

__all__ = ["plan_command"]

_PAIRS = 5


@grouped
def plan_command(
    atlas: AtlasArg,
    classes: ClassesOpt,
    budget: BudgetOptions,
    network: AtlasOptions,
    add: Annotated[
        str | None,
        typer.Option(
            metavar="D,E",
            help="Also tell what each of these classes would add.",
            show_default="none",
            rich_help_panel=MISSION,
        ),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Quote the mission without these of its classes.",
            show_default="none",
            rich_help_panel=MISSION,
        ),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Quote a mission: its size and time, what each class adds, and which classes share most."""
    check_atlas_folder(atlas)
    network.check()
    options = network.job(budget.budget(), ComputeOptions())
    from distillnet.missions.files import open_mission_atlas
    from distillnet.missions.quoting import quote

    opened = open_mission_atlas(atlas)
    mission = mission_of(classes, opened)
    if drop is not None:
        mission = _without(mission, mission_of(drop, opened, least=1))
    also = mission_of(add, opened, least=1) if add else None
    with progress() as on_progress:
        model = network.load(opened)
        told = quote(opened, model, mission, options, also=also, on_progress=on_progress)
    if as_json:
        print_json(asdict(told))
    else:
        _print(told)


def _without(mission: Mission, dropped: Mission) -> Mission:
    kept = [
        pair
        for pair in zip(mission.indices, mission.names, strict=True)
        if pair[0] not in dropped.indices
    ]
    if not kept or len(kept) + len(dropped) != len(mission):
        raise InputError(
            f"found --drop {', '.join(dropped.names)}; expected some, not all, of the classes "
            f"{', '.join(mission.names)}"
        )
    return Mission(tuple(i for i, _ in kept), tuple(name for _, name in kept))


def _print(told: "Quote") -> None:
    print_table(
        f"A network for {', '.join(told.classes)}",
        ["", "", "times smaller"],
        [
            ["MACs", f"{told.macs / 1e6:,.1f} M", f"{told.mac_ratio:.2f}"],
            ["parameters", f"{told.params / 1e6:,.2f} M", f"{told.param_ratio:.2f}"],
            ["file, float32", f"{told.bytes / 1e6:,.1f} MB", ""],
            ["time of an image, estimated", f"{told.latency_ms:,.1f} ms", ""],
            ["loss, expected", f"{told.expected_loss_pp:+.1f} points", ""],
        ],
    )
    rows = [[name, f"{macs / 1e6:+,.1f} M"] for name, macs in told.adds.items()]
    rows += [[f"with {name}", f"{macs / 1e6:+,.1f} M"] for name, macs in told.added.items()]
    if rows:
        print_table("What each class adds", ["class", "MACs"], rows)
    if told.alike:
        pairs = [[a, b, f"{share:.2f}"] for a, b, share in told.alike[:_PAIRS]]
        print_table("Classes that share most", ["", "", "alike"], pairs)
