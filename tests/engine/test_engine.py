"""The C engine says what torch says of masked networks, whatever the structure."""

from pathlib import Path

import numpy as np
import pytest
import torch

from architectures import ARCHITECTURES, SIDE, captured
from compiling import check, compiled, export, masked_scores, mission_plans, names, within
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask, split
from distillnet.cut.thin import Split, matrix
from distillnet.engine import compile_compact, compile_switchable, noise_image
from distillnet.graph.capture import capture, capture_model
from distillnet.graph.channels import analyse
from distillnet.models import load_model, random_model
from plans import STYLES, random_plan, scores
from targets import vector_flags


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_both_forms_equal_the_mask(name: str, tmp_path: Path) -> None:
    _, graph, channels = captured(name)
    image = noise_image((3, SIDE, SIDE), 1.5)
    flags = vector_flags(name)
    plans = {style: random_plan(graph, channels, style, 5) for style in STYLES}
    plans["dense"] = Plan()
    wanted = {style: masked_scores(graph, plan, image) for style, plan in plans.items()}
    program, missions = compile_switchable(graph, mission_plans(plans, wanted))
    assert within(program)
    folder = export(program, missions, list(wanted.values()), tmp_path / "all")
    native = compiled(program, folder, *flags)
    for mission in missions:
        check(native, mission, image, wanted[mission.name])

    plan = plans["partial"]
    less = compact(graph, channels, plan)
    alone, mission = compile_compact(less, "only", names(len(wanted["partial"])))
    assert within(alone)
    folder = export(alone, [mission], [wanted["partial"]], tmp_path / "one")
    check(compiled(alone, folder, *flags), mission, image, wanted["partial"])


GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "7x7 stride 2": {"kernel_size": 7, "stride": 2, "padding": 3},
    "oblong": {"kernel_size": (2, 5), "stride": (2, 1), "padding": (0, 2)},
    "dilated": {"kernel_size": 3, "dilation": (2, 1), "padding": (2, 1)},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_separable_layers_run(geometry: str, tmp_path: Path) -> None:
    """Split at full rank, the two halves are the layer."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 20, **GEOMETRIES[geometry])
    module = torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten()).eval()
    graph = capture(module, (13, 11))
    layer = next(node for node in graph.nodes if node.op == "conv")
    rank = min(matrix(graph.params[layer.params["weight"]], separable=True).shape)
    image = noise_image((3, 13, 11), 1.5)
    with torch.no_grad():
        want = module(torch.from_numpy(image)[None])[0].numpy()
    small = split(graph, layer.name, Split(rank, separable=True))
    program, mission = compile_compact(small, "only", names(len(want)))
    assert within(program)
    folder = export(program, [mission], [want], tmp_path / "c")
    check(compiled(program, folder, "-O1", "-march=native"), mission, image, want)


REAL = {
    "torchvision:squeezenet1_0": "weights/squeezenet1_0.safetensors",
    "zoo:bvlc_googlenet": "weights/bvlc_googlenet.safetensors",
}


def spans_of(shape: tuple[int, ...], generator: np.random.Generator) -> torch.Tensor:
    """Keep maps (C, H, W): half of all channels whole or gone, of the others runs of places."""
    keep = generator.random((shape[0], *[1] * (len(shape) - 1))) < 0.8
    keep = np.broadcast_to(keep, shape).copy()
    if len(shape) == 3:
        for c in np.flatnonzero(generator.random(shape[0]) < 0.5):
            first, last = np.sort(generator.integers(0, shape[2] + 1, 2))
            keep[c, :, :first] = keep[c, :, last:] = False
    return torch.from_numpy(keep)


@pytest.mark.slow
@pytest.mark.parametrize("spec", [*REAL, "zoo:tf_mnist", "zoo:tf_cifar"])
def test_networks_of_the_paper_at_their_size(
    spec: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Real weights where there are some: dense, and random bitmaps in both forms."""
    if spec in REAL:
        data = request.getfixturevalue("data_dir")
        model = load_model(spec, weights=data / REAL[spec])
    else:
        model = random_model(spec)
    graph = capture_model(model)
    channels = analyse(graph)
    generator = np.random.default_rng(0)
    keep = {site: spans_of(graph[site].shape, generator) for site in channels.sites}
    plans = {"dense": Plan(), "random": Plan(keep, (1, 0, 5))}
    scale = 100.0 if "bvlc" in spec else 2.0
    image = noise_image(graph.input.shape, scale)
    wanted = {}
    for name, plan in plans.items():
        y = scores(mask(graph, plan), torch.from_numpy(image)[None])[0].detach().numpy()
        wanted[name] = y if plan.outputs is None else y[list(plan.outputs)]
    program, missions = compile_switchable(graph, mission_plans(plans, wanted))
    assert within(program)
    folder = export(program, missions, list(wanted.values()), tmp_path / "all", scale=scale)
    native = compiled(program, folder, "-O1", "-march=native")
    for mission in missions:
        check(native, mission, image, wanted[mission.name])
    less = compact(graph, channels, plans["random"])
    program, mission = compile_compact(less, "random", names(3))
    assert within(program)
    folder = export(program, [mission], [wanted["random"]], tmp_path / "one", scale=scale)
    check(compiled(program, folder, "-O1", "-march=native"), mission, image, wanted["random"])


@pytest.mark.parametrize("vectors", ["native", "none"])
@pytest.mark.parametrize(
    ("size", "beta", "channels", "in_order"),
    [(5, 0.75, 64, True), (5, 0.75, 40, False), (4, 0.75, 17, True), (3, 0.5, 17, False),
     (9, 0.75, 300, False), (9, 0.6, 270, True), (31, 0.75, 20, False)],
)  # fmt: skip
def test_windows_of_any_length_are_normalised(
    size: int, beta: float, channels: int, in_order: bool, vectors: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    order = torch.arange(channels) if in_order else torch.randperm(channels)

    class Picked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, channels, 1)
            self.norm = torch.nn.LocalResponseNorm(size, alpha=2.0, beta=beta, k=1.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y if in_order else y[:, order]).flatten(1)

    module = Picked().eval()
    image = noise_image((3, 3, 5), 2.0)
    want = module(torch.from_numpy(image)[None])[0].detach().numpy()
    program, mission = compile_compact(capture(module, (3, 5)), "all", names(len(want)))
    assert [step.kernel for step in program.steps].count(
        "copy"
    ) == 0  # it picks its channels itself
    folder = export(program, [mission], [want], tmp_path / "c", scale=2.0)
    flags = ("-O1", "-march=native") if vectors == "native" else ("-O1", "-DLANES=1")
    check(compiled(program, folder, *flags), mission, image, want)
