"""The command that shows a network: its layers, and which of their channels go together."""

from dataclasses import asdict
from typing import Annotated

import typer

from distillnet.cli.checks import refuse_beside
from distillnet.cli.groups import grouped
from distillnet.cli.missions.keeping import FilterOpt, InspectedAtlasOpt, ShareOpt, inspect_atlas
from distillnet.cli.options import MODEL_HELP, JsonOpt, NetworkOptions
from distillnet.cli.output import print_json, print_table, progress
from distillnet.errors import InputError

__all__ = ["inspect_command"]


_WITH_ATLAS = ("atlas", "model", "weights", "filter_", "share", "as_json")


@grouped
def inspect_command(
    context: typer.Context,
    network: NetworkOptions,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)
    ] = None,
    atlas: InspectedAtlasOpt = None,
    filter_: FilterOpt = None,
    share: ShareOpt = 95.0,
    as_json: JsonOpt = False,
) -> None:
    """Show a network's layers with their costs, and which channels can be removed together.

    With --atlas: which classes keep which filters alive.
    """
    if atlas is not None:
        refuse_beside(context, "--atlas", _WITH_ATLAS)
        inspect_atlas(atlas, model, network.weights, filter_, share, as_json)
        return
    if model is None:
        raise InputError("found no MODEL; name a network, or an atlas with --atlas")
    if filter_ is not None:
        raise InputError(f"--filter {filter_} asks an atlas; name it with --atlas")
    network.check(model)
    from distillnet.cut.cost import cost
    from distillnet.graph.capture import capture_model
    from distillnet.graph.channels import analyse, groups

    with progress():
        loaded = network.load(model)
        how = loaded.preprocessing
        graph = capture_model(loaded)
    channels = analyse(graph)
    total = cost(graph, channels)
    tied = groups(graph, channels)
    number = {layer: i for i, group in enumerate(tied, 1) for layer in group.layers}
    if as_json:
        print_json(
            {
                "model": model,
                "input_size": list(how.input_size),
                "classes": len(loaded.classes),
                "params": total.params,
                "macs": total.macs,
                "weights_sha256": loaded.weights_sha256,
                "layers": [
                    {
                        "name": name,
                        "op": graph[name].op,
                        "shape": list(graph[name].shape),
                        "params": layer.params,
                        "macs": layer.macs,
                        "group": number[name],
                    }
                    for name, layer in total.layers.items()
                ],
                "groups": [asdict(group) for group in tied],
            }
        )
        return
    rows = [
        [
            name,
            graph[name].op,
            "x".join(map(str, graph[name].shape)),
            f"{layer.params:,}",
            f"{layer.macs / 1e6:,.2f}",
            str(number[name]),
        ]
        for name, layer in total.layers.items()
    ]
    rows.append(["total", "", "", f"{total.params:,}", f"{total.macs / 1e6:,.2f}", ""])
    title = f"{model} at {how.input_size[0]}x{how.input_size[1]}, {len(loaded.classes):,} classes"
    print_table(title, ["layer", "op", "output", "params", "MACs (M)", "group"], rows, 2)
    print_table(
        "Channels that are removed together",
        ["group", "channels", "removable", "layers", "why the others stay"],
        [
            [
                str(i),
                str(group.channels),
                str(group.removable),
                ", ".join(group.layers[:3]) + (", ..." if len(group.layers) > 3 else ""),
                group.reason or "-",
            ]
            for i, group in enumerate(tied, 1)
        ],
        5,
    )
