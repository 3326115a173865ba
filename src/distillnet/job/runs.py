"""The run folder: what ``distill`` leaves behind, and reading it again.

| file | holds |
|---|---|
| ``result.json`` | the figures |
| ``mission.json`` | everything needed to do it again |
| ``bitmaps.safetensors`` | bit-packed keep maps: ``fused/<site>`` and ``<class index>/<site>`` |
| ``times.json`` | the table of times that the search minimised by |
| ``model.pt2`` | the compact network, a torch.export programme that loads without this package |
| ``images.safetensors`` | which images it was made of, by their content (``provenance``) |
| ``atlas/`` | the statistics |
| ``front/NN/`` | ``result.json``, bitmaps and ``model.pt2`` of the networks for other budgets |
| ``manifest.json`` | the hashes of all these but the statistics, which have their own |

Nothing in it names a folder of the machine that made it: see ``layout``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from distillnet.classes import ClassTable, Mission
from distillnet.cut.bitmaps import pack
from distillnet.errors import InputError, as_path, expect
from distillnet.files.documents import encode, read_document
from distillnet.files.manifest import check_sealed, read_manifest, seal
from distillnet.files.tensors import write_tensors
from distillnet.graph import Graph, GraphModule
from distillnet.graph.saving import LICENCE, write_program
from distillnet.images.preprocessing import Preprocessing
from distillnet.job.distillation import Distillation
from distillnet.job.documents import FORMAT, NOT_NOTED, MissionDocument, ResultDocument
from distillnet.job.figures import Figures
from distillnet.job.front_points import plot_run, points_of
from distillnet.job.layout import FRONT, RUN_MARKER, TIMES, file_of, place_of, relative_sources
from distillnet.job.provenance import PROVENANCE, write_provenance
from distillnet.job.results import finite_json, finite_loss_pp, model_name, result_json

__all__ = [
    "FRONT",
    "RUN_MARKER",
    "Run",
    "open_run",
    "read_result",
    "save_program",
    "seal_run",
    "write_json",
    "write_run",
]

# Of a run, and of each network on its front.
_NETWORK = ("result.json", "bitmaps.safetensors", "model.pt2")
_VERSIONS = ("distillnet", "torch", "torchvision", "numpy", "pillow")


def save_program(graph: Graph, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
    """Save a graph as a ``torch.export`` programme with a dynamic batch: (N, C, H, W) -> (N, K).

    ``about`` goes into its extra file ``distillnet.json``; values that JSON can hold.
    """
    module = GraphModule(graph).eval()
    x = torch.zeros(2, *graph.input.shape)
    program = torch.export.export(
        module, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    write_program(program, as_path(path, "the programme's file"), about or {})


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write JSON as all files of a run hold it."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _mission_json(done: Distillation, sources: Mapping[str, str | None]) -> dict[str, Any]:
    table = done.mission.named(done.model.classes)
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
        "options": {k: v for k, v in asdict(done.options).items() if k not in NOT_NOTED},
        "seed": done.options.seed,
        "thresholds": dict(done.found.thresholds),
        "sources": dict(sources),
    }
    finite: dict[str, Any] = finite_json(values)
    return finite


def write_run(
    done: Distillation,
    directory: str | Path,
    sources: Mapping[str, str | Path | None] | None = None,
) -> "Run":
    """Write a run into ``directory`` and open it; the folder may be there without a run in it.

    ``sources`` says where weights and images came from; kept is what ``relative_sources`` makes
    of it.
    """
    expect(done, Distillation, "a result", "what distillnet.distill gives")
    directory = as_path(directory, "the run's folder")
    if (directory / RUN_MARKER).exists() or (directory / FRONT).exists():
        raise InputError(f"{directory} holds a run already; expected a new folder, choose another")
    directory.mkdir(parents=True, exist_ok=True)
    _write_network(done, directory)
    for i, point in enumerate(done.front):
        folder = directory / FRONT / f"{i:02}"
        folder.mkdir(parents=True)
        _write_network(point, folder)
    if done.options.times is not None:
        (directory / TIMES).write_text(done.options.times.dumps(), encoding="utf-8")
    write_provenance(done.provenance, directory)
    known = done.sources if sources is None else sources
    places = relative_sources({"model": file_of(done.model.name), **known}, directory)
    write_json(_mission_json(done, places), directory / RUN_MARKER)
    seal_run(directory, len(done.front))
    return open_run(directory)


def seal_run(directory: Path, front: int = 0) -> None:
    """Write the manifest of a run with so many networks on its front."""
    points = [f"{FRONT}/{i:02}/{name}" for i in range(front) for name in _NETWORK]
    beside = [name for name in (PROVENANCE, TIMES) if (directory / name).exists()]
    seal(directory, [*_NETWORK, RUN_MARKER, *beside, *points])


def _write_network(done: Distillation, directory: Path) -> None:
    about = {
        "producer": f"distillnet {version('distillnet')}",
        "model_license": LICENCE,
        "model": model_name(done.model.name),
        "weights_sha256": done.model.weights_sha256,
        "classes": list(done.mission.names),
        "preprocessing": asdict(done.preprocessing),
    }
    save_program(done.compact, directory / "model.pt2", about)
    bitmaps = {f"fused/{site}": keep for site, keep in done.plan.keep.items()}
    for site, keep_k in done.found.class_bitmaps.items():
        if len(keep_k) == len(done.mission):
            for index, keep in zip(done.mission.indices, keep_k, strict=True):
                bitmaps[f"{index}/{site}"] = keep
    write_tensors(pack(bitmaps), directory / "bitmaps.safetensors")
    write_json(result_json(done), directory / "result.json")


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"<Run {self.directory} of {self.figures}>"

    @property
    def figures(self) -> Figures:
        """What a person wants to know first."""
        result = self.result
        before, after = result["baseline"], result["distilled"]
        low, high = result["loss_ci95_pp"]
        return Figures(
            f"{result['model']} for {', '.join(self.mission.names)}",
            result["mac_ratio"],
            result["param_ratio"],
            (low, high),
            result["n_images"]["val"],
            (before["accuracy"], after["accuracy"]),
            {
                name: (share, after["per_class"][name])
                for name, share in before["per_class"].items()
            },
            tuple(result["warnings"]),
        )

    def frame(self) -> Any:
        """Accuracy by class as a pandas.DataFrame; see ``Figures.frame``."""
        return self.figures.frame()

    def plot(self, axes: Any = None) -> Any:
        """The front and the layers on two matplotlib axes, which are returned; pass two, or none.

        Accuracy by class is what ``figures.plot()`` draws.
        """
        points = points_of(self.result, self.front)
        return plot_run(points, self.result["layers"], finite_loss_pp(self.result), axes)

    @property
    def front(self) -> tuple[dict[str, Any], ...]:
        """Figures of the networks for other budgets, the smallest first, as in ``result.json``."""
        found = sorted((self.directory / FRONT).glob("[0-9]*/result.json"))
        names = [path.relative_to(self.directory).as_posix() for path in found]
        check_sealed(self.directory, read_manifest(self.directory), names)
        return tuple(read_result(path.parent) for path in found)


def open_run(directory: str | Path) -> Run:
    """Read a run folder; InputError where there is none, or one that is damaged or too old."""
    directory = as_path(directory, "the run's folder")
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
        {name: place_of(directory, path) for name, path in mission.sources.items()},
    )


def read_result(directory: Path) -> dict[str, Any]:
    """The figures of a run, or of a network on its front; InputError where they are damaged."""
    return encode(read_document(directory / "result.json", ResultDocument, "distill again"))
