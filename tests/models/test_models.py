"""Loading: every form of MODEL, the networks of the paper, and files that are wrong or hostile."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from distillnet.classes import imagenet_table
from distillnet.errors import InputError
from distillnet.images import limit, load_all, open_images
from distillnet.images.preprocessing import Preprocessing, preprocess
from distillnet.models import Model, load_model, random_model, sources
from distillnet.models.train import save_weights
from distillnet.models.weights import load_weights, read_weights, weights_sha256
from distillnet.models.zoo import bvlc_googlenet, tf_cifar, tf_mnist
from distillnet.models.zoo.googlenet import from_caffe_names

_SMALL = "torchvision:squeezenet1_1"


def _count_macs(module: nn.Module, x_nchw: Tensor) -> int:
    """By a formula per layer: output positions times the weights that each of them reads."""
    macs = 0

    def count(layer: nn.Module, _: object, y: Tensor) -> None:
        nonlocal macs
        positions = y.shape[2] * y.shape[3] if y.ndim == 4 else 1
        macs += positions * layer.weight.numel()

    handles = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    module(x_nchw)
    for handle in handles:
        handle.remove()
    return macs


# --- the networks of the paper


@pytest.mark.parametrize(
    ("build", "shape", "n_parameters", "n_macs"),
    [
        (
            tf_mnist,
            (1, 28, 28),
            (25 * 1 + 1) * 32 + (25 * 32 + 1) * 64 + (49 * 64 + 1) * 1024 + (1024 + 1) * 10,
            784 * 25 * 32 + 196 * 25 * 32 * 64 + 49 * 64 * 1024 + 1024 * 10,
        ),
        (
            tf_cifar,
            (3, 24, 24),
            (25 * 3 + 1) * 64 + (25 * 64 + 1) * 64 + 2305 * 384 + 385 * 192 + 193 * 10,
            576 * 25 * 3 * 64 + 144 * 25 * 64 * 64 + 2304 * 384 + 384 * 192 + 192 * 10,
        ),
        (bvlc_googlenet, (3, 224, 224), 6_998_552, None),
    ],
)
def test_sizes_of_the_zoo(build, shape, n_parameters, n_macs) -> None:
    module = build().eval()
    assert sum(p.numel() for p in module.parameters()) == n_parameters
    macs = _count_macs(module, torch.zeros(1, *shape))
    assert n_macs is None or macs == n_macs


def test_sizes_that_the_method_states() -> None:
    googlenet = bvlc_googlenet().eval()
    assert sum(p.numel() for p in tf_mnist().parameters()) == 3_274_634
    assert round(_count_macs(tf_mnist(), torch.zeros(1, 1, 28, 28)) / 1e6, 2) == 13.88
    # Without the last layer.
    macs = _count_macs(googlenet, torch.zeros(1, 3, 224, 224)) - 1024 * 1000
    assert round(macs / 1e6, 2) == 1581.65


def test_tensorflows_response_norm() -> None:
    """sqr_sum[d] = sum(x[d - 4 : d + 5] ** 2); y = x / (1 + 0.001 / 9 * sqr_sum) ** 0.75."""
    torch.manual_seed(0)
    x = 5 * torch.randn(2, 20, 3, 3, dtype=torch.float64)
    sums = torch.stack([(x[:, max(0, d - 4) : d + 5] ** 2).sum(1) for d in range(20)], dim=1)
    torch.testing.assert_close(tf_cifar().norm1(x), x / (1 + 0.001 / 9 * sums) ** 0.75)


def test_caffe_names_cover_the_network() -> None:
    ours = bvlc_googlenet().state_dict()
    assert sum("inception_" in name for name in ours) == 9 * 6 * 2
    assert dict(from_caffe_names(ours)).keys() == ours.keys()  # our own names stay
    assert from_caffe_names({"odd": torch.zeros(1)}).keys() == {"odd"}


def test_bvlc_googlenet_recognises_real_images(data_dir: Path) -> None:
    weights = data_dir / "weights" / "bvlc_googlenet.safetensors"
    model = load_model("zoo:bvlc_googlenet", weights=weights)
    images = limit(open_images(data_dir / "imagenette" / "val", model.classes).train, 5, seed=0)
    loaded = load_all(images, model.preprocessing)
    with torch.inference_mode():
        scores = model.module(loaded.x_nchw)
    mission = loaded.labels_n.unique()
    closed = mission[scores[:, mission].argmax(1)]
    assert len(loaded.labels_n) == 50
    # 69.2 % and 97.6 % on all 500.
    assert (scores.argmax(1) == loaded.labels_n).double().mean() > 0.55
    assert (closed == loaded.labels_n).double().mean() > 0.9


# --- the forms of MODEL


@pytest.fixture(scope="module")
def small() -> Model:
    return random_model(_SMALL, input_size=64)


def _saved(model: Model, path: Path) -> Path:
    save_weights(path, model.module.state_dict())
    return path


def test_a_loaded_model_is_ready_for_inference(small: Model, tmp_path: Path) -> None:
    model = load_model(_SMALL, weights=_saved(small, tmp_path / "w.safetensors"))
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.parameters())
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}
    assert model.name == _SMALL
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
    weights = _saved(small, tmp_path / "w.safetensors")
    how = load_model(_SMALL, weights=weights, input_size=112, mean=(0, 0, 0), std=(1, 2, 1))
    assert how.preprocessing == Preprocessing((112, 112), (0, 0, 0), (1, 2, 1), resize=128)


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
    weights = _saved(digits, tmp_path / "w.safetensors")
    assert digits.classes.names == tuple("0123456789")
    assert random_model("zoo:tf_cifar").classes.resolve("frog") == 6
    named = load_model("zoo:tf_mnist", weights=weights, class_names=table)
    assert named.classes.resolve("nought") == 0
    with pytest.raises(InputError):  # ten names for a thousand classes
        load_model(_SMALL, weights=_saved(small, tmp_path / "v.safetensors"), class_names=table)


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
        ("network", {"std": (1.0, 0.0, 1.0)}, "above 0"),
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


# --- weights files


class _Evil:
    """Unpickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_weights_in_every_wrapping(small: Model, tmp_path: Path) -> None:
    state = small.module.state_dict()
    prefixed = {f"module.{name}": value for name, value in state.items()}
    for number, content in enumerate(
        [state, {"state_dict": prefixed, "epoch": 3}, {"model": state}, OrderedDict(prefixed)]
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        module = sources.open_source(_SMALL).skeleton()
        load_weights(module, read_weights(path), "test")
        assert weights_sha256(module) == small.weights_sha256
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert read_weights(path).keys() == state.keys()
    unnamed = tmp_path / "weights"
    safetensors.torch.save_file(state, unnamed)
    assert read_weights(unnamed).keys() == state.keys()


def test_half_precision_weights_become_float32(small: Model, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    halves = {name: value.half() for name, value in small.module.state_dict().items()}
    save_weights(path, halves)
    loaded = load_model(_SMALL, weights=path).module.state_dict()
    assert all(torch.equal(loaded[name], halves[name].float()) for name in halves)


def test_weights_of_another_network(small: Model, tmp_path: Path) -> None:
    state = dict(small.module.state_dict())
    state["classifier.1.weight"] = torch.zeros(10, 512, 1, 1)
    state["extra"] = torch.zeros(1)
    del state["features.0.bias"]
    path = tmp_path / "w.safetensors"
    save_weights(path, state)
    message = r"1 missing: features.0.bias; 1 unexpected: extra; 1 mis-shaped: classifier.1.weight"
    with pytest.raises(InputError, match=message + r" is \(10, 512, 1, 1\) instead of \(1000,"):
        load_model(_SMALL, weights=path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(small: Model, tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in small.module.state_dict().items()}
    state["features.0.weight"][0, 0, 0, 0] = value
    path = tmp_path / "w.safetensors"
    save_weights(path, state)
    with pytest.raises(InputError, match=r"features.0.weight holds 1 NaN or infinite"):
        load_model(_SMALL, weights=path)


def _compressed(path: Path) -> None:
    torch.save({"w": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)


_BAD_WEIGHTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>404</html>"),
    "long header": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),
    "pickle": lambda path: path.write_bytes(pickle.dumps(_Evil(path.with_name("trace")))),
    "torch pickle": lambda path: torch.save({"w": _Evil(path.with_name("trace"))}, path),
    "legacy pickle": lambda path: torch.save(
        {"w": _Evil(path.with_name("trace"))}, path, _use_new_zipfile_serialization=False
    ),
    "script": lambda path: torch.jit.save(torch.jit.script(nn.ReLU()), path),
    "module": lambda path: torch.save(nn.ReLU(), path),
    "tensor": lambda path: torch.save(torch.zeros(3), path),
    "nested": lambda path: torch.save({"a": {"b": torch.zeros(3)}}, path),
    "numbers": lambda path: torch.save({"a": 3}, path),
    "no tensors": lambda path: torch.save({}, path),
    "sparse": lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path),
    "meta": lambda path: torch.save({"a": torch.zeros(3, device="meta")}, path),
    "complex": lambda path: torch.save({"a": torch.zeros(3, dtype=torch.complex64)}, path),
    "bomb": _compressed,
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", _BAD_WEIGHTS)
def test_files_that_hold_no_weights(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    _BAD_WEIGHTS[kind](path)
    with pytest.raises(InputError, match=r"w\.(pth|safetensors)"):
        read_weights(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_weights(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    state = {"a": torch.arange(10.0), "b": torch.ones(3, 3)}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_weights(path, state)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="Cannot read weights"):
            read_weights(path)


def test_sha256_sees_names_shapes_dtypes_and_values() -> None:
    def of(**tensors: Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_sha256(module)

    zeros = torch.zeros(2, 3)
    hashes = [
        of(a=zeros, b=torch.ones(2)),
        of(a=zeros, c=torch.ones(2)),
        of(a=zeros.T, b=torch.ones(2)),
        of(a=zeros.int(), b=torch.ones(2)),
        of(a=zeros, b=torch.tensor([1.0, 2.0])),
    ]
    assert len(set(hashes)) == len(hashes)
    assert of(b=torch.ones(2), a=zeros) == hashes[0]
    assert of(a=torch.zeros(3, 2).T, b=torch.ones(2)) == hashes[0]


# --- exported programmes


class _Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())
        self.body.add_module("block1-0", nn.Conv2d(4, 4, 1))  # as RegNet names its layers
        self.head = nn.Linear(4, 3)
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x * self.scale + torch.tensor([0.5]))
        return self.head(x.mean((2, 3)).view(x.shape[0], -1))


def _exported(path: Path, *, training: bool = False, sides_too: bool = False) -> nn.Module:
    torch.manual_seed(0)
    module = _Classifier().train(training)
    options = dict.fromkeys([0, 2, 3] if sides_too else [0], torch.export.Dim.AUTO)
    program = torch.export.export(module, (torch.rand(2, 3, 8, 9),), dynamic_shapes=(options,))
    torch.export.save(program, path)
    return module.eval()


@pytest.fixture(scope="module")
def programme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programme") / "net.pt2"
    _exported(path)
    return path


@pytest.mark.parametrize("sides_too", [False, True])
def test_programmes_compute_what_was_exported(tmp_path: Path, sides_too: bool) -> None:
    path = tmp_path / "net.pt2"
    module = _exported(path, sides_too=sides_too)
    model = load_model(str(path), mean=(0, 0, 0), std=(1, 1, 1))
    assert model.preprocessing.input_size == (8, 9)
    assert len(model.classes) == 3
    x_nchw = torch.rand(5, 3, 8, 9)
    torch.testing.assert_close(model.module(x_nchw), module(x_nchw))
    assert weights_sha256(model.module.eval()) == weights_sha256(module)


def _edit(source: Path, target: Path, **changes: object) -> None:
    """Copy an archive, its records changed by functions of their bytes, or added."""
    with zipfile.ZipFile(source) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(records)).partition("/")[0]
    for name, change in changes.items():
        key = f"{root}/{name}"
        records[key] = change(records.get(key, b"")) if callable(change) else change
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)


def _graph(change) -> dict[str, object]:
    def rewrite(data: bytes) -> bytes:
        document = json.loads(data)
        change(document, document["graph_module"]["graph"])
        return json.dumps(document).encode()

    return {"models/model.json": rewrite}


def _pickled_weight(trace: Path) -> dict[str, object]:
    def rewrite(data: bytes) -> bytes:
        config = json.loads(data)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()

    return {
        "data/weights/model_weights_config.json": rewrite,
        "data/weights/weight_0": _torch_bytes(trace),
    }


def _pickled_constant(trace: Path) -> dict[str, object]:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    config = {"config": {"evil": entry | {"tensor_meta": None}}}
    return {
        "data/constants/model_constants_config.json": json.dumps(config).encode(),
        "data/constants/opaque_obj_0": pickle.dumps(_Evil(trace)),
    }


def _torch_bytes(trace: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(_Evil(trace), buffer)
    return buffer.getvalue()


def _code(trace: Path) -> str:
    return f"__import__('pathlib').Path({str(trace)!r}).touch()"


def _call(target: str, *strings: str) -> dict[str, object]:
    inputs = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in strings]
    call = {"target": target, "inputs": inputs, "outputs": [], "metadata": {}, "name": "evil"}
    return _graph(lambda _, graph: graph["nodes"].append(call))


def _rename(old: str, new: str) -> dict[str, object]:
    def rewrite(data: bytes) -> bytes:
        return data.replace(json.dumps(old).encode(), json.dumps(new).encode())

    return {"models/model.json": rewrite}


def _size(expression: str) -> dict[str, object]:
    def change(_: object, graph: dict) -> None:
        size = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}
        graph["tensor_values"]["x"]["sizes"][0] = size

    return _graph(change)


