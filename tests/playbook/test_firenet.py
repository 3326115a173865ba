"""The FireNet family holds SqueezeNet, and counts what its networks have."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torchvision

from distillnet.errors import InputError
from distillnet.graph.capture import capture
from distillnet.models import load_model, random_model
from distillnet.models.designs import FireDesign, read_design
from distillnet.models.names import check_model, classes_before
from distillnet.models.zoo import FireNet
from distillnet.playbook.firenet import KNOWN, fire_grid, fire_point
from distillnet.playbook.quantities import quantities

SQUEEZENETS = {
    "squeezenet1_0": FireDesign(),
    "squeezenet1_1": FireDesign(conv1_filters=64, conv1_kernel=3, pools=(1, 3, 5)),
}


@pytest.mark.parametrize("name", SQUEEZENETS)
def test_squeezenet_is_a_point_of_the_family(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = FireNet(SQUEEZENETS[name]).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 96, 96)
    assert torch.equal(ours(x), theirs(x))
    counted = fire_point(SQUEEZENETS[name])
    assert counted.quantities.params == sum(p.numel() for p in theirs.parameters())
    assert counted.name == KNOWN[SQUEEZENETS[name]]


@pytest.mark.slow
def test_torchvisions_weights_fit(data_dir: Path) -> None:
    weights = data_dir / "weights" / "squeezenet1_0.safetensors"
    ours, theirs = (
        load_model(spec, weights=weights) for spec in ("zoo:firenet", "torchvision:squeezenet1_0")
    )
    assert ours.preprocessing == theirs.preprocessing
    assert ours.classes == theirs.classes
    x = torch.randn(1, 3, 224, 224)
    assert torch.equal(ours.module(x), theirs.module(x))


@pytest.mark.parametrize(
    "design",
    [
        FireDesign(modules=2, pools=(2,), classes=3),
        FireDesign(base=48, increment=7, frequency=3, squeeze_ratio=0.3, share_3x3=0.2),
        FireDesign(share_3x3=0.0, modules=3, pools=(1,)),
        FireDesign(share_3x3=1.0, modules=3, pools=(4,), conv1_kernel=5),
    ],
)
def test_what_is_counted_is_what_the_network_has(design: FireDesign) -> None:
    point = fire_point(design, (64, 64))
    module = FireNet(design)
    assert point.quantities.params == sum(p.numel() for p in module.parameters())
    assert point.quantities == quantities(capture(module, (64, 64)))


def test_weights_grow_with_the_squeeze_ratio_as_published() -> None:
    """SqueezeNet's paper: 4.8 MB at 0.125 and 19 MB at 0.75; 5.7, 13 and 21 MB by share of 3x3.

    Its MB are 2 ** 20 bytes, its shares those at a squeeze ratio of 0.5.
    """
    megabytes = [
        fire_point(design).quantities.gradient_bytes / 2**20
        for design in (
            *fire_grid({"squeeze_ratio": (0.125, 0.75)}),
            *fire_grid({"squeeze_ratio": (0.5,), "share_3x3": (0.01, 0.5, 0.99)}),
        )
    ]
    assert megabytes == pytest.approx([4.8, 18.5, 5.6, 13.0, 20.3], abs=0.05)


@pytest.mark.parametrize(
    "design", [*SQUEEZENETS.values(), FireDesign(share_3x3=0.25, classes=7), FireDesign(pools=())]
)
def test_a_design_is_what_its_model_argument_says(design: FireDesign) -> None:
    spec = design.model()
    check_model(spec)
    _, _, described = spec.removeprefix("zoo:").partition(":")
    assert read_design(described) == design


def test_a_design_is_a_model() -> None:
    spec = "zoo:firenet:modules=2,pools=1+3,base=16,classes=4"
    model = random_model(spec, input_size=64)
    assert model.module(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    assert classes_before(spec, None) == model.classes
    assert classes_before("zoo:firenet", None) == random_model("zoo:firenet").classes


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("bas=3", "found 'bas=3'"),
        ("base", "expected KEY=VALUE"),
        ("base=64,base=32", "each key once"),
        ("base=many", "base=many"),
        ("base=0", "from 1 on"),
        ("squeeze_ratio=0", "above 0"),
        ("squeeze_ratio=nan", "above 0"),
        ("share_3x3=1.5", "from 0 to 1"),
        ("pools=1+1", "different layers"),
        ("pools=10", "1 (conv1) to 9"),
        ("pools=one", "with + between"),
        ("modules=100000", "at most 1000"),
        ("base=100000", "parameters"),
        ("classes=1", "from 2 on"),
    ],
)
def test_designs_that_cannot_be_are_refused(described: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        check_model(f"zoo:firenet:{described}")
    assert message in str(refusal.value)


def test_a_grid_is_all_combinations() -> None:
    axes = {"share_3x3": (0.25, 0.75), "base": (32, 64, 128)}
    found = [(design.base, design.share_3x3) for design in fire_grid(axes)]
    assert found == [(b, s) for b in (32, 64, 128) for s in (0.25, 0.75)]
    with pytest.raises(InputError, match="grid of 2,001"):
        fire_grid({"classes": range(2, 2003)})
    with pytest.raises(InputError, match="leaves nothing"):
        fire_point(FireDesign(), (6, 6))
    assert {field.name for field in fields(FireDesign)} >= set(axes)
