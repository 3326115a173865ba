"""`mission`: keys, signed packages, and what a device takes of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.cli.checks import check_file, check_folder, check_run
from distillnet.cli.groups import MISSION, NETWORK, OUTPUT, GroupedCommand, grouped
from distillnet.cli.missions.run_options import WeightsOpt, with_weights
from distillnet.cli.options import JsonOpt, OriginalOpt, RunArg
from distillnet.cli.output import for_results, print_json, print_line, print_table
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file
from distillnet.models.names import check_model

__all__ = ["mission_app"]

mission_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Missions as signed packages over one file of weights, for devices in the field.",
)

_PackageArg = Annotated[
    Path, typer.Argument(metavar="PACKAGE", help="A file that `mission pack` wrote.")
]
_KeyOpt = Annotated[
    list[Path],
    typer.Option(
        "--key",
        metavar="FILE",
        help="Public key that is trusted, as PEM; may be given several times.",
        rich_help_panel=MISSION,
    ),
]


@mission_app.command("keys", short_help="Make a pair of keys.", cls=GroupedCommand)
def keys_command(
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The secret key to write; the public one becomes FILE.pub.",
            rich_help_panel=OUTPUT,
        ),
    ],
) -> None:
    """Make an Ed25519 key to sign packages with, and the public key that devices trust.

    An existing key is never replaced.
    """
    public = out.with_name(f"{out.name}.pub")
    for path in (out, public):
        check_writable(path)
        if path.exists():
            raise InputError(f"{path} is there already; expected a new file, choose another --out")
    from distillnet.missions.packages import new_keys

    secret, shown = new_keys()
    for path, data in ((out, secret), (public, shown)):
        with new_file(path) as work:
            work.touch(0o600 if path == out else 0o644)
            work.chmod(0o600 if path == out else 0o644)
            work.write_bytes(data)
    print_line(f"Written to {out}, which stays secret, and {public}, which devices trust")


@dataclass(frozen=True, kw_only=True)
class PackageOptions:
    """What a package holds, by whom it is signed, and where it is written."""

    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Secret key to sign with.", rich_help_panel=MISSION),
    ]
    serial: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**53,
            metavar="N",
            help="Number of this version; devices take larger ones only.",
            rich_help_panel=MISSION,
        ),
    ]
    base: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The weights that all missions of the network share; written if it is not there.",
            rich_help_panel=NETWORK,
        ),
    ]
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the mission on devices: letters, digits, dots, dashes.",
            show_default="the run's folder",
            rich_help_panel=MISSION,
        ),
    ] = None
    with_unknown: Annotated[
        bool,
        typer.Option(
            "--with-unknown",
            help="Include the score for images of none of the classes, by the rule that `unknown` "
            "fitted.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The package to write.",
            show_default="NAME.mission",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    model: OriginalOpt = None
    weights: WeightsOpt = None

    def check(self) -> None:
        """Raise InputError where a file is not there, or cannot be written."""
        if self.model is not None:
            check_model(self.model)
        check_file(self.weights, "--weights", "the weights that the run was made of")
        check_file(self.key, "--key", "a secret key that `distillnet mission keys` wrote")
        check_writable(self.base)


@mission_app.command("pack", short_help="Write a run as a signed package.", cls=GroupedCommand)
@grouped
def pack_command(run: RunArg, asked: PackageOptions, as_json: JsonOpt = False) -> None:
    """Write a run as a package: what it keeps and changes of the original's weights, signed.

    On a device it gives exactly what the run's network gives, to the last bit.
    """
    check_run(run)
    asked.check()
    name = asked.name or run.resolve().name
    path = asked.out or Path(f"{name}.mission")
    check_writable(path)
    from distillnet.deploy.c_missions import fused_bitmaps
    from distillnet.deploy.networks import original_model
    from distillnet.graph.capture import capture, capture_model
    from distillnet.job.runs import open_run
    from distillnet.missions.packages import check_name, pack_mission, shared_weights
    from distillnet.missions.packages.graphs import named_as
    from distillnet.missions.unknown import read_rule
    from distillnet.missions.unknown import with_unknown as with_rule
    from distillnet.models.programs import load_program

    check_name(name)
    opened = open_run(run)
    height, width = opened.result["distilled"]["input_size"]
    with for_results():
        named = with_weights(opened, asked.weights)
        original = original_model(named, (height, width), asked.model)
    if original.weights_sha256 != opened.weights_sha256:
        raise InputError(
            f"the weights of {original.name} are not those that {run} was made from; restore those"
        )
    whole = capture_model(original, (height, width))
    shared = shared_weights(original.name, whole, original.weights_sha256, asked.base)
    module = load_program(run / "model.pt2").module
    how = opened.preprocessing
    graph = named_as(capture(module, how.input_size, channels=len(how.mean)), module)
    if asked.with_unknown:
        graph = with_rule(graph, read_rule(run)[0])
    with new_file(path) as work:
        done = pack_mission(
            opened, graph, shared, work, asked.key, name=name, serial=asked.serial,
            keep=fused_bitmaps(opened), unknown=asked.with_unknown,
        )  # fmt: skip
    _tell(f"Written to {path}", done.told | {"out": str(path)}, as_json)


@mission_app.command("verify", short_help="Check who signed a package.", cls=GroupedCommand)
def verify_command(
    package: _PackageArg,
    key: _KeyOpt,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Shared weights to put the mission together with, and check that it fits.",
            show_default="none",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Check a package's signature, and that it fits the shared weights; say what it holds."""
    _check_keys(key)
    check_file(package, "PACKAGE", "a file that `mission pack` wrote")
    check_file(base, "--base", "the file of weights that `mission pack --base` wrote")
    from distillnet.missions.packages import open_package, read_base
    from distillnet.missions.packages.package import graph_of

    opened = open_package(package, key)
    if base is not None:
        graph_of(opened.contents, read_base(base), str(package))
    _tell(f"{package} is whole and signed", opened.told, as_json)


