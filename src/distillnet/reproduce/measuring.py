"""Carrying out the jobs of a table, one after the other; what is measured is kept at once."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distillnet.classes import numbered_table, parse_mission
from distillnet.deploy.bench import Settings, time_networks
from distillnet.deploy.networks import distilled_network, original_network
from distillnet.errors import InputError
from distillnet.files import new_file
from distillnet.images import limit, open_images
from distillnet.job.calls import distill
from distillnet.job.distillation import Distillation, Options
from distillnet.job.partition import split_images
from distillnet.job.results import finite_json, result_json
from distillnet.job.runs import write_run
from distillnet.models import Model, load_model
from distillnet.models.names import ZOO_CLASSES
from distillnet.models.train import save_weights, train
from distillnet.reproduce.jobs import Job
from distillnet.reproduce.modules import compression_of_modules, macs_of_modules
from distillnet.search import Budget

__all__ = ["Row", "measure", "network_at_hand", "read_rows", "write_rows"]

_KEPT = ("mac_ratio", "mac_ratio_with_partial", "inception_mac_ratio", "param_ratio", "loss_pp",
         "worst_class_loss_pp", "loss_ci95_pp", "seconds", "n_images", "peak_rss_mb")  # fmt: skip
_OF_NETWORK = ("input_size", "params", "macs", "accuracy", "accuracy_open")
_FOLDERS = {"mnist": ".", "cifar": "cifar10"}
_MODELS = {"mnist": "zoo:tf_mnist", "cifar": "zoo:tf_cifar", "googlenet": "zoo:bvlc_googlenet",
           "squeezenet": "torchvision:squeezenet1_0"}  # fmt: skip

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """A job and its figures: those of ``result.json``, and where they apply

    "modules" and "module_macs" of GoogLeNet (before and after), "time_ratio" and "ms" of a table of
    times.
    """

    job: Job
    figures: Mapping[str, Any]
    weights_sha256: str


def network_at_hand(
    name: str,
    data: Path,
    out: Path,
    *,
    epochs: int | None = None,
    on_progress: Progress = lambda stage, done, of: None,
) -> Model:
    """A network that jobs cut down, its weights from ``data/weights``.

    One of TensorFlow's is trained where neither that folder nor ``out`` has any.
    """
    spec = _MODELS[name]
    file = f"{spec.partition(':')[2]}.safetensors"
    weights = data / "weights" / file
    if name in _FOLDERS and not weights.exists():
        weights = out / file
    if name in _FOLDERS and not weights.exists():
        known = ZOO_CLASSES[spec.removeprefix("zoo:")] or ()
        folders = open_images(data / _FOLDERS[name], numbered_table(len(known), known))
        if folders.val is None:
            raise InputError(f"{data / _FOLDERS[name]} has no test images; expected them")
        trained = train(
            spec, folders.train, folders.val, epochs=epochs,
            on_epoch=lambda e: on_progress("train", e.number, e.of),
        )  # fmt: skip
        with new_file(weights) as work:
            save_weights(work, trained.state_dict)
    return load_model(spec, weights=weights)


def measure(
    job: Job,
    model: Model,
    data: Path,
    images: Path,
    on_progress: Progress = lambda stage, done, of: None,
) -> Row:
    """Distill a network as a job says, on images below ``data`` or, of ImageNet, ``images``."""
    options = Options(
        budget=Budget(max_loss_pp=job.max_loss_pp),
        method=job.method,
        param_weight=job.param_weight,
        partial=job.partial,
        reading=job.reading,
        seed=job.seed,
    )
    folder = data / _FOLDERS[job.network] if job.network in _FOLDERS else images
    mission = parse_mission(list(job.classes), model.classes)
    parts = split_images(open_images(folder, model.classes, mission), seed=job.seed)
    if job.per_class is not None:  # half of them for each, and the same ones to report on
        half = job.per_class // 2
        parts = replace(
            parts,
            statistics=limit(parts.statistics, job.per_class - half, job.seed),
            search=limit(parts.search, half, job.seed),
        )
    done = distill(
        model, mission, parts, options=options,
        whole_front=False, on_progress=on_progress,
    )  # fmt: skip
    figures = _figures(done)
    if job.timed:
        with tempfile.TemporaryDirectory() as name:
            run = write_run(done, Path(name) / "run")
            networks = (original_network(run)[0], distilled_network(run))
            timing = time_networks(networks, ["c"], Path(name), Settings(batch=1, seconds=3))
        figures["time_ratio"] = timing.time_ratio["c"]
        figures["ms"] = [entry.median_ms for entry in timing.entries if entry.batch == 1]
    return Row(job, figures, model.weights_sha256)


def _figures(done: Distillation) -> dict[str, Any]:
    result = result_json(done)
    found: dict[str, Any] = {name: result[name] for name in _KEPT}
    for network in ("baseline", "distilled"):
        found[network] = {name: result[network][name] for name in _OF_NETWORK}
    if modules := compression_of_modules(done):
        found["modules"] = finite_json(modules)
        found["module_macs"] = [macs_of_modules(c) for c in (done.cost_before, done.cost_after)]
    return found


def read_rows(path: Path) -> list[Row]:
    """The rows that ``write_rows`` wrote; none where there is no file yet."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            value = json.loads(line)
            job = {**value["job"], "classes": tuple(value["job"]["classes"])}
            missing = set(_KEPT) - set(value["figures"])
            if missing:
                raise KeyError(min(missing))  # of an earlier version
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
