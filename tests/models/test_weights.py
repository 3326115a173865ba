"""Files of weights: read in every wrapping, refused where they hold none, never executed."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.models import Model, load_model, sources
from distillnet.models.train import save_weights
from distillnet.models.weights import load_weights, read_weights, weights_sha256
from evil import Evil
from weights_on_disk import SMALL


def test_weights_in_every_wrapping(small: Model, tmp_path: Path) -> None:
    state = small.module.state_dict()
    prefixed = {f"module.{name}": value for name, value in state.items()}
    for number, content in enumerate(
        [state, {"state_dict": prefixed, "epoch": 3}, {"model": state}, OrderedDict(prefixed)]
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        module = sources.open_source(SMALL).skeleton()
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
    loaded = load_model(SMALL, weights=path).module.state_dict()
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
        load_model(SMALL, weights=path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(small: Model, tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in small.module.state_dict().items()}
    state["features.0.weight"][0, 0, 0, 0] = value
    path = tmp_path / "w.safetensors"
    save_weights(path, state)
    with pytest.raises(InputError, match=r"features.0.weight holds 1 NaN or infinite"):
        load_model(SMALL, weights=path)


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
    "pickle": lambda path: path.write_bytes(pickle.dumps(Evil(path.with_name("trace")))),
    "torch pickle": lambda path: torch.save({"w": Evil(path.with_name("trace"))}, path),
    "legacy pickle": lambda path: torch.save(
        {"w": Evil(path.with_name("trace"))}, path, _use_new_zipfile_serialization=False
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
