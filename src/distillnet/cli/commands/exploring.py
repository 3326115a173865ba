"""The commands of the small-network playbook: a family, changes to a network, training at scale."""

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.commands.scaling import scaling_command
from distillnet.cli.groups import NETWORK, SEARCH, GroupedCommand, grouped
from distillnet.cli.options import JsonOpt, ModelArg
from distillnet.cli.output import print_json, print_line, print_table, progress
from distillnet.cli.shapes import ShapeOptions
from distillnet.errors import InputError
from distillnet.models.designs import FireDesign, read_metaparameter
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.playbook.changes import Change
    from distillnet.playbook.effects import Effect
    from distillnet.playbook.firenet import FirePoint

__all__ = ["explore"]

explore = typer.Typer(
    no_args_is_help=True,
    help="Design small networks: families of them, what a change does, how training scales.",
)


def _axis(metavar: str, help_text: str) -> Any:
    return typer.Option(metavar=f"{metavar},...", help=help_text, rich_help_panel=NETWORK)


@dataclass(frozen=True, kw_only=True)
class FireOptions:
    """The metaparameters of FireNets, each one value or several with commas between."""

    base: Annotated[str, _axis("N", "Expand filters of the first fire module.")] = "128"
    increment: Annotated[str, _axis("N", "How many to add after every --frequency modules.")] = (
        "128"
    )
    frequency: Annotated[str, _axis("N", "Fire modules from one increment to the next.")] = "2"
    squeeze_ratio: Annotated[str, _axis("RATIO", "Squeeze filters per expand filter.")] = (
        "0.125,0.25,0.5,0.75,1"
    )
    share_3x3: Annotated[str, _axis("SHARE", "Share of the expand filters that are 3x3.")] = "0.5"
    modules: Annotated[str, _axis("N", "Fire modules.")] = "8"
    pools: Annotated[
        str,
        _axis("N+N", "The layers followed by a pool of stride 2: 1 is conv1, 2 the first module."),
    ] = "1+4+8"
    conv1_filters: Annotated[str, _axis("N", "Filters of the first layer.")] = "96"
    conv1_kernel: Annotated[str, _axis("PIXELS", "Side of the first layer's filters.")] = "7"
    classes: Annotated[str, _axis("N", "Classes to tell apart.")] = "1000"

    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values by name, as ``fire_grid`` takes them; InputError for one that is no number."""
        return {
            field.name: tuple(
                read_metaparameter(field.name, text)
                for text in getattr(self, field.name).split(",")
            )
            for field in fields(FireDesign)
        }


@grouped
def firenet_command(
    design: FireOptions,
    input_size: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Side length of the square input.",
            rich_help_panel=NETWORK,
        ),
    ] = 224,
    as_json: JsonOpt = False,
) -> None:
    """Lay a grid over the FireNet family, of which SqueezeNet is one, and show what each costs.

    Every network of it is a MODEL, zoo:firenet:KEY=VALUE,..., of ordinary PyTorch modules.
    """
    axes = design.axes()
    from distillnet.playbook.firenet import fire_grid, fire_point

    designs = fire_grid(axes)
    points = [fire_point(design, (input_size, input_size)) for design in designs]
    if as_json:
        print_json({"input_size": [input_size] * 2, "networks": [_point_json(p) for p in points]})
        return
    varied = [name for name, values in axes.items() if len(values) > 1]
    rows = [
        [
            *(_shown(getattr(point.design, name)) for name in varied),
            f"{point.quantities.params:,}",
            f"{point.quantities.gradient_bytes / 1e6:.2f}",
            f"{point.quantities.macs / 1e6:,.1f}",
            f"{point.quantities.output / 1e6:,.2f}",
            point.name or "",
        ]
        for point in points
    ]
    print_table(
        f"FireNets at {input_size}x{input_size}",
        [
            *(name.replace("_", " ") for name in varied),
            "params",
            "MB",
            "MACs (M)",
            "output (M)",
            "",
        ],
        rows,
        0,
    )
    print_line(
        f"The last as MODEL: {points[-1].design.model()}. Output: numbers that layers output for "
        "one image."
    )


def _shown(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def _point_json(point: "FirePoint") -> dict[str, Any]:
    return {
        "model": point.design.model(),
        "name": point.name,
        **asdict(point.design),
        **asdict(point.quantities),
    }


def _change(help_text: str, metavar: str, default: str = "none") -> Any:
    return typer.Option(
        metavar=metavar, help=help_text, show_default=default, rich_help_panel=SEARCH
    )


@dataclass(frozen=True, kw_only=True)
class ChangeOptions:
    """Changes, each a row of the table by itself; factors are of a quantity, as in the slides."""

    filters: Annotated[
        list[str] | None, _change("Multiply a layer's filters by this.", "LAYER=FACTOR")
    ] = None
    kernel: Annotated[
        list[str] | None,
        _change("Multiply the area of a layer's kernel: 4 turns 3x3 into 6x6.", "LAYER=FACTOR"),
    ] = None
    remove: Annotated[list[str] | None, _change("A pool to leave out.", "POOL")] = None
    stride: Annotated[
        list[str] | None, _change("Another stride of a layer or pool.", "LAYER=STRIDE")
    ] = None
    input_channels: Annotated[
        list[float] | None, _change("Multiply the number of input channels.", "FACTOR")
    ] = None
    input_resolution: Annotated[
        list[float] | None, _change("Multiply the number of input pixels.", "FACTOR")
    ] = None
    categories: Annotated[
        list[float] | None, _change("Multiply the number of classes.", "FACTOR")
    ] = None

    def rows(self) -> "list[Change]":
        """The changes in the order of the slides' table; none where no option was given.

        Raises InputError for a factor or a stride that is no number above 0.
        """
        from distillnet.playbook.changes import Change

        found = [
            Change(f"{_times(f)} input channels", input_channels=f)
            for f in _checked(self.input_channels, "--input-channels")
        ]
        for layer, factor in _pairs(self.filters, "--filters"):
            found.append(Change(f"{_times(factor)} filters in {layer}", filters={layer: factor}))
        for layer, factor in _pairs(self.kernel, "--kernel"):
            title = f"{_times(factor, 'larger')} filter resolution in {layer}"
            found.append(Change(title, kernel_side={layer: factor**0.5}))
        found += [
            Change(f"{_times(f)} categories to classify", outputs=f)
            for f in _checked(self.categories, "--categories")
        ]
        for pool in self.remove or ():
            found.append(Change(f"remove {pool} downsampling layer", removed=frozenset({pool})))
        for layer, stride in _pairs(self.stride, "--stride"):
            if stride != int(stride):
                raise InputError(f"found --stride {layer}={stride:g}, expected a whole number")
            found.append(Change(f"stride {stride:g} of {layer}", stride={layer: int(stride)}))
        found += [
            Change(f"{_times(f, 'larger')} input data resolution", input_side=f**0.5)
            for f in _checked(self.input_resolution, "--input-resolution")
        ]
        return found


@grouped
def changes_command(
    model: ModelArg,
    changes: ChangeOptions,
    shape: ShapeOptions,
    as_json: JsonOpt = False,
) -> None:
    """Show what changes do to a network's output, parameters and computation.

    By default, those of the slides: 4x of everything. A local change alters parameters, which
    data-parallel training has to communicate in every step; a global one does not.
    """
    check_model(model)
    wanted = changes.rows()
    from distillnet.graph.capture import capture_model
    from distillnet.playbook.effects import effects, slides_changes

    with progress():
        graph = capture_model(shape.load(model))
        rows = effects(graph, wanted or slides_changes(graph))
    if as_json:
        print_json({"model": model, "changes": [_effect_json(row) for row in rows]})
        return
    print_table(
        f"{model}: what a change does",
        [
            *("modification", "type", "Δ output", "Δ params", "Δ computation"),
            *("MB to communicate", "MACs per byte"),
        ],
        [
            [
                row.change.title,
                row.change.kind,
                *(f"{ratio:.2f} x" for ratio in (row.output, row.params, row.macs)),
                f"{row.after.gradient_bytes / 1e6:.2f}",
                f"{row.macs_per_byte:,.0f}",
            ]
            for row in rows
        ],
        2,
    )
    print_line(
        "To communicate: the gradients of one worker in a step of data-parallel training. The more "
        "MACs an image has per byte of them, the more workers pay off; see `explore scaling`."
    )


def _effect_json(row: "Effect") -> dict[str, Any]:
    return {
        "modification": row.change.title,
        "type": row.change.kind,
        **asdict(row.after),
        "output_ratio": row.output,
        "params_ratio": row.params,
        "macs_ratio": row.macs,
        "gradient_bytes": row.after.gradient_bytes,
        "macs_per_byte": row.macs_per_byte,
    }


def _times(factor: float, what: str = "more") -> str:
    return f"{factor:g}x {what}"


def _checked(factors: list[float] | None, option: str) -> list[float]:
    for factor in factors or ():
        if not 0 < factor <= 1000:
            raise InputError(f"found {option} {factor:g}, expected a number above 0, up to 1000")
    return factors or []


def _pairs(texts: list[str] | None, option: str) -> list[tuple[str, float]]:
    found = []
    for text in texts or ():
        layer, _, number = text.rpartition("=")
        try:
            factor = float(number)
        except ValueError:
            factor = 0.0
        if not layer or not 0 < factor <= 1000:
            raise InputError(
                f"found {option} {text!r}, expected a layer, = and a number above 0, such as"
                " conv1=4"
            )
        found.append((layer, factor))
    return found


explore.command("firenet", short_help="Costs over the FireNet family.", cls=GroupedCommand)(
    firenet_command
)
explore.command("changes", short_help="What a change does to a network.", cls=GroupedCommand)(
    changes_command
)
explore.command("scaling", short_help="How training scales to many workers.", cls=GroupedCommand)(
    scaling_command
)
