"""The command that measures the time of both networks of a run, side by side."""

import json
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.checks import check_run
from distillnet.cli.common import run_folder
from distillnet.cli.groups import NETWORK, OUTPUT, SELDOM, grouped
from distillnet.cli.options import JsonOpt, OriginalOpt, PackedRunArg
from distillnet.cli.output import for_results, print_json, print_line, print_table, progress, warn
from distillnet.cli.process.terminal import printable
from distillnet.files import check_writable, new_file
from distillnet.models.names import check_model
from distillnet.playbook.metrics import HIT_RATE

if TYPE_CHECKING:
    from distillnet.deploy.bench import Timing
    from distillnet.deploy.profile import LayerTime
    from distillnet.job.runs import Run

__all__ = ["BenchRuntime", "bench_command"]


class BenchRuntime(StrEnum):
    """What ``bench`` can time; ``deploy.RUNTIMES``."""

    torch = "torch"
    compiled = "compiled"
    onnx = "onnx"
    openvino = "openvino"
    c = "c"


_REALISED = 0.85  # of the MAC ratio; below it, distilling for time is worth a word
_BUSY = 0.05  # of the processor's time for others; on quiet machines it was 0.01 at most
_WORST = 8  # layers that the profile names


@dataclass(frozen=True, kw_only=True)
class _BenchOptions:
    """What is measured, and for how long."""

    runtime: Annotated[
        list[BenchRuntime] | None,
        typer.Option(
            metavar="|".join(BenchRuntime),
            help="What runs the networks; may be given several times.",
            show_default="all that are installed",
            rich_help_panel=NETWORK,
        ),
    ] = None
    threads: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Threads that each runtime may use.", rich_help_panel=NETWORK
        ),
    ] = 1
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Batch size for throughput, measured besides single images.",
            rich_help_panel=NETWORK,
        ),
    ] = 16
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long to measure in all; writing and compiling the networks takes extra time.",
            rich_help_panel=SELDOM,
        ),
    ] = 10.0
    hit_rate: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Share of weight loads that the cache serves, for the energy estimate.",
            rich_help_panel=SELDOM,
        ),
    ] = HIT_RATE
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Also measure each network's peak memory, in a process of its own.",
            show_default="off",
            rich_help_panel=SELDOM,
        ),
    ] = False
    profile: Annotated[
        bool,
        typer.Option(
            help="Also measure each layer, in ONNX Runtime.",
            show_default="on",
            rich_help_panel=SELDOM,
        ),
    ] = True
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The JSON file to write.",
            show_default="RUN/bench.json",
            rich_help_panel=OUTPUT,
        ),
    ] = None


@grouped
def bench_command(
    run: PackedRunArg, model: OriginalOpt = None, *, how: _BenchOptions, as_json: JsonOpt = False
) -> None:
    """Measure the latency of the original and the distilled network, in alternation.

    The original runs twice: as a plain export, which the ratios refer to, and as distillnet
    writes it.
    """
    check_run(run, packed=True)
    if model is not None:
        check_model(model)
    if run.is_file() and how.out is None:
        raise typer.BadParameter(f"--out is missing; it is required where RUN is a file, {run}")
    path = how.out or run / "bench.json"
    check_writable(path)
    from distillnet.deploy.picture import draw_bars
    from distillnet.job.runs import open_run

    opened = open_run(run_folder(run))
    values = _measure(opened, model, how, printable(run.resolve().name))
    with new_file(path) as work:
        work.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    picture = path.with_suffix(".png")
    drawn = how.out is None and draw_bars(values, picture)  # elsewhere nobody asked for one
    if as_json:
        print_json(values)
        return
    _print_bench(values)
    _print_metrics(values)
    for_time = opened.options.get("element_cost", 0) > 0
    if min(values["realised"].values()) < _REALISED and not for_time:
        print_line(
            "This network was distilled for few multiplications. `distill --optimise time` also "
            "counts what else takes time, and fills the runtimes' blocks: a few more "
            "multiplications, less time."
        )
    print_line(f"Written to {path}" + (f" and {picture}" if drawn else ""))


