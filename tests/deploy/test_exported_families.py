"""A compacted network of every family says the same as an ONNX file."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillnet.cut.bitmaps import complete_removal
from distillnet.cut.surgery import compact
from distillnet.deploy import TOLERANCE, Deployable, compare, open_onnx, write_onnx
from distillnet.graph import GraphModule
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import analyse
from plans import random_plan
from selection import exhaustive
from shallow import shallow_model
from untrained_run import CLASSES

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf",
    "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1",
    "vgg11_bn", "wide_resnet50_2",
)  # fmt: skip
TELLING = (
    "densenet121", "efficientnet_b0", "googlenet", "mobilenet_v3_small", "shufflenet_v2_x0_5",
    "squeezenet1_1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", exhaustive(FAMILIES, TELLING.__contains__))
def test_every_family_exports_compacted_and_agrees(name: str, tmp_path: Path) -> None:
    side = {"inception_v3": 96}.get(name, 64)
    model = shallow_model(f"torchvision:{name}", input_size=side)
    graph = capture_model(model)
    channels = analyse(graph)
    plan = random_plan(graph, channels, "channels", 0)
    plan = replace(plan, keep={s: k for s, k in plan.keep.items() if not complete_removal(k).all()})
    small = compact(graph, channels, plan)
    network = Deployable(
        "distilled", GraphModule(small).eval(), model.preprocessing, CLASSES, {"producer": "d 0"}
    )
    write_onnx(network, tmp_path / "m.onnx")
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = compare(network.module, open_onnx(tmp_path / "m.onnx").scores, x)
    assert found.largest <= TOLERANCE
    assert found.decisions == 0
