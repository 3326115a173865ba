"""The central property and the counting, for a network of every family people bring."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from distillnet.cut.cost import Cost, cost, inception_macs
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import mask
from distillnet.engine import (
    MissionPlan,
    build_native,
    compile_switchable,
    noise_image,
    write_folder,
)
from distillnet.errors import UnsupportedError
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse, groups
from distillnet.models import random_model
from plans import check_plan, deviation, random_plan, scores
from selection import exhaustive
from shallow import shallow_model
from targets import vector_flags

# Name -> side of the input: the least that works.
FAMILIES = {
    "torchvision:alexnet": 64,
    "torchvision:vgg11_bn": 32,
    "torchvision:resnet18": 32,
    "torchvision:resnext50_32x4d": 32,
    "torchvision:wide_resnet50_2": 32,
    "torchvision:densenet121": 32,
    "torchvision:googlenet": 32,
    "torchvision:inception_v3": 75,
    "torchvision:squeezenet1_0": 32,
    "torchvision:squeezenet1_1": 32,
    "torchvision:mobilenet_v2": 32,
    "torchvision:mobilenet_v3_small": 32,
    "torchvision:mobilenet_v3_large": 32,
    "torchvision:mnasnet0_5": 32,
    "torchvision:shufflenet_v2_x0_5": 32,
    "torchvision:efficientnet_b0": 32,
    "torchvision:efficientnet_v2_s": 32,
    "torchvision:regnet_y_400mf": 32,
    "torchvision:regnet_x_400mf": 32,
    "torchvision:convnext_tiny": 32,
    "timm:resnet18": 32,
    "timm:mobilenetv3_small_100": 32,
    "timm:tf_efficientnet_b0": 33,  # "same" padding, unlike on two sides
    "timm:convnext_atto": 32,
    "timm:ghostnet_100": 32,
}

Case = tuple[nn.Module, Graph, Channels, Tensor]


@functools.lru_cache(maxsize=1)  # the tests of one network come one after the other
def captured(spec: str) -> Case:
    side = FAMILIES[spec]
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    module = shallow_model(spec, input_size=side).module.double()
    graph = capture(module, (side, side))
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)).double()
    return module, graph, analyse(graph), x


QUICK = ("torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small")
TELLING = (  # structures that the others repeat
    "torchvision:resnext50_32x4d", "torchvision:densenet121", "torchvision:googlenet",
    "torchvision:shufflenet_v2_x0_5", "torchvision:efficientnet_b0", "torchvision:regnet_y_400mf",
    "torchvision:convnext_tiny", "timm:tf_efficientnet_b0", "timm:ghostnet_100",
)  # fmt: skip


def _marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    if name in QUICK:
        return ()
    return (pytest.mark.slow, *(() if name in TELLING else (pytest.mark.exhaustive,)))


@pytest.fixture(
    params=[pytest.param(name, marks=_marks(name)) for name in FAMILIES], scope="module"
)
def case(request: pytest.FixtureRequest) -> Case:
    return captured(request.param)


def test_graph_equals_module(case: Case) -> None:
    module, graph, _, x = case
    with torch.no_grad():
        assert deviation(scores(graph, x), module(x)) < 1e-9


@pytest.mark.parametrize("style", ["partial", "borders"])
def test_compact_equals_mask(case: Case, style: str) -> None:
    _, graph, channels, x = case
    check_plan(graph, channels, random_plan(graph, channels, style, 3), x)


def test_the_c_engine_equals_the_mask(
    case: Case, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With and without neurons, in one arena within 5 % of what is alive at once."""
    _, graph, channels, _ = case
    plan = random_plan(graph, channels, "partial", 3)
    image = noise_image(graph.input.shape, 1.0)
    plans, wanted = [], {}
    for name, chosen in (("dense", Plan()), ("partial", plan)):
        y = scores(mask(graph, chosen), torch.from_numpy(image)[None].double())[0].numpy()
        wanted[name] = y if chosen.outputs is None else y[list(chosen.outputs)]
        classes = [str(i) for i in range(len(wanted[name]))]
        plans.append(MissionPlan(name, chosen, tuple(classes)))
    program, missions = compile_switchable(graph, plans)
    assert program.arena_floats - 16 <= 1.05 * program.least_floats
    write_folder(program, missions, wanted, tmp_path, "net", banner="tests")
    native = build_native(tmp_path, "net", graph.input.shape, flags=vector_flags(request.node.name))
    for mission in missions:
        native.arena[:] = 0xFF
        got = native.scores(native.mission(mission.name), image[None])[0]
        want = wanted[mission.name]
        assert np.abs(got - want).max() <= 1e-4 * max(want.max() - want.min(), 1e-30)


