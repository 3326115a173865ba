"""A table from beginning to end: what was measured before is kept, the rest is measured."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from distillnet.errors import InputError
from distillnet.files import new_file
from distillnet.images import class_folders
from distillnet.models import Model
from distillnet.reproduce.jobs import OF_IMAGENET, Asked, Job, jobs_of
from distillnet.reproduce.measuring import measure, network_at_hand, read_rows, write_rows
from distillnet.reproduce.pictures import draw_table
from distillnet.reproduce.related import class_directions, related_sets
from distillnet.reproduce.tables import Line, lines_of

__all__ = ["reproduce_table"]

_GOOGLENET = "googlenet"

Progress = Callable[[str, int, int], None]
OnLine = Callable[[Line, bool], None]


def reproduce_table(
    asked: Asked,
    data: Path,
    out: Path,
    *,
    images: Path | None = None,
    epochs: int | None = None,
    on_progress: Progress = lambda stage, done, of: None,
    on_line: OnLine = lambda line, known: None,
) -> tuple[Line, ...]:
    """Measure a table, each job kept in ``out/rows.jsonl`` as it is done.

    ``best.json`` or ``paper.json``, after the method, and, where matplotlib is installed, a picture
    beside it have the lines.

    Args:
        data: a folder with the images and weights that the table needs.
        images: of ImageNet's classes, a folder each; None: ``data/imagenette``.
        epochs: of the training of networks that ``out`` has none of; None: of their recipes.
        on_line: called with what each job gives, and whether ``out`` had it already.

    Raises:
        InputError: images of too few classes, or sizes that the paper does not have.
    """
    images = images or data / "imagenette"
    with _kept(out):
        return _reproduced(asked, data, out, images, epochs, on_progress, on_line)


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """A folder that is gone again where nothing came into it."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _reproduced(
    asked: Asked,
    data: Path,
    out: Path,
    images: Path,
    epochs: int | None,
    on_progress: Progress,
    on_line: OnLine,
) -> tuple[Line, ...]:
    models: dict[str, Model] = {}

    def model_of(name: str) -> Model:
        if name not in models:
            models[name] = network_at_hand(name, data, out, epochs=epochs, on_progress=on_progress)
        return models[name]

    jobs = _jobs(asked, images, model_of)
    rows = read_rows(out / "rows.jsonl")
    known = {(row.job, row.weights_sha256): row for row in rows}
    found = []
    on_progress("rows", 0, len(jobs))
    for i, job in enumerate(jobs):
        model = model_of(job.network)
        key = job, model.weights_sha256
        if not (kept := key in known):
            known[key] = measure(job, model, data, images, on_progress)
            rows.append(known[key])
            write_rows(rows, out / "rows.jsonl")
        found.append(known[key])
        on_line(lines_of(found[-1:])[0], kept)
        on_progress("rows", i + 1, len(jobs))
    lines = tuple(lines_of(found))
    with new_file(out / f"{asked.method}.json") as work:
        table = {"table": asked.table, "method": asked.method, "max_loss_pp": asked.max_loss_pp,
                 "per_class": asked.per_class}  # fmt: skip
        text = json.dumps(
            table | {"rows": [asdict(line) for line in lines]}, indent=1, allow_nan=False
        )
        work.write_text(text + "\n", encoding="utf-8")
    draw_table(f"{asked.table}, --method {asked.method}", lines, out / f"{asked.method}.png")
    return lines


def _jobs(asked: Asked, images: Path, model_of: Callable[[str], Model]) -> tuple[Job, ...]:
    if strange := sorted(set(asked.sizes) - set(Asked(asked.table).sizes)):
        raise InputError(f"found --size {strange[0]}, expected 5, 10 or 15, as the paper has them")
    if asked.table not in OF_IMAGENET:
        return jobs_of(asked, ())
    if not images.is_dir():
        raise InputError(f"{images} is no folder; expected one with a folder for each class")
    model = model_of((asked.networks or (_GOOGLENET,))[0])
    names = class_folders(images, model.classes)
    indices = {name: model.classes.lookup(name) for name in names}
    known = {name: index for name, index in indices.items() if index is not None}
    related: tuple[tuple[str, ...], ...] = ()
    if asked.table == "table1" and not asked.classes:
        if len(known) <= min(asked.sizes):
            raise InputError(
                f"{images} has {len(known)} classes; expected more than {min(asked.sizes)}, among "
                "which some are related. Or name the set with --classes"
            )
        related = tuple(
            drawn
            for size in asked.sizes
            if size < len(known)
            for drawn in related_sets(class_directions(model), known, size, asked.repeat)
        )
    jobs = jobs_of(asked, tuple(known), related)
    if not jobs:
        raise InputError(f"{images} has {len(known)} classes; expected at least {min(asked.sizes)}")
    return jobs
