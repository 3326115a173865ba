"""A changed network counts as one that is built that way; NiN's table is the slides'."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18, shufflenet_v2_x0_5

from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.models.zoo import nin, tf_cifar
from distillnet.models.zoo.nin import from_caffe_nin
from distillnet.playbook.changes import Change, apply_change
from distillnet.playbook.effects import effects, slides_changes
from distillnet.playbook.quantities import quantities

# papers/004, "Effect of Local and Global changes to parallelism during CNN training": output,
# parameters, computation.
SLIDES = {
    "initial network": ("none", 1.0, 1.0, 1.0),
    "4x more input channels": ("local", 1.0, 1.0, 1.3),
    "4x more filters in conv8": ("local", 1.1, 1.1, 1.1),
    "4x larger filter resolution in conv7": ("local", 1.0, 1.3, 1.3),
    "4x more categories to classify": ("local", 1.0, 1.4, 1.1),
    "remove pool3 downsampling layer": ("global", 2.6, 1.0, 3.8),
    "4x larger input data resolution": ("global", 4.2, 1.0, 4.3),
}


def test_the_slides_table() -> None:
    graph = capture(nin(), (224, 224))
    ours = {
        row.change.title: (
            row.change.kind,
            *(round(r, 1) for r in (row.output, row.params, row.macs)),
        )
        for row in effects(graph, slides_changes(graph))
    }
    assert ours == SLIDES


def test_names_of_caffe_are_those_of_the_slides() -> None:
    state = {f"conv{n}.weight": torch.full((1,), float(n)) for n in range(1, 13)}
    assert from_caffe_nin(state) == state
    names = (
        *("conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4"),
        *("conv3", "cccp5", "cccp6", "conv4-1024", "cccp7-1024", "cccp8-1024"),
    )
    caffe = {f"{name}.weight": state[f"conv{n}.weight"] for n, name in enumerate(names, 1)}
    assert from_caffe_nin(caffe) == state


def _net(
    c_in: int = 3, wide: int = 8, kernel: int = 3, classes: int = 5, pool: bool = True,
    stride: int = 1, side: int = 16, padding: int = 1,
) -> Graph:  # fmt: skip
    """A chain whose last layer reads a flattened map, with any of the changes built in."""
    parts = [
        nn.Conv2d(c_in, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(),
        nn.LocalResponseNorm(3), nn.MaxPool2d(2) if pool else nn.Identity(),
        nn.Conv2d(wide, 6, kernel, stride, padding), nn.PReLU(6), nn.Flatten(),
    ]  # fmt: skip
    with torch.no_grad():
        features = nn.Sequential(*parts)(torch.zeros(1, c_in, side, side)).shape[1]
    return capture(nn.Sequential(*parts, nn.Linear(features, classes)), (side, side), channels=c_in)


@pytest.mark.parametrize(
    ("change", "built"),
    [
        (Change("", input_channels=4), {"c_in": 12}),
        (Change("", filters={"0": 3}), {"wide": 24}),
        (Change("", filters={"0": 0.5}), {"wide": 4}),
        (Change("", kernel_side={"5": 5 / 3}), {"kernel": 5, "padding": 2}),
        (Change("", kernel_side={"5": 2}), {"kernel": 6, "padding": 2}),
        (Change("", kernel_side={"5": 1 / 3}), {"kernel": 1, "padding": 0}),
        (Change("", outputs=2), {"classes": 10}),
        (Change("", removed=frozenset({"4"})), {"pool": False}),
        (Change("", stride={"5": 2}), {"stride": 2}),
        (Change("", input_side=2), {"side": 32}),
        (Change("", input_side=2, outputs=0.6, filters={"0": 2}),
         {"side": 32, "classes": 3, "wide": 16}),
    ],
)  # fmt: skip
def test_a_changed_network_counts_as_one_built_that_way(change: Change, built: dict) -> None:
    found, wanted = apply_change(_net(), change), _net(**built)
    assert quantities(found) == quantities(wanted)
    shapes = [
        [node.shape for node in graph.nodes if node.op != "affine"] for graph in (found, wanted)
    ]
    assert shapes[0] == shapes[1]


def _same_shape(build: Callable[[], nn.Module], side: int) -> Graph:
    return capture(build().eval(), (side, side))


@pytest.mark.parametrize(
    ("build", "layer"),
    [
        (resnet18, "layer2.0.conv2"),  # tied by the residual add to three other layers
        (mobilenet_v2, "features.3.conv.0.0"),  # and its depthwise layer
        (shufflenet_v2_x0_5, "conv1.0"),
    ],
)
def test_tied_layers_change_together(build: Callable[[], nn.Module], layer: str) -> None:
    graph = _same_shape(build, 64)
    before, after = (
        quantities(graph),
        quantities(apply_change(graph, Change("", filters={layer: 2}))),
    )
    assert after.params > before.params
    unchanged = apply_change(graph, Change(""))
    assert [node.shape for node in unchanged.nodes] == [node.shape for node in graph.nodes]
    assert quantities(unchanged) == before


def test_a_wider_mobilenet_is_mobilenet_made_wider() -> None:
    """All filters doubled one group after the other, against torchvision's own width."""
    graph = _same_shape(mobilenet_v2, 32)
    wide = _same_shape(lambda: mobilenet_v2(width_mult=2.0), 32)
    convs = [node.name for node in graph.nodes if node.op == "conv"]
    # The widths that torchvision does not double are those of the last layer, by its own rule.
    doubled = apply_change(graph, Change("", filters=dict.fromkeys(convs, 2.0)))
    assert quantities(doubled) == quantities(wide)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change("", filters={"nowhere": 2}), "'nowhere' in this network, expected one of 0, 5"),
        (Change("", removed=frozenset({"5"})), "expected one of 4:max_pool"),
        (Change("", filters={"8": 2}), "number of classes"),
        (Change("tiny", input_side=0.06), "'tiny' makes '4:max_pool' impossible"),
    ],
)
def test_changes_that_do_not_fit_are_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        apply_change(_net(), change)
    assert message in str(refusal.value)


def test_an_even_kernel_keeps_maps_that_meet_others() -> None:
    class Residual(nn.Module):
        def __init__(self, kernel: int, padding: int | str) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3, padding=1)
            self.b = nn.Conv2d(4, 4, kernel, padding=padding)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.fc((x + self.b(x)).mean((2, 3)))

    found = apply_change(capture(Residual(3, 1), (9, 9)), Change("", kernel_side={"b": 2}))
    assert quantities(found) == quantities(capture(Residual(6, "same"), (9, 9)))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (Change(""), "none"),
        (Change("", input_channels=2), "local"),
        (Change("", filters={"0": 2}), "local"),
        (Change("", stride={"5": 2}), "global"),
        (Change("", outputs=2, input_side=2), "global"),
    ],
)
def test_kinds_are_those_of_the_slides(change: Change, kind: str) -> None:
    assert change.kind == kind


def test_one_channel_is_not_depthwise() -> None:
    def grey(channels: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten())

    found = apply_change(capture(grey(1), (9, 9), channels=1), Change("", input_channels=4))
    assert quantities(found) == quantities(capture(grey(4), (9, 9), channels=4))


def test_communication_is_that_of_the_parameters() -> None:
    graph = capture(tf_cifar(), (24, 24))
    rows = effects(graph, slides_changes(graph))
    params = [sum(p.numel() for p in tf_cifar().parameters())]
    assert rows[0].after.params == params[0]
    for row in rows:
        assert row.after.gradient_bytes == 4 * row.after.params
        assert row.macs_per_byte == pytest.approx(row.after.macs / row.after.params / 4)
