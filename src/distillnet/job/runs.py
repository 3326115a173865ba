"""The run folder: what ``distill`` leaves behind, and reading it again.

| file | holds |
|---|---|
| ``result.json`` | the figures |
| ``mission.json`` | everything needed to do it again |
| ``bitmaps.safetensors`` | bit-packed keep maps: ``fused/<site>`` and ``<class index>/<site>`` |
| ``model.pt2`` | the compact network, a torch.export programme that loads without this package |
| ``atlas/`` | the statistics |
| ``front/NN/`` | ``result.json``, bitmaps and ``model.pt2`` of the networks for other budgets |
| ``manifest.json`` | the hashes of all these but the statistics, which have their own |

Nothing in it names a folder of the machine that made it: see ``_sources``.
"""

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillnet.classes import ClassTable, Mission
from distillnet.cut.bitmaps import pack
from distillnet.errors import InputError
from distillnet.evaluate import Evaluation, Scores, evaluation
from distillnet.files.documents import encode, read_document
from distillnet.files.layout import is_workplace
from distillnet.files.manifest import check_sealed, read_manifest, seal
from distillnet.files.results import RUN
from distillnet.files.tensors import write_tensors
from distillnet.graph import Graph, GraphModule
from distillnet.images import Batch
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distillation import Distillation
from distillnet.job.documents import FORMAT, MissionDocument, ResultDocument
from distillnet.job.results import finite_json, model_name, result_json
from distillnet.models.programs import load_program

__all__ = [
    "FRONT",
    "RUN_MARKER",
    "Run",
    "evaluate_run",
    "evaluate_scores",
    "open_run",
    "read_result",
    "relative_sources",
    "save_program",
    "seal_run",
    "write_json",
    "write_run",
]

RUN_MARKER = RUN.marker
_ELSEWHERE = "(elsewhere)"  # a source that was given and is not named
FRONT = "front"  # the folder of networks for other budgets
# Of a run, and of each network on its front.
_NETWORK = ("result.json", "bitmaps.safetensors", "model.pt2")
_VERSIONS = ("distillnet", "torch", "torchvision", "numpy", "pillow")


