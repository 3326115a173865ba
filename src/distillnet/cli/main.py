"""Commands: option parsing, one library call each, and what to print."""

import atexit
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from distillnet.atlas import Atlas, open_atlas
from distillnet.capture import capture
from distillnet.channels import analyse, groups
from distillnet.classes import ClassTable, numbered_table, parse_mission
from distillnet.cli.failures import explain
from distillnet.cli.options import (
    BatchOpt,
    DataOpt,
    Device,
    DeviceOpt,
    InputSizeOpt,
    JsonOpt,
    MeanOpt,
    Method,
    ModelArg,
    NamesOpt,
    Runtime,
    ScoreName,
    SeedOpt,
    StdOpt,
    WeightsOpt,
    WorkersOpt,
)
from distillnet.cli.output import (
    print_json,
    print_line,
    print_result,
    print_table,
    progress,
    warn,
    warn_unreadable,
)
from distillnet.cost import cost
from distillnet.demo import run_demo
from distillnet.distill import (
    Distillation,
    Options,
    distill,
    measure_statistics,
    pick_device,
)
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file, new_folder
from distillnet.images import Folders, ImageSet, load_batches, open_images
from distillnet.models import Model, load_model
from distillnet.partition import split_images
from distillnet.runs import (
    RUN_MARKER,
    evaluate_run,
    open_run,
    result_json,
    take_from_front,
    write_run,
)
from distillnet.search import Budget
from distillnet.train import Epoch, save_weights
from distillnet.train import train as train_network
from distillnet.zoo import ZOO

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Cut a pretrained CNN down to the few classes you need, with no training.",
)


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"found {option} {text!r}; expected numbers with commas between, such as 0.5,0.5,0.5"
        ) from None


def _load(
    model: str,
    weights: Path | None,
    input_size: int | None,
    mean: str | None,
    std: str | None,
    class_names: Path | None,
) -> Model:
    return load_model(
        model,
        weights=weights,
        input_size=input_size,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        class_names=class_names,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to write the run.")] = Path("distillnet-demo"),
    as_json: JsonOpt = False,
) -> None:
    """The whole job in a minute: train a digits network, distill it for three digits."""
    with new_folder(out, RUN_MARKER) as folder, progress() as on_progress:
        done = run_demo(folder, on_progress=on_progress)
    _print_run(done, out, as_json)


@app.command()
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
        loaded = _load(model, weights, input_size, mean, std, class_names)
        how = loaded.preprocessing
        graph = capture(loaded.module, how.input_size, channels=len(how.mean))
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


@app.command()
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


@app.command()
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
    with new_folder(out, "atlas.json") as folder, progress() as on_progress:
        loaded = _load(model, weights, input_size, mean, std, class_names)
        mission = parse_mission(classes, loaded.classes) if classes is not None else None
        images = open_images(data, loaded.classes, mission.indices if mission else None).train
        how = loaded.preprocessing
        graph = capture(loaded.module, how.input_size, channels=len(how.mean))
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


