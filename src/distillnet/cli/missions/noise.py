"""What `collect --noise` and `merge` do with atlases of sums that have noise in them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.cli.groups import IMAGES
from distillnet.cli.output import print_json, print_table, progress, warn, warn_unreadable
from distillnet.errors import InputError
from distillnet.files import new_folder
from distillnet.files.results import ATLAS

if TYPE_CHECKING:
    from distillnet.images import ImageSet
    from distillnet.job.options import Options
    from distillnet.missions.noise import Noise
    from distillnet.models import Model

__all__ = ["DeltaOpt", "NoiseOpt", "check_noise", "collect_with_noise", "print_noisy", "warn_noise"]

_DELTA = 1e-6
_MOST = 1000.0

NoiseOpt = Annotated[
    float | None,
    typer.Option(
        metavar="EPSILON",
        help="Write only sums, with Gaussian noise for this epsilon per image: the mean of each "
        "channel, and no samples. `distill --method paper --atlas` takes it, `retarget` does not.",
        show_default="no noise",
        rich_help_panel=IMAGES,
    ),
]
DeltaOpt = Annotated[
    float | None,
    typer.Option(
        metavar="DELTA",
        help="With --noise: its delta, far below one in the number of images.",
        show_default=f"{_DELTA:g}",
        rich_help_panel=IMAGES,
    ),
]


def check_noise(
    epsilon: float | None, delta: float | None, samples: int | None, *, resume: bool
) -> None:
    """Raise InputError where options do not go together."""
    if epsilon is None:
        if delta is not None:
            raise InputError(f"found --delta {delta:g} without --noise; give an epsilon, too")
        return
    if not 0 < epsilon <= _MOST:
        raise InputError(f"found --noise {epsilon:g}; expected more than 0, at most {_MOST:g}")
    if delta is not None and not 1e-12 <= delta <= 0.1:
        raise InputError(f"found --delta {delta:g}; expected 1e-12 to 0.1")
    if samples is not None:
        raise InputError(
            "found --noise and --samples; samples are values of single images, which no noise of "
            "this kind protects. Leave out one of them"
        )
    if resume:
        raise InputError(
            "found --noise and --resume; such a pass keeps nothing until its noise is added. "
            "Leave out --resume"
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "found --noise under torchrun; expected one process. Collect parts one by one and "
            "`merge` them, each with noise of its own"
        )


def collect_with_noise(
    model: "Model",
    images: "ImageSet",
    out: Path,
    reads: Sequence[Path | None],
    epsilon: float,
    delta: float | None,
    options: "Options",
    min_images: int,
    *,
    as_json: bool,
) -> None:
    """Write an atlas of sums with noise, and say what is in it."""
    from distillnet.missions.noise import collect_noisy, read_noise

    with new_folder(out, ATLAS, reads) as folder, progress() as on_progress:
        done = collect_noisy(
            model,
            images,
            folder,
            epsilon,
            _DELTA if delta is None else delta,
            options,
            min_images=min_images,
            on_progress=on_progress,
        )
        note = read_noise(folder)
    warn_unreadable(done.unreadable)
    for name in done.left_out:
        warn(f"{name} has fewer images than --min-images by its noisy count, and was left out")
    names = model.classes.names
    print_noisy(out, {names[c]: n for c, n in done.atlas.counts.items()}, note, as_json)


def print_noisy(out: Path, counts: Mapping[str, int], noise: "Noise | None", as_json: bool) -> None:
    """Say how many images an atlas is of, by its noisy counts, and what noise is in it."""
    if noise is None:
        raise AssertionError("an atlas of sums without its note")
    if as_json:
        about = {
            "epsilon": noise.epsilon,
            "delta": noise.delta,
            "parts": noise.parts,
            "deviation_images": noise.deviation,
        }
        print_json({"out": str(out), "counts": dict(counts), "noise": about})
        return
    rows = [[name, f"{n} ± {noise.deviation:.1f}"] for name, n in counts.items()]
    of = "" if noise.parts == 1 else f", {noise.parts} parts"
    print_table(f"Atlas {out}, sums with {noise}{of}", ["class", "images"], rows)


def warn_noise(atlas: Path, noise: "Noise", score: str | None) -> None:
    """Say what such an atlas cannot tell.

    Raises:
        InputError: a score needs variances, which it has none of.
    """
    if score in ("variance", "sensitivity"):
        raise InputError(
            f"found --score {score}; {atlas} holds sums with {noise}, and no variances. Use the "
            "score heat"
        )
    warn(
        f"{atlas} holds sums with {noise}: means of channels with random errors. It does not "
        "say which images it was made from; search and val images should be others"
    )