def _factory(document: dict, _: object) -> None:
    spec = '{"default_factory_module": "antigravity", "default_factory_name": "x"}'
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": "collections.defaultdict", "context": spec, "children_spec": []}
    signature["out_spec"] = json.dumps([1, leaf])


# With torch.export.load of PyTorch 2.15 the pickles and the expression run code; of the others some
# later check of its own may or may not save the user.
_HOSTILE = {
    "pickled weight": _pickled_weight,
    "pickled constant": _pickled_constant,
    "any function of torch": lambda trace: _call("torch.os.system", f"touch {trace}"),
    "pickle loader": lambda trace: _call("torch.load", str(trace)),
    "file mapper": lambda trace: _call("torch.ops.aten.from_file.default", str(trace)),
    "dunder": lambda trace: _call("_operator.__class__.__base__", str(trace)),
    "higher order": lambda trace: _call("torch.ops.higher_order.cond"),
    "expression": lambda trace: _size(_code(trace)),
    "expression in a symbol": lambda trace: _size(f"Integer({_code(trace)!r})"),
    "attribute": lambda trace: _size("Integer.__class__"),
    "node name": lambda trace: _rename("linear", f"y = {_code(trace)}; linear"),
    "weight name": lambda trace: _rename("head.bias", f'head.bias"+{_code(trace)}+"'),
    "tree specification": lambda trace: _graph(_factory),
    "compiled library": lambda trace: {"data/aotinductor/model/net.so": b"\x7fELF"},
    "second network": lambda trace: {"models/other.json": b"{}"},
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_hostile_programmes_are_refused(programme: Path, tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "net.pt2"
    _edit(programme, path, **_HOSTILE[kind](trace))
    with pytest.raises(InputError, match="is refused"):
        load_model(str(path), mean=(0, 0, 0), std=(1, 1, 1))
    assert not trace.exists()


# Parts that no CNN needs are left out, whatever they hold. With torch.export.load all but the last
# run code.
_IGNORED = {
    "guard": lambda trace: _graph(lambda document, _: document.update(guards_code=[_code(trace)])),
    "sample inputs": lambda trace: {"data/sample_inputs/model.pt": _torch_bytes(trace)},
    "legacy weights": lambda trace: {"data/weights/model.pt": _torch_bytes(trace)},
    "legacy constants": lambda trace: {"data/constants/model.pt": _torch_bytes(trace)},
    "metadata": lambda trace: _graph(
        lambda _, graph: graph["nodes"][0]["metadata"].update(
            source_fn_stack="a,torch.os.system", stack_trace=f"\n{_code(trace)}"
        )
    ),
}


@pytest.mark.parametrize("kind", _IGNORED)
def test_hostile_parts_of_programmes_are_left_out(
    programme: Path, tmp_path: Path, kind: str
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "net.pt2"
    _edit(programme, path, **_IGNORED[kind](trace))
    options = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    changed, original = (load_model(str(p), **options) for p in (path, programme))
    assert changed.weights_sha256 == original.weights_sha256
    assert not trace.exists()


def test_programmes_that_cannot_be_used(programme: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    whole = programme.read_bytes()
    options = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    for length in range(0, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"net\.pt2"):
            load_model(str(path), **options)
    torch.save({"w": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"no 'models/model\.json'"):
        load_model(str(path), **options)
    _exported(path, training=True)
    with pytest.raises(InputError, match=r"model\.eval\(\)"):
        load_model(str(path), **options)
    with pytest.raises(InputError, match="--mean"):
        load_model(str(programme))


def test_a_programme_for_one_batch_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(_Classifier().eval(), (torch.rand(1, 3, 8, 8),)), path)
    with pytest.raises(InputError, match="dynamic batch"):
        load_model(str(path), mean=(0, 0, 0), std=(1, 1, 1))
