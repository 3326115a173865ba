"""The command that trains the small networks of the paper, which nobody ships."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.classes import ClassTable, numbered_table
from distillnet.cli.checks import check_apart, check_folder
from distillnet.cli.groups import IMAGES, OUTPUT, SELDOM
from distillnet.cli.options import JsonOpt, SeedOpt, WorkersOpt
from distillnet.cli.output import print_json, print_line, progress, warn_unreadable
from distillnet.errors import InputError
from distillnet.files import check_writable, new_file
from distillnet.models.names import ZOO_CLASSES

if TYPE_CHECKING:
    from distillnet.models.train import Epoch

__all__ = ["train_command"]


def train_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="zoo:tf_mnist or zoo:tf_cifar.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="DIR/train and DIR/val or DIR/test with a folder for each class, or MNIST's "
            "files.",
            rich_help_panel=IMAGES,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The weights file to write (safetensors).",
            rich_help_panel=OUTPUT,
        ),
    ],
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes over the images.",
            show_default="as many as the network's recipe has",
            rich_help_panel=SELDOM,
        ),
    ] = None,
    seed: SeedOpt = 0,
    workers: WorkersOpt = 0,
    as_json: JsonOpt = False,
) -> None:
    """Train one of the paper's two small reference networks from scratch.

    Under torchrun its processes share the work: torchrun --nproc-per-node 2 -m distillnet train ...
    """
    check_writable(out)
    classes = _trainable_classes(model)
    check_folder(data, "--data", "a folder with train/ and val/ or test/ in it")
    check_apart(out, [data])
    from distillnet.images import open_images

    folders = open_images(data, classes)
    if folders.val is None:
        raise InputError(
            f"{data} has no test images; expected train/ and test/ or val/ (or .zip), or MNIST's "
            "files"
        )
    from distillnet.models.ranks import joined_ranks
    from distillnet.models.train import save_weights
    from distillnet.models.train import train as train_network

    with joined_ranks() as ranks, progress() as on_progress:

        def report(epoch: "Epoch") -> None:
            if ranks.first:
                on_progress("train", epoch.number, epoch.of)

        result = train_network(
            model,
            folders.train,
            folders.val,
            epochs=epochs,
            seed=seed,
            workers=workers,
            on_epoch=report,
            ranks=ranks,
        )
    if not ranks.first:
        return
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
                "processes": ranks.count,
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
    names = ZOO_CLASSES.get(model.removeprefix("zoo:"))
    if names is None or not model.startswith("zoo:"):
        raise InputError(
            f"found {model!r}; expected zoo:tf_mnist or zoo:tf_cifar. Other networks come trained: "
            "pass them to distill"
        )
    return numbered_table(len(names), names)