@mission_app.command("apply", short_help="Put a package on a device.", cls=GroupedCommand)
def apply_command(
    package: _PackageArg,
    key: _KeyOpt,
    device: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The device's folder; it holds weights.safetensors, the shared weights.",
            rich_help_panel=OUTPUT,
        ),
    ],
    as_json: JsonOpt = False,
) -> None:
    """Check a package and put it into a device's folder, in place of the mission of its name.

    One that was changed or cut off, is not newer, is for other weights or is not signed by a
    trusted key is refused, and the device keeps what it has.
    """
    _check_keys(key)
    check_file(package, "PACKAGE", "a file that `mission pack` wrote")
    check_folder(device, "--device", "a folder with weights.safetensors in it")
    from distillnet.missions.packages import apply_package

    opened, before = apply_package(package, device, key)
    told = {"replaced_serial": before.contents.serial if before else None}
    _tell(f"{device} has mission {opened.contents.name} now", opened.told | told, as_json)


@mission_app.command("block", short_help="Turn a package into what C loads.", cls=GroupedCommand)
def block_command(
    package: _PackageArg,
    key: _KeyOpt,
    code: Annotated[
        Path,
        typer.Option(
            "--c",
            metavar="DIR",
            help="The folder of C that is to load it, as `export --format c --switchable "
            "--loadable` wrote it. Nothing in it is run.",
            rich_help_panel=NETWORK,
        ),
    ],
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The weights that all missions share: needed where the package changes some; "
            "otherwise they tell what else the code may leave out.",
            show_default="none",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The block to write.",
            show_default="PACKAGE with the ending .block",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Check a package, and turn it into the block of bytes that compiled code loads as a mission.

    The code refuses a block that is damaged, older than its mission, or made for other code or
    weights, and keeps its mission. It cannot check signatures: that is done here.
    """
    _check_keys(key)
    check_file(package, "PACKAGE", "a file that `mission pack` wrote")
    check_folder(code, "--c", "a folder that `export --format c` wrote")
    check_file(base, "--base", "the file of weights that `mission pack --base` wrote")
    path = out or package.with_suffix(".block")
    check_writable(path)
    from distillnet.engine import read_layout
    from distillnet.missions.packages import block_of_package, open_package, read_base

    opened = open_package(package, key)
    shared = None if base is None else read_base(base)
    block = block_of_package(opened, read_layout(code), shared)
    with new_file(path) as work:
        work.write_bytes(block)
    contents = opened.contents
    told = {
        "out": str(path),
        "name": contents.name,
        "serial": contents.serial,
        "classes": [{"index": c.index, "name": c.name} for c in contents.classes],
        "bytes": len(block),
    }
    _tell(f"Written to {path}", told, as_json)


@mission_app.command("diff", short_help="Show what a package changes.", cls=GroupedCommand)
def diff_command(
    package: _PackageArg,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another package.")],
    key: _KeyOpt,
    as_json: JsonOpt = False,
) -> None:
    """Show what OTHER changes: classes, thresholds, neurons that are kept, tensors."""
    _check_keys(key)
    for path in (package, other):
        check_file(path, "PACKAGE", "a file that `mission pack` wrote")
    from distillnet.missions.packages import diff_packages, open_package

    found = diff_packages(open_package(package, key), open_package(other, key))
    if as_json:
        print_json(found)
        return
    rows = [[k.replace("_", " "), _shown(v)] for k, v in found.items() if k != "bitmaps"]
    rows += [[f"bitmap of {site}", told] for site, told in found["bitmaps"].items()]
    print_table(f"{package} and {other}", ["", ""], rows, 2)


def _check_keys(keys: list[Path]) -> None:
    for path in keys:
        check_file(path, "--key", "a public key that `distillnet mission keys` wrote")


def _tell(title: str, values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(values)
        return
    print_table(title, ["", ""], [[k.replace("_", " "), _shown(v)] for k, v in values.items()], 2)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(v["name"] if isinstance(v, dict) else str(v) for v in value) or "none"
    return str(value)