def save_program(graph: Graph, path: Path) -> None:
    """Save a graph as a ``torch.export`` programme with a dynamic batch: (N, C, H, W) -> (N, K)."""
    module = GraphModule(graph).eval()
    x = torch.zeros(2, *graph.input.shape)
    program = torch.export.export(
        module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    # Through memory: where the disk is full, PyTorch's own writer ends the process (2.9).
    archive = io.BytesIO()
    torch.export.save(program, archive)
    path.write_bytes(archive.getbuffer())


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write JSON as all files of a run hold it."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _mission_json(done: Distillation, sources: dict[str, Any]) -> dict[str, Any]:
    table = done.model.classes
    values = {
        "format": FORMAT,
        "versions": {name: version(name) for name in _VERSIONS},
        "model": model_name(done.model.name),
        "weights_sha256": done.model.weights_sha256,
        "n_classes": len(table),
        "classes": [
            {"index": i, "name": table.names[i], "aliases": list(table.aliases[i])}
            for i in done.mission.indices
        ],
        "preprocessing": asdict(done.preprocessing),
        "options": asdict(done.options),
        "seed": done.options.seed,
        "thresholds": dict(done.found.thresholds),
        "sources": sources,
    }
    finite: dict[str, Any] = finite_json(values)
    return finite


def write_run(done: Distillation, directory: Path, sources: dict[str, Any] | None = None) -> None:
    """Write a run into ``directory``, an existing folder (see ``files.new_folder``).

    ``sources`` says where weights and images came from; kept is what ``relative_sources`` makes
    of it.
    """
    _write_network(done, directory)
    for i, point in enumerate(done.front):
        folder = directory / FRONT / f"{i:02}"
        folder.mkdir(parents=True)
        _write_network(point, folder)
    places = {"model": _file_of(done.model.name), **(sources or {})}
    mission = _mission_json(done, relative_sources(places, directory))
    write_json(mission, directory / RUN_MARKER)
    seal_run(directory, len(done.front))


def _file_of(spec: str) -> str | None:
    """The file in a MODEL argument, where it is one of the user's."""
    file = spec.rpartition(":")[0] if ".py:" in spec else spec
    return file if file.endswith((".py", ".pt2")) else None


def seal_run(directory: Path, front: int = 0) -> None:
    """Write the manifest of a run with so many networks on its front."""
    points = [f"{FRONT}/{i:02}/{name}" for i in range(front) for name in _NETWORK]
    seal(directory, [*_NETWORK, RUN_MARKER, *points])


def _write_network(done: Distillation, directory: Path) -> None:
    save_program(done.compact, directory / "model.pt2")
    bitmaps = {f"fused/{site}": keep for site, keep in done.plan.keep.items()}
    for site, keep_k in done.found.class_bitmaps.items():
        if len(keep_k) == len(done.mission):
            for index, keep in zip(done.mission.indices, keep_k, strict=True):
                bitmaps[f"{index}/{site}"] = keep
    write_tensors(pack(bitmaps), directory / "bitmaps.safetensors")
    write_json(result_json(done), directory / "result.json")


@dataclass(frozen=True)
class Run:
    """A run folder, read: the compact network and what it needs to be fed and understood.

    ``options`` are those of ``distillation.Options`` by name; ``sources`` are paths as they were
    given, or within the run where they lie there: data, val, search, atlas, weights, class_names.
    """

    directory: Path
    result: dict[str, Any]
    mission: Mission
    classes: ClassTable
    preprocessing: Preprocessing
    weights_sha256: str
    seed: int
    options: Mapping[str, Any]
    sources: Mapping[str, str | None]


def open_run(directory: Path) -> Run:
    """Read a run folder; InputError where there is none, or one that is damaged or too old."""
    if not (directory / RUN_MARKER).is_file():
        raise InputError(
            f"{directory} is not a run folder (it has no {RUN_MARKER}); expected a folder that "
            "`distillnet distill` wrote"
        )
    mission = read_document(
        directory / RUN_MARKER, MissionDocument, "distill again", format_=FORMAT
    )
    check_sealed(directory, read_manifest(directory), (RUN_MARKER, *_NETWORK))
    result = read_result(directory)
    named = {c.index: c for c in mission.classes}
    rest = range(mission.n_classes)
    indices = tuple(named)
    if indices != tuple(c["index"] for c in result["classes"]):
        raise InputError(
            f"{directory} has other classes in {RUN_MARKER} than in result.json; expected the same "
            "in both, distill again"
        )
    return Run(
        directory,
        result,
        Mission(indices, tuple(c.name for c in mission.classes)),
        ClassTable(
            tuple(named[i].name if i in named else str(i) for i in rest),
            tuple(tuple(named[i].aliases) if i in named else () for i in rest),
        ),
        mission.preprocessing.preprocessing(),
        mission.weights_sha256,
        mission.seed,
        encode(mission.options),
        {name: _beside(directory, path) for name, path in mission.sources.items()},
    )


def read_result(directory: Path) -> dict[str, Any]:
    """The figures of a run, or of a network on its front; InputError where they are damaged."""
    return encode(read_document(directory / "result.json", ResultDocument, "distill again"))


def relative_sources(sources: Mapping[str, Any], directory: Path) -> dict[str, str | None]:
    """Where things lie as seen from a run, without folders of the machine that it was made on.

    What lies in or beside the run, or in a folder that both are below, is found again even after
    all of it was moved. What is elsewhere is noted as that, and has to be named again: its path
    would tell who made the run and where. So is a name that is no UTF-8, which JSON cannot hold.
    """
    run = directory.resolve()
    # A run is made in a workplace beside its final name.
    place = run.parent.parent / run.name if is_workplace(run.parent.name) else run
    tells = {Path(run.anchor), Path("~").expanduser().parent}
    kept: dict[str, str | None] = dict.fromkeys(sources)
    for name, source in sources.items():
        path = Path(source).resolve() if source else None
        if path and path.is_relative_to(run):
            kept[name] = path.relative_to(run).as_posix()
        elif path:
            shared = next(p for p in (place, *place.parents) if path.is_relative_to(p))
            kept[name] = _ELSEWHERE
            if shared not in tells:
                kept[name] = Path(os.path.relpath(path, place)).as_posix()
    return {name: _nameable(path) for name, path in kept.items()}


def _nameable(path: str | None) -> str | None:
    try:
        return path and path.encode().decode()
    except UnicodeEncodeError:
        return _ELSEWHERE


def _beside(directory: Path, path: str | None) -> str | None:
    """Where a source lies now, wherever the run was moved to."""
    return os.path.normpath(directory.resolve() / path) if path else None


def evaluate_run(opened: Run, batches: Iterable[Batch]) -> Evaluation:
    """The compact network's closed-set accuracy on images of the mission's classes.

    Its head has only the mission's scores, so there is no open set to measure.
    """
    path = opened.directory / "model.pt2"
    module = load_program(path).module

    def scores(x_nchw: Tensor) -> Tensor:
        try:
            y: Tensor = module(x_nchw)
        except (RuntimeError, AssertionError) as error:  # its guards are assertions
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{path} fails on images of shape {tuple(x_nchw.shape)} ({reason[:200]}); expected "
                "the run's own network, distill again"
            ) from error
        return y

    return evaluate_scores(opened, path, scores, batches)


def evaluate_scores(
    opened: Run, path: Path, scores: Callable[[Tensor], Tensor], batches: Iterable[Batch]
) -> Evaluation:
    """Closed-set accuracy of a run's network in whatever form ``path`` holds it.

    Args:
        scores: normalised images (N, C, H, W) -> the mission's scores (N, K).

    Raises:
        InputError: the scores are of another shape, NaN or infinite.
    """
    position = {index: i for i, index in enumerate(opened.mission.indices)}
    parts, labels = [], []
    with torch.inference_mode():
        for batch in batches:
            y, shape = scores(batch.x_nchw), (len(batch.x_nchw), len(position))
            if y.shape != shape or not bool(torch.isfinite(y).all()):
                found = f"the shape {tuple(y.shape)}" if y.shape != shape else "NaN or infinity"
                raise InputError(
                    f"{path} gives {found} as scores; expected finite ones of shape {shape}. "
                    "Distill or export again"
                )
            parts.append(y)
            labels += [position[int(label)] for label in batch.labels_n]
    return evaluation(Scores(torch.cat(parts), torch.tensor(labels)), opened.mission)
