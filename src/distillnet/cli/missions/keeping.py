"""What `inspect --atlas` shows: which classes keep which filters alive."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.checks import check_file
from distillnet.cli.groups import MISSION
from distillnet.cli.missions.options import check_atlas_folder
from distillnet.cli.output import print_json, print_table, progress
from distillnet.errors import InputError

if TYPE_CHECKING:
    from distillnet.missions.files import MissionAtlas
    from distillnet.missions.keeping import LayerKeepers

__all__ = ["FilterOpt", "InspectedAtlasOpt", "ShareOpt", "inspect_atlas"]

InspectedAtlasOpt = Annotated[
    Path | None,
    typer.Option(
        "--atlas",
        metavar="ATLAS",
        help="Show which classes keep which filters alive, according to an atlas that `collect` "
        "wrote. MODEL may then be left out, unless it is FILE.py:CALLABLE.",
        show_default="none",
        rich_help_panel=MISSION,
    ),
]
FilterOpt = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="LAYER:N",
        help="With --atlas: the one filter to ask about, numbered from 0.",
        show_default="all, counted by layer",
        rich_help_panel=MISSION,
    ),
]
ShareOpt = Annotated[
    float,
    typer.Option(
        min=0.01,
        max=100,
        metavar="PERCENT",
        help="With --atlas: a class keeps the fewest filters that make up this share of what it "
        "would lose without the layer.",
        rich_help_panel=MISSION,
    ),
]


def inspect_atlas(
    atlas: Path,
    model: str | None,
    weights: Path | None,
    filter_: str | None,
    share: float,
    as_json: bool,
) -> None:
    """Say which classes of an atlas keep a filter alive, or count such filters by layer."""
    check_atlas_folder(atlas)
    check_file(weights, "--weights", "a safetensors file or a PyTorch state dict")
    wanted = None if filter_ is None else _parsed(filter_)
    from distillnet.graph.capture import capture_model
    from distillnet.missions.files import open_mission_atlas
    from distillnet.missions.keeping import keepers
    from distillnet.missions.network import model_of

    opened = open_mission_atlas(atlas)
    classes = sorted(opened.samples)
    with progress():
        loaded = model_of(opened, model, weights)
        graph = capture_model(loaded)
        opened.check_network(graph, loaded.weights_sha256, loaded.preprocessing)
        layers = None if wanted is None else [wanted[0]]
        found = keepers(graph, opened, classes, layers=layers, share=share / 100)
    about = {
        "atlas": str(atlas),
        "model": opened.statistics.model,
        "share": share / 100,
        "classes": [{"index": i, "name": opened.classes.names[i]} for i in classes],
    }
    if wanted is None:
        _tell_layers(found, opened, about, as_json)
    else:
        found[0].check_filter(wanted[1])
        _tell_filter(found[0], wanted[1], opened, about, as_json)


def _parsed(filter_: str) -> tuple[str, int]:
    layer, colon, number = filter_.rpartition(":")
    if not colon or not layer or not number.isdecimal() or len(number) > 9:
        raise InputError(
            f"found --filter {filter_!r}; expected a layer and a number, such as features.3:17"
        )
    return layer, int(number)


def _tell_layers(
    found: "tuple[LayerKeepers, ...]", atlas: "MissionAtlas", about: dict[str, Any], as_json: bool
) -> None:
    names = [atlas.classes.names[i] for i in sorted(atlas.samples)]
    values: list[dict[str, Any]] = [
        {
            "layer": one.layer,
            "filters": one.keeps_km.shape[1],
            "by_one": one.by_one,
            "by_all": one.by_all,
            "by_none": one.by_none,
            "by_class": dict(zip(names, one.keeps_km.sum(1).tolist(), strict=True)),
        }
        for one in found
    ]
    if as_json:
        print_json(about | {"layers": values})
        return
    columns = ("layer", "filters", "by_one", "by_all", "by_none")
    rows = [
        [str(value[c]) for c in columns] + [f"{min(kept)} to {max(kept)}"]
        for value, one in zip(values, found, strict=True)
        if (kept := one.keeps_km.sum(1).tolist())
    ]
    title = f"Filters of {about['atlas']} that its {len(names)} classes keep alive"
    heads = ["layer", "filters", "by one alone", "by all", "by none", "by a class"]
    print_table(title, heads, rows)


def _tell_filter(
    one: "LayerKeepers", number: int, atlas: "MissionAtlas", about: dict[str, Any], as_json: bool
) -> None:
    classes: list[dict[str, Any]] = [
        {
            "index": index,
            "name": atlas.classes.names[index],
            "keeps": bool(one.keeps_km[k, number]),
            "share": float(one.damage_km[k, number]),
            "rank": one.rank(k, number),
        }
        for k, index in enumerate(sorted(atlas.samples))
    ]
    filters = one.keeps_km.shape[1]
    if as_json:
        shown = {"layer": one.layer, "filter": number, "filters": filters}
        print_json(about | shown | {"by": classes})
        return
    rows = [
        [c["name"], "yes" if c["keeps"] else "no", f"{100 * c['share']:.2f} %", str(c["rank"])]
        for c in sorted(classes, key=lambda c: c["rank"])
    ]
    title = f"Filter {number} of {one.layer}, one of {filters}"
    print_table(title, ["class", "keeps it alive", "share of the layer", "rank"], rows)
