"""Commands: option parsing, one library call each, and what to print."""

import atexit
import signal
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.classes import ClassTable, numbered_table, parse_mission
from distillnet.cli.common import kept_apart, load, print_run
from distillnet.cli.deploying import bench_command, export_command
from distillnet.cli.distilling import distill_command
from distillnet.cli.failures import explain
from distillnet.cli.memory import keep_freed_memory
from distillnet.cli.options import (
    BatchOpt,
    DataOpt,
    Device,
    DeviceOpt,
    InputSizeOpt,
    JsonOpt,
    MeanOpt,
    ModelArg,
    NamesOpt,
    Runtime,
    SeedOpt,
    StdOpt,
    WeightsOpt,
    WorkersOpt,
)
from distillnet.cli.output import (
    print_json,
    print_line,
    print_table,
    progress,
    warn,
    warn_unreadable,
)
from distillnet.cut.cost import cost
from distillnet.deploy import evaluate_c, evaluate_onnx, open_onnx
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file, new_folder
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse, groups
from distillnet.images import load_batches, open_images
from distillnet.job.demo import run_demo
from distillnet.job.distill import measure_statistics, pick_device
from distillnet.job.distillation import Options
from distillnet.job.runs import (
    RUN_MARKER,
    evaluate_run,
    open_run,
)
from distillnet.models.train import Epoch, save_weights
from distillnet.models.train import train as train_network
from distillnet.models.zoo import ZOO

app = typer.Typer(
    add_completion=False,
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
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it, leave."),
    ] = False,
) -> None:
    """What every command has: nothing but the version."""


@app.command(short_help="A digits network, trained and distilled.")
def demo(
    out: Annotated[Path, typer.Option(help="Where to write the run.")] = Path("distillnet-demo"),
    as_json: JsonOpt = False,
) -> None:
    """The whole job in a minute: train a digits network, distill it for three digits."""
    with new_folder(out, RUN_MARKER) as folder, progress() as on_progress:
        done = run_demo(folder, on_progress=on_progress)
    print_run(done, out, as_json)


@app.command(short_help="Layers, MACs, what can go together.")
def inspect(
    model: ModelArg,
    weights: WeightsOpt = None,
    input_size: InputSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    class_names: NamesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Layers with shapes, parameters and MACs, and which channels can be removed together."""
    with progress():
        loaded = load(model, weights, input_size, mean, std, class_names)
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


@app.command(short_help="Train a network of the paper, to have it.")
def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="zoo:tf_mnist or zoo:tf_cifar.")],
    data: DataOpt,
    out: Annotated[Path, typer.Option(help="Weights file to write (safetensors).")],
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the images.", show_default="the recipe's"),
    ] = None,
    seed: SeedOpt = 0,
    workers: WorkersOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Train a small reference network of the paper from scratch."""
    check_writable(out)
    folders = open_images(data, _trainable_classes(model))
    if folders.val is None:
        raise InputError(
            f"{data} has no test images; expected train/ and test/ or val/ (or .zip), or MNIST's "
            "files"
        )
    with progress() as on_progress:

        def report(epoch: Epoch) -> None:
            on_progress("train", epoch.number, epoch.of)

        result = train_network(
            model,
            folders.train,
            folders.val,
            epochs=epochs,
            seed=seed,
            workers=workers,
            on_epoch=report,
        )
    with new_file(out) as path:
        save_weights(path, result.state_dict)
    warn_unreadable(result.unreadable)
    if as_json:
        print_json(
            {
                "model": model,
                "accuracy": result.test_accuracy,
                "unreadable": len(result.unreadable),
                "seconds": result.seconds,
                "out": str(out),
            }
        )
    else:
        print_line(
            f"{model}: {100 * result.test_accuracy:.2f} % on the test images after "
            f"{result.seconds:.0f} s; weights in {out}"
        )


def _trainable_classes(model: str) -> ClassTable:
    """The class table of a zoo network that has no weights yet."""
    network = ZOO.get(model.removeprefix("zoo:"))
    if network is None or network.class_names is None or not model.startswith("zoo:"):
        raise InputError(
            f"found {model!r}; expected zoo:tf_mnist or zoo:tf_cifar. Other networks come trained: "
            "pass them to distill"
        )
    return numbered_table(len(network.class_names), network.class_names)


@app.command(short_help="Statistics of every neuron, an atlas.")
def collect(
    model: ModelArg,
    data: DataOpt,
    out: Annotated[Path, typer.Option(help="The atlas folder to write.")],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Only these classes, commas between.", show_default="all that have images"
        ),
    ] = None,
    weights: WeightsOpt = None,
    input_size: InputSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    class_names: NamesOpt = None,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    device: DeviceOpt = Device.auto,
    as_json: JsonOpt = False,
) -> None:
    """One pass over the images: per-class statistics of every neuron, an atlas."""
    options = Options(batch_size=batch_size, workers=workers, device=device.value)
    reads = [data, weights, class_names]
    with new_folder(out, "atlas.json", reads) as folder, progress() as on_progress:
        loaded = load(model, weights, input_size, mean, std, class_names)
        mission = parse_mission(classes, loaded.classes) if classes is not None else None
        images = open_images(data, loaded.classes, mission.indices if mission else None).train
        graph = capture_model(loaded)
        atlas, unreadable = measure_statistics(
            graph.to(pick_device(device.value)),
            analyse(graph),
            loaded,
            images,
            folder,
            options,
            on_progress,
        )
    warn_unreadable(unreadable)
    counts = {loaded.classes.names[c]: n for c, n in atlas.counts.items()}
    if as_json:
        print_json({"out": str(out), "counts": counts, "unreadable": len(unreadable)})
    else:
        print_table(f"Atlas {out}", ["class", "images"], [[c, str(n)] for c, n in counts.items()])


