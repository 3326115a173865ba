"""Carrying out the jobs of a table, one after the other; what is measured is kept at once."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distillnet.classes import numbered_table
from distillnet.deploy.bench import Settings, time_networks
from distillnet.deploy.networks import distilled_network, original_network
from distillnet.errors import InputError
from distillnet.files import new_file
from distillnet.images import open_images
from distillnet.job.calls import distill
from distillnet.job.distillation import Options
from distillnet.job.results import result_json
from distillnet.job.runs import write_run
from distillnet.models import Model, load_model
from distillnet.models.names import ZOO_CLASSES
from distillnet.models.train import save_weights, train
from distillnet.reproduce.jobs import Job
from distillnet.search import Budget

__all__ = ["Row", "measure", "networks_at_hand", "read_rows", "write_rows"]

_KEPT = ("mac_ratio", "mac_ratio_with_partial", "inception_mac_ratio", "param_ratio", "loss_pp",
         "worst_class_loss_pp", "loss_ci95_pp", "seconds")  # fmt: skip
_FOLDERS = {"googlenet": "imagenette", "mnist": ".", "cifar": "cifar10"}
_MODELS = {"mnist": "zoo:tf_mnist", "cifar": "zoo:tf_cifar", "googlenet": "zoo:bvlc_googlenet"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """A job and its figures, those of ``result.json``; ``time_ratio`` where it was timed."""

    job: Job
    figures: Mapping[str, object]
    weights_sha256: str


def networks_at_hand(
    jobs: Sequence[Job],
    data: Path,
    out: Path,
    *,
    epochs: int | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> dict[str, Model]:
    """The networks that jobs cut down; TensorFlow's two are trained where ``out`` has none yet."""
    models = {}
    for name in dict.fromkeys(job.network for job in jobs):
        weights = data / "weights" / "bvlc_googlenet.safetensors"
        if name != "googlenet":
            weights = out / f"{_MODELS[name].removeprefix('zoo:')}.safetensors"
            known = ZOO_CLASSES[_MODELS[name].removeprefix("zoo:")] or ()
            if not weights.exists():
                folders = open_images(data / _FOLDERS[name], numbered_table(len(known), known))
                if folders.val is None:
                    raise InputError(f"{data / _FOLDERS[name]} has no test images; expected them")
                trained = train(
                    _MODELS[name], folders.train, folders.val, epochs=epochs,
                    on_epoch=lambda e: on_progress("train", e.number, e.of),
                )  # fmt: skip
                with new_file(weights) as work:
                    save_weights(work, trained.state_dict)
        models[name] = load_model(_MODELS[name], weights=weights)
    return models


def measure(
    job: Job, model: Model, data: Path, on_progress: Progress = lambda stage, done, of: None
) -> Row:
    """Distill a network as a job says, on the images below ``data``."""
    options = Options(budget=Budget(max_loss_pp=job.max_loss_pp), method=job.method)
    done = distill(
        model,
        list(job.classes),
        data / _FOLDERS[job.network],
        options=options,
        on_progress=on_progress,
    )
    result = result_json(done)
    figures = {name: result[name] for name in _KEPT}
    if job.timed:
        with tempfile.TemporaryDirectory() as folder:
            run = write_run(done, Path(folder) / "run")
            networks = (original_network(run)[0], distilled_network(run))
            timing = time_networks(networks, ["c"], Path(folder), Settings(batch=1, seconds=3))
        figures["time_ratio"] = timing.time_ratio["c"]
    return Row(job, figures, model.weights_sha256)


def read_rows(path: Path) -> list[Row]:
    """The rows that ``write_rows`` wrote; none where there is no file yet."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            value = json.loads(line)
            job = {**value["job"], "classes": tuple(value["job"]["classes"])}
            rows.append(Row(Job(**job), value["figures"], value["weights_sha256"]))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} holds a line that is no measured row ({error}); remove it to begin anew"
            ) from error
    return rows


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write all rows anew, so that whatever happens leaves the file as it was."""
    with new_file(path) as work:
        work.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