def _measure(run: "Run", model: str | None, how: _BenchOptions, name: str) -> dict[str, Any]:
    """What bench.json holds of a run of this name."""
    from distillnet.deploy import available_runtimes, distilled_network, original_networks
    from distillnet.deploy.bench import Settings, bench_json, time_networks, written_for
    from distillnet.deploy.profile import profile_onnx
    from distillnet.deploy.runtimes import file_format
    from distillnet.playbook.meters import peak_macs_per_s
    from distillnet.playbook.metrics import add_metrics

    threads = how.threads
    runtimes = [entry.value for entry in how.runtime or ()] or list(available_runtimes(threads))
    for runtime in runtimes:
        file_format(runtime, threads)  # says what is missing before anything is measured
    settings = Settings(threads, how.batch, how.seconds, memory=how.memory)
    with for_results():
        plain, original, own_weights = original_networks(run, model)
    if not own_weights:
        warn("The original's weights are not available; random ones, which take as long, are used.")
    networks = (plain, original, distilled_network(run))
    mac_ratio = float(run.result["mac_ratio"])
    with progress() as on_progress, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        timing = time_networks(
            networks, runtimes, folder, settings, on_progress, go_on=not how.runtime
        )
        _warn_of(timing)
        values = bench_json(timing, mac_ratio, settings, name)
        macs = {"original": "baseline", "distilled": "distilled"}
        macs_of = {network: int(run.result[part]["macs"]) for network, part in macs.items()}
        add_metrics(values, macs_of, peak_macs_per_s(threads), how.hit_rate)
        if how.profile and "onnx" in timing.time_ratio:
            before, after = (
                profile_onnx(written_for(network, "onnx", folder), folder, threads)
                for network in networks[1:]
            )
            values["layers"] = _layers_json(before, after, mac_ratio)
    return values


def _warn_of(timing: "Timing") -> None:
    for runtime, why in timing.left_out.items():
        if runtime not in timing.time_ratio:
            warn(f"{runtime} cannot run these networks here, and is left out ({why}).")
            continue
        warn(
            f"{runtime} cannot run a plain export of the original ({why}); its ratio refers to "
            "the original as distillnet writes it."
        )
    if timing.busy_share is not None and timing.busy_share > _BUSY:
        warn(
            f"Other programs used the processor for {timing.busy_share:.0%} of the time. They "
            "interrupt the longer runs, so these ratios may be much too large; stop them and "
            "measure again."
        )


def _layers_json(
    before: "tuple[LayerTime, ...]", after: "tuple[LayerTime, ...]", mac_ratio: float
) -> dict[str, Any]:
    from distillnet.deploy.profile import held_back

    def listed(layers: "tuple[LayerTime, ...]") -> list[dict[str, Any]]:
        return [{"name": t.name, "ms": t.ms, "macs": t.macs} for t in layers]

    held = [{"name": name, "ms": ms} for name, ms in held_back(before, after, mac_ratio)]
    return {"original": listed(before), "distilled": listed(after), "held_back": held}


def _print_metrics(values: dict[str, Any]) -> None:
    estimate = values["energy"]["estimate_mj"]
    print_table(
        f"Frames, and the share of this machine's {values['peak_gmacs_per_s']:.0f} GMAC/s",
        ["runtime", "network", "batch", "frames/s", "of the peak", "mJ estimated", "mJ measured"],
        [
            [
                entry["runtime"],
                entry["network"],
                str(entry["batch"]),
                f"{entry['frames_per_s']:,.1f}",
                f"{100 * entry['share_of_peak']:.0f} %",
                f"{estimate[entry['network']]:.2f}",
                "-" if entry["joules"] is None else f"{1e3 * entry['joules']:.1f}",
            ]
            for entry in values["entries"]
        ],
        2,
    )
    print_line(
        f"The peak is a float32 convolution's. Energy is estimated for a chip, not for this "
        f"machine: {values['energy']['assumptions']}; {100 * values['energy']['hit_rate']:g} % of "
        "the operands in the cache (Eq. 11). Measured: the processor's own counter (RAPL), "
        "including everything else that runs."
    )


def _print_bench(values: dict[str, Any]) -> None:
    rows = []
    with_peak = any(entry["peak_mb"] is not None for entry in values["entries"])
    for entry in values["entries"]:
        peak = [] if not with_peak else ["-" if (p := entry["peak_mb"]) is None else f"{p:.0f}"]
        height, width = entry["input_size"]
        rows.append(
            [
                entry["runtime"],
                f"{entry['network']}, {entry['written_by']}",
                f"{entry['batch']} x {height} x {width}",
                f"{entry['median_ms']:.2f}",
                f"{entry['p05_ms']:.2f} to {entry['p95_ms']:.2f}",
                f"{entry['bytes'] / 1e6:.2f}",
                *peak,
            ]
        )
    print_table(
        f"{values['machine']}, threads used: {values['threads']}, float32",
        ["runtime", "network", "images", "median ms", "5 to 95 %", "MB", *["peak MB"] * with_peak],
        rows,
        2,
    )
    ratio = values["mac_ratio"]
    print_table(
        f"How much of the MAC ratio of {ratio:.2f} became time saved (one image at a time)",
        ["runtime", "time ratio", "realised"],
        [
            [name, f"{time:.2f} x", f"{100 * values['realised'][name]:.0f} %"]
            for name, time in values["time_ratio"].items()
        ],
        1,
    )
    if "layers" in values:
        print_table(
            "What takes longer than promised, in ONNX Runtime",
            ["layer or kind", "ms beyond"],
            [[e["name"], f"{e['ms']:.3f}"] for e in values["layers"]["held_back"][:_WORST]],
            1,
        )