app.command("distill", short_help="Cut a network down: the main job.")(distill_command)
app.command("export", short_help="Write it as ONNX, pt2 or C.")(export_command)
app.command("bench", short_help="Time both networks side by side.")(bench_command)


@app.command(short_help="A run's accuracy on a folder of images.")
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: DataOpt,
    runtime: Annotated[Runtime, typer.Option(help="What runs the network.")] = Runtime.torch,
    file: Annotated[
        Path | None,
        typer.Option(
            help="What `export` wrote: a file (onnx), a folder (c).",
            show_default="RUN/model.onnx, RUN/c",
        ),
    ] = None,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Accuracy of a distilled network, whole and per class, on DATA/val or all of DATA."""
    if file is not None and runtime is Runtime.torch:
        raise typer.BadParameter("--file needs --runtime onnx or c; torch reads RUN/model.pt2")
    opened = open_run(run)
    folders = open_images(data, opened.classes, opened.mission.indices)
    with progress() as on_progress:
        images = kept_apart(folders)
        stream = load_batches(
            images,
            opened.preprocessing,
            batch_size=batch_size,
            workers=workers,
            on_image=lambda n: on_progress("evaluate", n, len(images)),
        )
        if runtime is Runtime.onnx:
            result = evaluate_onnx(opened, open_onnx(file or run / "model.onnx"), stream)
        elif runtime is Runtime.c:
            result = evaluate_c(opened, file or run / "c", stream)
        else:
            result = evaluate_run(opened, stream)
    warn_unreadable(stream.unreadable)
    if folders.val is None:
        warn(
            f"{data} has no val/ or test/: these are all of its images. Those that the network was "
            "distilled on flatter it."
        )
    values: dict[str, Any] = {
        "accuracy": result.accuracy,
        "accuracy_open": None,
        "per_class": dict(result.per_class),
        "n": result.n,
        "runtime": runtime.value,
    }
    if as_json:
        print_json(values)
        return
    rows = [[name, f"{100 * share:.1f} %"] for name, share in result.per_class.items()]
    rows.append(["all", f"{100 * result.accuracy:.1f} %"])
    print_table(f"{run} on {result.n} images", ["class", "accuracy"], rows)


def main() -> None:
    """Run the command line and end the process with status 0, 1, 2 or 130; see ``failures``."""
    keep_freed_memory()
    try:
        app()
    except SystemExit as leaving:  # --help, wrong options and Ctrl-C are typer's
        if leaving.code == 130:
            warn("interrupted")
            atexit.register(_leave_with_a_status)
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one message
        status, message = explain(error)
        warn(message)
        sys.exit(status)


def _leave_with_a_status() -> None:
    """Keep Python from ending itself by the signal, which no caller could tell from a crash.

    It does so whenever Ctrl-C struck inside exec(), as it may during any import, even though the
    exception was handled since. A blocked signal does not arrive, and the status stands.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
