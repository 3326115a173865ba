"""A table from beginning to end: what was measured before is kept, the rest is measured."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from distillnet.errors import InputError
from distillnet.files import new_file
from distillnet.reproduce.jobs import Asked, jobs_of
from distillnet.reproduce.measuring import measure, networks_at_hand, read_rows, write_rows
from distillnet.reproduce.tables import Line, lines_of

__all__ = ["reproduce_table"]


def reproduce_table(
    asked: Asked,
    data: Path,
    out: Path,
    *,
    epochs: int | None = None,
    on_progress: Callable[[str, int, int], None] = lambda stage, done, of: None,
) -> tuple[Line, ...]:
    """Measure a table, each job kept in ``out/rows.jsonl`` as it is done, and write ``table.json``.

    Args:
        data: a folder with the images and weights that the table needs.
        epochs: of the training of networks that ``out`` has none of; None: of their recipes.

    Raises:
        InputError: images of too few classes, or sizes that the paper does not have.
    """
    if strange := sorted(set(asked.sizes) - set(Asked(asked.table).sizes)):
        raise InputError(f"found --size {strange[0]}, expected 5, 10 or 15, as the paper has them")
    jobs = jobs_of(asked, _class_folders(data) if asked.table == "table2" else ())
    if not jobs:
        raise InputError(f"{data}/imagenette has too few classes; expected at least 5")
    out.mkdir(parents=True, exist_ok=True)
    models = networks_at_hand(jobs, data, out, epochs=epochs, on_progress=on_progress)
    rows = read_rows(out / "rows.jsonl")
    known = {(row.job, row.weights_sha256): row for row in rows}
    for i, job in enumerate(jobs):
        model = models[job.network]
        if (job, model.weights_sha256) not in known:
            row = measure(job, model, data, on_progress)
            known[job, model.weights_sha256] = row
            rows.append(row)
            write_rows(rows, out / "rows.jsonl")
        on_progress(asked.table, i + 1, len(jobs))
    lines = tuple(lines_of([known[job, models[job.network].weights_sha256] for job in jobs]))
    with new_file(out / "table.json") as work:
        table = {"table": asked.table, "method": asked.method, "max_loss_pp": asked.max_loss_pp}
        text = json.dumps(
            table | {"rows": [asdict(line) for line in lines]}, indent=1, allow_nan=False
        )
        work.write_text(text + "\n", encoding="utf-8")
    return lines


def _class_folders(data: Path) -> list[str]:
    parts = [p for p in (data / "imagenette" / "train", data / "imagenette") if p.is_dir()]
    if not parts:
        raise InputError(f"{data} has no imagenette/; expected a folder of a folder for each class")
    return sorted(path.name for path in parts[0].iterdir() if path.is_dir())