@app.command("distill")
def distill_command(
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE (runs the file) or "
            "FILE.pt2; none with --from.",
            show_default="none",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images: DIR/<class>/<image>, or train/ and val/ of that form.",
            show_default="none, needed without --from",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="The mission: class names or indices with commas between.",
            show_default="none, needed without --from",
        ),
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Take the network for another --max-loss from a run's front, without a search.",
            show_default="none",
        ),
    ] = None,
    weights: WeightsOpt = None,
    val: Annotated[
        Path | None,
        typer.Option(
            help="Images for the final figures only.",
            show_default="DATA/val beside DATA/train, else a held-out fifth of each class",
        ),
    ] = None,
    search: Annotated[
        Path | None,
        typer.Option(help="Images for the search.", show_default="half of DATA's"),
    ] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(help="Statistics that `collect` wrote.", show_default="collect them"),
    ] = None,
    max_loss: Annotated[
        float, typer.Option(help="Closed-set accuracy that may be lost, in percentage points.")
    ] = 1.0,
    max_class_loss: Annotated[
        float | None,
        typer.Option(
            help="The same for the class that loses most.", show_default="3 times --max-loss"
        ),
    ] = None,
    method: Annotated[Method, typer.Option(help="How to search.")] = Method("best"),
    score: Annotated[
        ScoreName | None,
        typer.Option(
            help="What channels or neurons are ranked by; l1 and random are baselines.",
            show_default="surgeon for best, heat for paper",
        ),
    ] = None,
    round_to: Annotated[
        int,
        typer.Option(min=1, help="Round each layer's channels up to a multiple (best)."),
    ] = 1,
    param_weight: Annotated[
        float,
        typer.Option(min=0, help="How much all parameters count beside all MACs (best)."),
    ] = 0.1,
    complete_only: Annotated[
        bool,
        typer.Option(
            "--complete-only",
            help="Remove whole channels only (best always does).",
            show_default="off",
        ),
    ] = False,
    keep_input_size: Annotated[
        bool,
        typer.Option(
            "--keep-input-size",
            help="Never lower the input's side; implied by --input-size (paper never does).",
            show_default="off",
        ),
    ] = False,
    target_macs: Annotated[
        float | None,
        typer.Option(
            help="A MAC ratio to reach instead of a loss to respect.", show_default="none"
        ),
    ] = None,
    target_params: Annotated[
        float | None,
        typer.Option(help="A parameter ratio to reach instead.", show_default="none"),
    ] = None,
    input_size: InputSizeOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    class_names: NamesOpt = None,
    seed: SeedOpt = 0,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    device: DeviceOpt = Device.auto,
    as_json: JsonOpt = False,
) -> None:
    """Cut a network down to a few classes within an accuracy budget; the main job."""
    budget = Budget(max_loss, target_macs, target_params, max_class_loss)
    if from_run is not None:
        with new_folder(out, RUN_MARKER) as folder:
            result = take_from_front(open_run(from_run), budget, folder)
        if as_json:
            print_json(result)
        else:
            print_result(result)
            print_line(f"Written to {out}")
        return
    if model is None or data is None or classes is None:
        given = {"MODEL": model, "--data": data, "--classes": classes}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise typer.BadParameter(
            f"{missing} missing; expected all of MODEL, --data and --classes, or --from RUN to "
            "take another network from an earlier run"
        )
    options = Options(
        budget=budget,
        method=method.value,
        score=score.value if score else None,
        keep_input_size=keep_input_size or input_size is not None,
        round_to=round_to,
        param_weight=param_weight,
        complete_only=complete_only,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
        device=device.value,
    )
    sources = {"data": data, "val": val, "search": search, "atlas": atlas}
    sources |= {"weights": weights, "class_names": class_names}
    with new_folder(out, RUN_MARKER) as folder, progress() as on_progress:
        loaded = _load(model, weights, input_size, mean, std, class_names)
        mission = parse_mission(classes, loaded.classes)
        statistics: Atlas | None = open_atlas(atlas) if atlas else None
        images = split_images(
            open_images(data, loaded.classes, mission.indices),
            val=_kept_apart(open_images(val, loaded.classes, mission.indices)) if val else None,
            search=open_images(search, loaded.classes, mission.indices).train if search else None,
            atlas=statistics,
            seed=seed,
        )
        if statistics is None:
            (folder / "atlas").mkdir()
        done = distill(
            loaded,
            mission,
            images,
            folder / "atlas",
            options,
            atlas=statistics,
            on_progress=on_progress,
        )
        write_run(
            done, folder, {name: str(path) if path else None for name, path in sources.items()}
        )
    _print_run(done, out, as_json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data: DataOpt,
    runtime: Annotated[Runtime, typer.Option(help="What runs the network.")] = Runtime.torch,
    batch_size: BatchOpt = 32,
    workers: WorkersOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Accuracy of a distilled network, whole and per class, on DATA/val or all of DATA."""
    opened = open_run(run)
    folders = open_images(data, opened.classes, opened.mission.indices)
    with progress() as on_progress:
        images = _kept_apart(folders)
        stream = load_batches(
            images,
            opened.preprocessing,
            batch_size=batch_size,
            workers=workers,
            on_image=lambda n: on_progress("evaluate", n, len(images)),
        )
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


def _kept_apart(folders: Folders) -> ImageSet:
    """The images to report on: those of val/ or test/ where there is one, else all."""
    return folders.val or folders.train


def _print_run(done: Distillation, out: Path, as_json: bool) -> None:
    budget = done.options.budget
    warn_unreadable(done.unreadable)
    if not done.found.met:
        warn(
            f"Nothing could be removed within {budget.max_loss_pp:g} points on "
            f"{done.n_images['search']} search images; this is the original network with its "
            "scores cut to the mission. More search images or a larger --max-loss may help."
        )
    for option, wanted, reached in (
        ("--target-macs", budget.target_macs, done.mac_ratio),
        ("--target-params", budget.target_params, done.param_ratio),
    ):
        if wanted is not None and reached < wanted:
            warn(f"{option} {wanted:g} cannot be reached by removing channels; got {reached:.2f}.")
    if as_json:
        print_json(result_json(done))
    else:
        print_result(result_json(done))
        print_line(f"Written to {out}")


def main() -> None:
    """Run the command line and end the process with status 0, 1, 2 or 130; see ``failures``."""
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