def test_macs_and_parameters_equal_what_pytorch_counts(case: Case) -> None:
    module, graph, channels, x = case
    total = cost(graph, channels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x[:1])
    assert total.macs == total.macs_with_partial == counter.get_total_flops() // 2
    # Folding batch norm keeps the weights and gives every convolution a bias.
    weights = sum(
        p.numel() for n, p in module.named_parameters() if p.ndim > 1 and not _auxiliary(n)
    )
    vectors = sum(t.numel() for t in graph.params.values() if t.ndim == 1)
    scales = sum(p.numel() for n, p in module.named_parameters() if n.endswith("layer_scale"))
    assert total.params == weights + vectors - scales
    assert sum(p.numel() for p in graph.params.values()) == total.params


def _auxiliary(name: str) -> bool:
    """The heads of GoogLeNet and Inception that only training uses."""
    return name.startswith(("aux", "AuxLogits"))


def test_nothing_but_inputs_and_scores_is_out_of_reach(case: Case) -> None:
    _, graph, channels, _ = case
    found = groups(graph, channels)
    free, total = sum(g.removable for g in found), sum(g.channels for g in found)
    n_scores = graph[graph.output].shape[0]
    mixed = any(node.op == "layer_norm" for node in graph.nodes)
    assert free > 0.3 * (total - n_scores) if mixed else free == total - n_scores


def _convolution(side: int, c: int, m: int, k: int, stride: int, padding: int) -> tuple[int, int]:
    """(side of the output, MACs)"""
    out = (side + 2 * padding - k) // stride + 1
    return out, out * out * m * c * k * k


def _dense(spec: str, side: int) -> Cost:
    graph = capture(random_model(spec, input_size=side).module, (side, side))
    return cost(graph, analyse(graph))


@pytest.mark.slow
def test_alexnet_by_hand() -> None:
    side, macs, params = 224, 0, 0
    layers = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1),
              (256, 256, 3, 1, 1)]  # fmt: skip
    for i, (c, m, k, stride, padding) in enumerate(layers):
        side, count = _convolution(side, c, m, k, stride, padding)
        macs, params = macs + count, params + m * c * k * k + m
        if i in (0, 1, 4):  # max pool 3, stride 2
            side = (side - 3) // 2 + 1
    for c, m in [(256 * side * side, 4096), (4096, 4096), (4096, 1000)]:
        macs, params = macs + c * m, params + c * m + m
    total = _dense("torchvision:alexnet", 224)
    assert (total.macs, total.params) == (macs, params) == (714_188_480, 61_100_840)


@pytest.mark.slow
def test_vgg11_by_hand() -> None:
    side, c, macs, params = 64, 3, 0, 0
    for m in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool"):
        if isinstance(m, str):
            side //= 2
            continue
        macs, params, c = macs + side * side * m * c * 9, params + m * c * 9 + m, m
    for c, m in [(512 * 49, 4096), (4096, 4096), (4096, 1000)]:
        macs, params = macs + c * m, params + c * m + m
    total = _dense("torchvision:vgg11_bn", 64)
    assert (total.macs, total.params) == (macs, params)
    assert params == 132_863_336  # as published for VGG-11 without batch norm


@pytest.mark.slow
def test_bvlc_googlenet_has_the_published_parameters_and_macs() -> None:
    total = _dense("zoo:bvlc_googlenet", 224)
    assert total.params == 6_998_552
    modules = inception_macs(total)
    assert modules is not None
    assert modules < total.macs


