"""The command that times both networks of a run side by side."""

import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.cli.options import JsonOpt, OriginalOpt, RunArg
from distillnet.cli.output import print_json, print_line, print_table, progress, warn
from distillnet.deploy import (
    RUNTIMES,
    available_runtimes,
    distilled_network,
    original_network,
)
from distillnet.deploy.bench import Settings, bench_json, time_networks
from distillnet.deploy.picture import draw_bars
from distillnet.deploy.profile import LayerTime, held_back, profile_onnx
from distillnet.deploy.runtimes import file_format
from distillnet.files import new_file
from distillnet.job.runs import open_run

__all__ = ["bench_command"]

BenchRuntime = StrEnum("BenchRuntime", {name: name for name in RUNTIMES})  # type: ignore[misc]

_REALISED = 0.85  # of the MAC ratio; below it, distilling for time is worth a word
_WORST = 8  # layers that the profile names


def bench_command(
    run: RunArg,
    model: OriginalOpt = None,
    runtime: Annotated[
        list[BenchRuntime] | None,
        typer.Option(help="What runs the networks; may be repeated.", show_default="all installed"),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    batch: Annotated[
        int, typer.Option(min=1, help="Images at once for throughput, beside 1.")
    ] = 16,
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to measure each pair of networks.")
    ] = 5.0,
    profile: Annotated[
        bool, typer.Option(help="Times by layer in ONNX Runtime as well.", show_default="on")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="The JSON file to write.", show_default="RUN/bench.json")
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Time the original and the distilled network side by side, in turns."""
    opened = open_run(run)
    runtimes = [entry.value for entry in runtime or ()] or list(available_runtimes(threads))
    for name in runtimes:
        file_format(name, threads)  # says what is missing before anything is measured
    settings = Settings(threads, batch, seconds)
    original, own_weights = original_network(opened, model)
    if not own_weights:
        warn("The original's weights are not at hand; random ones take as long.")
    networks = (original, distilled_network(opened))
    mac_ratio = float(opened.result["mac_ratio"])
    path = out or run / "bench.json"
    with progress() as on_progress, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timing = time_networks(networks, runtimes, folder, settings, on_progress)
        values = bench_json(timing, mac_ratio, settings)
        if profile and "onnx" in runtimes:
            before, after = (
                profile_onnx(folder / f"{network.name}.onnx", folder, threads)
                for network in networks
            )
            values["layers"] = _layers_json(before, after, mac_ratio)
    with new_file(path) as work:
        work.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    picture = path.with_suffix(".png")
    drawn = draw_bars(values, picture)
    if as_json:
        print_json(values)
        return
    _print_bench(values)
    for_time = opened.options.get("element_cost", 0) > 0 and opened.options.get("round_to", 1) > 1
    if min(values["realised"].values()) < _REALISED and not for_time:
        print_line(
            "This network was distilled for few multiplications. `distill --optimise latency "
            "--round-to auto` also counts what else takes time on this machine, and fills the "
            "runtimes' blocks: a few more multiplications, less time."
        )
    print_line(f"Written to {path}" + (f" and {picture}" if drawn else ""))


def _layers_json(
    before: tuple[LayerTime, ...], after: tuple[LayerTime, ...], mac_ratio: float
) -> dict[str, Any]:
    def listed(layers: tuple[LayerTime, ...]) -> list[dict[str, Any]]:
        return [{"name": t.name, "ms": t.ms, "macs": t.macs} for t in layers]

    held = [{"name": name, "ms": ms} for name, ms in held_back(before, after, mac_ratio)]
    return {"original": listed(before), "distilled": listed(after), "held_back": held}


def _print_bench(values: dict[str, Any]) -> None:
    rows = []
    pairs = zip(values["entries"][::2], values["entries"][1::2], strict=True)
    for before, after in pairs:
        for entry in (before, after):
            last = ""
            if entry is after:
                last = f"{before['median_ms'] / after['median_ms']:.2f} x"
            peak = entry["peak_mb"]
            rows.append(
                [
                    entry["runtime"],
                    entry["network"],
                    str(entry["batch"]),
                    f"{entry['median_ms']:.2f}",
                    f"{entry['p05_ms']:.2f} to {entry['p95_ms']:.2f}",
                    f"{entry['bytes'] / 1e6:.2f}",
                    "-" if peak is None else f"{peak:.0f}",
                    last,
                ]
            )
    print_table(
        f"{values['machine']}, threads used: {values['threads']}",
        ["runtime", "network", "batch", "median ms", "5 to 95 %", "MB", "peak MB", "faster"],
        rows,
        2,
    )
    ratio = values["mac_ratio"]
    print_table(
        f"Of a MAC ratio of {ratio:.2f}, how much became time (one image at once)",
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
