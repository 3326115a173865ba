"""The two networks of a run, as modules with what a device has to know of them."""

import json
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from distillnet.graph import Graph, GraphModule
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.saving import LICENCE
from distillnet.images.preprocessing import Preprocessing, Size
from distillnet.job.results import model_name
from distillnet.job.runs import Run
from distillnet.missions.unknown.features import with_unknown
from distillnet.missions.unknown.rule import Rule, read_rule, unknown_name
from distillnet.models import Model, load_model, random_model
from distillnet.models.programs import load_program

__all__ = [
    "OURS",
    "PLAIN",
    "Deployable",
    "WithPreprocessing",
    "distilled_network",
    "original_model",
    "original_network",
    "original_networks",
    "with_rule",
]


PLAIN, OURS = "plain export", "distillnet"


@dataclass(frozen=True)
class Deployable:
    """A network to bring to a device.

    Attributes:
        name: "original" or "distilled".
        module: float32 (N, C, H, W), normalised -> scores (N, classes).
        classes: names of the scores.
        provenance: what the file says of where it comes from.
        written_by: "distillnet", or "plain export" of a module as the user has it.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    provenance: dict[str, str]
    written_by: str = OURS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        height, width = self.preprocessing.input_size
        return len(self.preprocessing.mean), height, width

    def exported(
        self, batch: int | None = None, with_preprocessing: bool = False
    ) -> ExportedProgram:
        """The network as a ``torch.export`` programme, which all other formats are made of.

        Args:
            batch: images at once; None leaves their number open.
            with_preprocessing: take uint8 (N, H, W, 3) RGB instead of normalised (N, C, H, W).
        """
        channels, height, width = self.shape
        module, x = self.module, torch.zeros(batch or 2, channels, height, width)
        if with_preprocessing:
            module = WithPreprocessing(self)
            x = torch.zeros(batch or 2, height, width, 3, dtype=torch.uint8)
        shapes = None if batch else ({0: torch.export.Dim("batch", min=1)},)
        return torch.export.export(module, (x,), dynamic_shapes=shapes)


def distilled_network(run: Run, *, unknown: bool = False) -> Deployable:
    """The compact network of a run.

    Args:
        unknown: with the run's rule for unknown images: calibrated scores, and one more, the
            largest where an image is of none of the classes.

    Raises:
        InputError: the run has no such rule.
    """
    module: nn.Module = load_program(run.directory / "model.pt2").module
    result, mission = run.result, run.mission
    provenance = {
        "model": model_name(str(result["model"])),
        "weights_sha256": run.weights_sha256,
        "classes": json.dumps(result["classes"]),
        "accuracy": f"{result['distilled']['accuracy']:.4f}",
        "loss_pp": f"{result['loss_pp']:.2f}",
        "loss_ci95_pp": json.dumps([round(x, 2) for x in result["loss_ci95_pp"]]),
        "mac_ratio": f"{result['mac_ratio']:.3f}",
    }
    classes = mission.names
    if unknown:
        rule, _ = read_rule(run.directory)
        module = GraphModule(with_rule(module, rule, run)).eval()
        provenance["unknown"] = str(len(classes))
        classes = (*classes, unknown_name(classes))
    return _deployable("distilled", module, run.preprocessing, classes, provenance)


def with_rule(module: nn.Module, rule: Rule, run: Run) -> Graph:
    """A run's compact network with a rule for unknown images, as a graph."""
    how = run.preprocessing
    graph = capture(module, how.input_size, channels=len(how.mean))
    return with_unknown(graph, rule)