class _Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if y.mean() > 0:
            y = y * 2
        return self.head(y.mean((2, 3)))


class _TwoInputs(_Branches):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.conv(x + y).mean((2, 3)))


class _Variant(_Branches):
    """``kind`` says what is odd about the network."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        f = y.mean((2, 3))
        odd = {
            "map": lambda: y,
            "dict": lambda: {"out": self.head(f)},
            "pair": lambda: (self.head(f), f),
            "constant": lambda: self.head.bias.expand(len(x), -1) + 0,
            "softmax": lambda: self.head(f).softmax(1),
            "batch": lambda: self.head(f - f.mean(0)),
            "first image": lambda: self.head(f[:1]),
            "merged": lambda: self.head(y.permute(0, 2, 3, 1).reshape(-1, 4)),
            "transposed": lambda: self.head(y.transpose(2, 3).relu().add(y).mean((2, 3))),
            "product": lambda: self.head((y.flatten(2) @ y.flatten(2).transpose(1, 2)).mean(1)),
            "sum over channels": lambda: self.head((y / y.sum(1, keepdim=True)).mean((2, 3))),
            "shares": lambda: self.head((y * y.softmax(1)).mean((2, 3))),
            "power": lambda: self.head((y**3).mean((2, 3))),
            "between pixels": lambda: self.head(
                nn.functional.interpolate(y, scale_factor=2, mode="bilinear").amax((2, 3))),
            "shuffled places": lambda: self.head(
                nn.functional.pixel_shuffle(y, 2).relu().expand(-1, 4, -1, -1).mean((2, 3))),
            "deviation": lambda: self.head(y.std((2, 3))),
            "padded features": lambda: self.head(nn.functional.pad(f[:, :2], (1, 1))),
            "one dimension": lambda: self.head(nn.functional.conv1d(y.flatten(2), self.conv.weight
                                               [:, :1, 0].expand(4, 4, 3)).mean(2)),
        }  # fmt: skip
        return odd[self.kind]()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (_Branches(), "torch.export cannot follow"),
        (_TwoInputs(), "torch.export cannot follow"),
        (_Variant("map"), r"output has shape \(2, 4, 14, 14\)"),
        (_Variant("dict"), "returns a dict"),
        (_Variant("pair"), "1 inputs and 2 outputs"),
        (_Variant("constant"), "does not depend"),
        (_Variant("softmax"), "softmax"),
        (_Variant("batch"), "mean"),
        (_Variant("first image"), "between the images of a batch"),
        (_Variant("merged"), "merges the batch"),
        (_Variant("transposed"), "rearrangement of 'conv"),
        (_Variant("product"), "aten"),
        (_Variant("sum over channels"), "divides by an activation"),
        (_Variant("shares"), "shares out among 4"),
        (_Variant("power"), "to the power of 3"),
        (_Variant("between pixels"), "nearest pixel"),
        (_Variant("shuffled places"), "rearrangement of"),
        (_Variant("deviation"), "aten.var"),
        (_Variant("padded features"), "pads channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten(), nn.LogSoftmax(1)), "return the scores"),
        (nn.Sequential(nn.Conv2d(3, 4, 16), nn.Hardshrink(), nn.Flatten()), r"'1' \(Hardshrink\)"),
        (_Variant("one dimension"), "one-dimensional convolution"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_what_is_not_followed_is_refused_by_name(module: nn.Module, names: str) -> None:
    with pytest.raises(UnsupportedError, match=names):
        capture(module, (16, 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    exhaustive([("vit_b_16", 224), ("swin_t", 64), ("maxvit_t", 224)], lambda c: c[0] == "swin_t"),
)
def test_transformers_are_refused_with_operator_and_layer(name: str, side: int) -> None:
    with pytest.raises(UnsupportedError, match=r"operator aten\.\S+ in layer '"):
        capture(torchvision.models.get_model(name), (side, side))
