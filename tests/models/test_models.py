"""Every form of MODEL is loaded ready for inference, or refused with the way out."""

from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from distillnet.classes import imagenet_table
from distillnet.errors import InputError
from distillnet.images.preprocessing import Preprocessing, preprocess
from distillnet.models import Model, load_model, random_model, sources
from distillnet.models.weights import load_weights
from weights_on_disk import SMALL, saved


def test_a_loaded_model_is_ready_for_inference(small: Model, tmp_path: Path) -> None:
    model = load_model(SMALL, weights=saved(small, tmp_path / "w.safetensors"))
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.parameters())
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert model.name == SMALL
    assert model.classes == imagenet_table()
    assert model.weights_sha256 == small.weights_sha256
    x_nchw = torch.rand(2, 3, 64, 64)
    assert torch.equal(model.module(x_nchw), small.module(x_nchw))


@pytest.mark.parametrize(
    "name", ["googlenet", "densenet121", "mnasnet0_5", "regnet_x_400mf", "mobilenet_v3_small"]
)
def test_torchvision_weights_fit(name: str, tmp_path: Path) -> None:
    """One of each family that torchvision builds or loads in a way of its own."""
    model = random_model(f"torchvision:{name}", input_size=64)
    path = tmp_path / "w.pth"
    torch.save(model.module.state_dict(), path)
    loaded = load_model(f"torchvision:{name}", weights=path, input_size=64)
    assert loaded.weights_sha256 == model.weights_sha256


def test_old_densenet_keys_are_understood() -> None:
    source = sources.open_source("torchvision:densenet121")
    state = source.build().state_dict()
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for name, value in state.items()
    }
    assert old.keys() != state.keys()
    assert source.rename(old).keys() == state.keys()


def test_auxiliary_heads_are_left_out() -> None:
    full = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    module = sources.open_source("torchvision:googlenet").build()
    load_weights(module, full.state_dict(), "test")
    x_nchw = torch.rand(1, 3, 64, 64)
    full.transform_input = True  # as with the default weights
    assert torch.equal(module.eval()(x_nchw), full.eval()(x_nchw))


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", (300, 200)), ("efficientnet_b0", (211, 333))]
)
def test_preprocessing_is_torchvisions(name: str, size: tuple[int, int]) -> None:
    ours = random_model(f"torchvision:{name}").preprocessing
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    torch.manual_seed(0)
    image = transforms.to_pil_image(torch.rand(3, *size))
    torch.testing.assert_close(preprocess(image, ours), theirs(image), atol=1e-5, rtol=0)
    assert theirs.interpolation == InterpolationMode(ours.interpolation)


def test_preprocessing_options_replace_the_networks_own(small: Model, tmp_path: Path) -> None:
    weights = saved(small, tmp_path / "w.safetensors")
    how = load_model(SMALL, weights=weights, input_size=112, mean=(0, 0, 0), std=(1, 0.5, 1))
    assert how.preprocessing == Preprocessing((112, 112), (0, 0, 0), (1, 0.5, 1), resize=128)


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    model = random_model("timm:resnet10t", input_size=64)
    data = timm.data.resolve_data_config(model=timm.create_model("resnet10t"))
    assert model.preprocessing.mean == data["mean"]
    assert model.preprocessing.interpolation == data["interpolation"]
    assert random_model("timm:resnet10t").preprocessing.resize == int(176 / data["crop_pct"])
    assert len(model.classes) == 1000


def test_class_names(small: Model, tmp_path: Path) -> None:
    table = tmp_path / "names.tsv"
    table.write_text("index\tname\n0\tnought\n" + "".join(f"{i}\tn{i}\n" for i in range(1, 10)))
    digits = random_model("zoo:tf_mnist")
    weights = saved(digits, tmp_path / "w.safetensors")
    assert digits.classes.names == tuple("0123456789")
    assert random_model("zoo:tf_cifar").classes.resolve("frog") == 6
    named = load_model("zoo:tf_mnist", weights=weights, class_names=table)
    assert named.classes.resolve("nought") == 0
    with pytest.raises(InputError):  # ten names for a thousand classes
        load_model(SMALL, weights=saved(small, tmp_path / "v.safetensors"), class_names=table)


