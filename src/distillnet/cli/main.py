"""The command line: every command by name, and how the process ends."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from distillnet.cli.commands.benching import bench_command
from distillnet.cli.commands.collecting import collect_command
from distillnet.cli.commands.distilling import distill_command
from distillnet.cli.commands.doctoring import doctor_command
from distillnet.cli.commands.evaluating import evaluate_command
from distillnet.cli.commands.exploring import explore
from distillnet.cli.commands.exporting import export_command
from distillnet.cli.commands.inspecting import inspect_command
from distillnet.cli.commands.packing import pack_command, unpack_command
from distillnet.cli.commands.reporting import report_command
from distillnet.cli.commands.reproducing import reproduce
from distillnet.cli.commands.studio import studio_command
from distillnet.cli.commands.timing import timings_command
from distillnet.cli.commands.training import train_command
from distillnet.cli.common import print_run
from distillnet.cli.groups import OUTPUT, GroupedCommand
from distillnet.cli.missions.merging import merge_command
from distillnet.cli.missions.packing import mission_app
from distillnet.cli.missions.planning import plan_command
from distillnet.cli.missions.retargeting import retarget_command
from distillnet.cli.missions.unknowns import unknown_command
from distillnet.cli.options import JsonOpt, OverwriteOpt
from distillnet.cli.output import print_line, progress, warn
from distillnet.cli.process.failures import explain
from distillnet.cli.process.memory import check_address_space, keep_freed_memory
from distillnet.cli.process.signals import ended_like_ctrl_c
from distillnet.cli.process.terminal import open_streams
from distillnet.files import check_writable, new_folder
from distillnet.files.results import DEMO

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Cut a pretrained CNN down to the few classes you need, with no training.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print_line(f"distillnet {version('distillnet')}")
        raise typer.Exit


@app.callback()
def _before_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What every command has: the version, and memory to start with."""
    check_address_space()


@app.command(short_help="Try it out: train and distill a digits network.", cls=GroupedCommand)
def demo(
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="The folder to write.", rich_help_panel=OUTPUT),
    ] = Path("distillnet-demo"),
    overwrite: OverwriteOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Do the whole job in a minute: train a digits network, then distill it for three digits."""
    check_writable(out, DEMO, overwrite=overwrite)
    from distillnet.job.demo import run_demo

    with new_folder(out, DEMO, overwrite=overwrite) as folder, progress() as on_progress:
        done = run_demo(folder, on_progress=on_progress)
    print_run(done, out, as_json)


for name, does, command in (
    ("distill", "Cut a network down to a few classes.", distill_command),
    ("evaluate", "Measure a run's accuracy.", evaluate_command),
    ("export", "Write a run as ONNX, pt2 or C.", export_command),
    ("bench", "Measure latency before and after.", bench_command),
    ("pack", "Pack a network or run into a small file.", pack_command),
    ("unpack", "Restore a packed network or run.", unpack_command),
    ("unknown", "Fit a rule that refuses other images.", unknown_command),
    ("report", "Write a page that shows a run.", report_command),
    ("studio", "Try budgets and images on a page.", studio_command),
    ("inspect", "Show layers, costs, what can be removed.", inspect_command),
    ("collect", "Measure statistics once, for many runs.", collect_command),
    ("merge", "Merge several atlases into one.", merge_command),
    ("plan", "Quote a mission from an atlas.", plan_command),
    ("retarget", "Make a mission from an atlas, without images.", retarget_command),
    ("train", "Train one of the paper's small networks.", train_command),
    ("timings", "Measure how long layers take here.", timings_command),
    ("doctor", "Show versions and paths for a bug report.", doctor_command),
):
    app.command(name, short_help=does, cls=GroupedCommand)(command)
app.add_typer(mission_app, name="mission", short_help="Pack missions, signed, for devices.")

app.add_typer(reproduce, name="reproduce", short_help="Measure what the papers report.")
app.add_typer(explore, name="explore", short_help="Design small networks: the slides' playbook.")


def main() -> None:
    """Run the command line and end the process with a status; see ``failures``.

    That is 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP, as shells have it.
    """
    open_streams()
    keep_freed_memory()
    ended_by: list[int] = []
    try:
        with ended_like_ctrl_c() as ended_by:
            app()
    except SystemExit as leaving:  # --help, wrong options and Ctrl-C are typer's
        if leaving.code == 130:
            warn("terminated" if ended_by else "interrupted")
            _forget_the_interrupt()
            if ended_by:
                leaving.code = 128 + ended_by[0]
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one message
        status, message = explain(error)
        warn(message)
        sys.exit(status)


def _forget_the_interrupt() -> None:
    """Keep Python from ending itself by the signal, which no caller could tell from a crash.

    It does so at the very end whenever Ctrl-C struck inside ``exec`` of a text, as it may during
    any import that makes a dataclass, even though the exception was handled since. It notes that
    in a flag, which the next ``exec`` of a text sets back. (To block the signal would not do: it
    reaches any thread, OpenMP's among them.)
    """
    exec("")