def original_model(run: Run, size: Size | None = None, named: str | None = None) -> Model:
    """The model that a run came from; weights that were downloaded are downloaded again.

    Args:
        size: of the input; by default that of the original.
        named: the model as the user names it now; by default it is what the run names, unless that
            is Python: a run may come from anybody, and never runs code.

    Raises:
        InputError: the weights or the user's file are not where they were; the run names Python.
    """
    spec, how = named or _spec(run), run.preprocessing
    height, width = size or run.result["baseline"]["input_size"]
    weights = run.sources.get("weights")
    # A file may tell nothing of it; of all others, what they tell is exact at their own size.
    told = how.with_input_size((height, width))
    model = load_model(
        spec,
        weights=Path(weights) if weights else None,
        input_size=height if height == width else None,
        preprocessing=told if _is_file(spec) else None,
        run_code=named is not None,
    )
    same = model.preprocessing.with_input_size(how.input_size) == how
    return model if same else replace(model, preprocessing=told)


def original_network(run: Run, named: str | None = None) -> tuple[Deployable, bool]:
    """The network as distillnet writes it, and whether its weights are its own."""
    _, ours, own = original_networks(run, named)
    return ours, own


def original_networks(run: Run, named: str | None = None) -> tuple[Deployable, Deployable, bool]:
    """The network that a run came from, as the user has it and as distillnet writes it.

    Beside them stands whether the weights are the original's own.

    Where weights are not at hand, random ones take their place: the time is the same.

    Args:
        named: the model as the user names it now, see ``original_model``.
    """
    spec = named or _spec(run)
    height, width = run.result["baseline"]["input_size"]
    weights = run.sources.get("weights")
    at_hand = weights is not None and Path(weights).exists()
    own = at_hand or (_is_file(spec) and weights is None)
    if own:
        model = original_model(run, named=named)
    elif _is_file(spec):
        model = original_model(replace(run, sources={**run.sources, "weights": None}), named=named)
    else:
        model = random_model(spec, input_size=height, run_code=named is not None)
    module = GraphModule(capture_model(model, (height, width))).eval()
    how = model.preprocessing.with_input_size((height, width))
    provenance = {"model": model_name(spec), "weights_sha256": model.weights_sha256}
    ours = _deployable("original", module, how, tuple(model.classes.names), provenance)
    return replace(ours, module=model.module, written_by=PLAIN), ours, own


def _spec(run: Run) -> str:
    """The MODEL of a run; a user's file by where it lies now."""
    name, file = str(run.result["model"]), run.sources.get("model")
    part, colon, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    return f"{file}{colon}{function}" if file and Path(file).name == part else name


def _is_file(spec: str) -> bool:
    """Whether a MODEL is a file of the user's, which does not tell how images become its input."""
    return spec.endswith(".pt2") or ".py:" in spec


def _deployable(
    name: str,
    module: nn.Module,
    how: Preprocessing,
    classes: tuple[str, ...],
    provenance: dict[str, str],
) -> Deployable:
    common = {
        "network": name,
        "producer": f"distillnet {version('distillnet')}",
        "model_license": LICENCE,  # a key that ONNX has a meaning for
        "class_names": json.dumps(list(classes)),
        "input_size": json.dumps(list(how.input_size)),
        "preprocessing": json.dumps(asdict(how)),
    }
    return Deployable(name, module, how, classes, common | provenance)


class WithPreprocessing(nn.Module):
    """A network that takes images as they come: uint8 (N, H, W, 3) RGB, at the input size.

    What ``preprocessing.preprocess`` does after resizing and cropping.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Deployable) -> None:
        super().__init__()
        self.module, self.how = network.module, network.preprocessing
        for name in ("mean", "std"):
            values = Tensor(getattr(self.how, name)).reshape(-1, 1, 1)
            self.register_buffer(name, values)

    def forward(self, images_nhwc: Tensor) -> Tensor:
        x = images_nhwc.permute(0, 3, 1, 2).float()
        if self.how.channels == "BGR":
            x = x.flip(1)
        elif self.how.channels == "L":
            # Pillow's integer arithmetic; every product is exact in float32.
            red, green, blue = x.split(1, dim=1)
            x = ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()
        x = x / self.how.divisor
        result: Tensor = self.module((x - self.mean) / self.std)
        return result