def test_random_models_repeat_and_leave_the_global_state() -> None:
    before = torch.get_rng_state()
    hashes = [random_model("zoo:tf_mnist", seed=seed).weights_sha256 for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(before, torch.get_rng_state())


_FILE = """
import torch
from dataclasses import dataclass
from torch import nn
from helper import CLASSES  # lies beside this file

@dataclass
class Options:
    classes: int = CLASSES

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, Options().classes))

def half():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)).double()
    return net.train()

def lazy(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(5))
def nothing(): pass
def needs(argument): pass
def leaves(): raise SystemExit(3)
def one_class(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 1))
def maps(): return nn.Conv2d(3, 4, 3)
def pair():
    class Pair(nn.Module):
        def forward(self, x): return x, x
    return Pair()
def diverged():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5))
    nn.init.constant_(net[1].bias, float("nan"))
    return net
def divides():
    class Divides(nn.Module):
        def forward(self, x): return x.flatten(1)[:, :4] / x.sum()
    return Divides()
def grey(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("CLASSES = 7")
    path = tmp_path / "net.py"
    path.write_text(_FILE)
    return path


_HOW = {"input_size": 8, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def test_python_files(user_file: Path) -> None:
    model = load_model(f"{user_file}:network", **_HOW)
    assert model.classes.names == tuple("0123456")
    assert model.preprocessing == Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3)
    half = load_model(f"{user_file}:half", **_HOW)
    assert not half.module.training
    assert {p.dtype for p in half.module.parameters()} == {torch.float32}
    grey = load_model(f"{user_file}:grey", input_size=8, mean=(0.1,), std=(0.3,))
    assert grey.preprocessing.channels == "L"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("netwrk", {}, "such as network"),
        ("lazy", {}, "lazy layers"),
        ("nothing", {}, "returned a NoneType"),
        ("needs", {}, "TypeError.*argument"),
        ("leaves", {}, "SystemExit"),
        ("one_class", {}, r"shape \(2, 1\).*two or"),
        ("maps", {}, r"shape \(2, 4, 6, 6\)"),
        ("pair", {}, "returns a tuple"),
        ("diverged", {}, "1.bias holds 5 NaN"),
        ("divides", {}, "NaN or infinite scores"),
        ("network", {"input_size": None}, "--input-size"),
        ("network", {"mean": None}, "--mean"),
        ("network", {"input_size": 0}, "input size 0"),
        ("network", {"std": (1.0, 0.0, 1.0)}, "--std 0, expected numbers from 0.001"),
        ("network", {"mean": (0.5, 0.5)}, "3 of each"),
        ("grey", {}, r"fails on images of shape \(2, 3, 8, 8\)"),
    ],
)
def test_python_files_that_cannot_be_used(user_file: Path, name, options, message) -> None:
    with pytest.raises(InputError, match=message):
        load_model(f"{user_file}:{name}", **(_HOW | options))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet19", "resnet18"),
        ("torchvision:", "expected a name"),
        ("timm:resnet10", "resnet10t"),
        ("zoo:mnist", "tf_mnist"),
        ("zoo:tf_mnist", "distillnet train"),
        ("zoo:bvlc_googlenet", "--weights"),
        ("resnet18", "Did you mean torchvision:resnet18"),
        ("tf_cifar", "Did you mean zoo:tf_cifar"),
        ("missing.py:net", "no file missing.py"),
        ("missing.py", "names no callable"),
        ("missing.pt2", "no file missing.pt2"),
        ("", "expected torchvision:NAME"),
    ],
)
def test_names_that_do_not_exist(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(spec)


def test_a_failed_download_is_never_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **options: object) -> None:
        assert options["weights_only"]
        assert options["check_hash"]
        raise OSError("unreachable")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(InputError, match=r"unreachable.*--weights"):
        load_model("torchvision:resnet18")


def test_what_timm_downloads_is_compared_with_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = pytest.importorskip("timm.models._builder")
    asked = []

    def fail(*_: object, **options: object) -> None:
        asked.append(options["check_hash"])
        raise OSError("unreachable")

    for name in ("load_state_dict_from_url", "download_cached_file", "load_state_dict_from_hf"):
        monkeypatch.setattr(builder, name, fail, raising=False)
    monkeypatch.setattr(builder, "has_hf_hub", lambda *_, **__: False)
    monkeypatch.setattr(builder, "_CHECK_HASH", False)
    with pytest.raises(InputError, match=r"unreachable.*--weights"):
        load_model("timm:resnet18.tv_in1k")  # by its address
    assert asked == [True]
