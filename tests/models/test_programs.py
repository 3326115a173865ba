"""Exported programmes compute what was exported; hostile ones are refused or defused."""

import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.models import load_model
from distillnet.models.weights import weights_sha256
from evil import Evil
from programmes import edit, on_graph


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
        "data/constants/opaque_obj_0": pickle.dumps(Evil(trace)),
    }


def _torch_bytes(trace: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Evil(trace), buffer)
    return buffer.getvalue()


def _code(trace: Path) -> str:
    return f"__import__('pathlib').Path({str(trace)!r}).touch()"


def _call(target: str, *strings: str) -> dict[str, object]:
    inputs = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in strings]
    call = {"target": target, "inputs": inputs, "outputs": [], "metadata": {}, "name": "evil"}
    return on_graph(lambda _, graph: graph["nodes"].append(call))


def _rename(old: str, new: str) -> dict[str, object]:
    def rewrite(data: bytes) -> bytes:
        return data.replace(json.dumps(old).encode(), json.dumps(new).encode())

    return {"models/model.json": rewrite}


def _size(expression: str) -> dict[str, object]:
    def change(_: object, graph: dict) -> None:
        size = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}
        graph["tensor_values"]["x"]["sizes"][0] = size

    return on_graph(change)


def _factory(document: dict, _: object) -> None:
    spec = '{"default_factory_module": "antigravity", "default_factory_name": "x"}'
    signature = document["graph_module"]["module_call_graph"][0]["signature"]
    leaf = {"type": "collections.defaultdict", "context": spec, "children_spec": []}
    signature["out_spec"] = json.dumps([1, leaf])


# With torch.export.load of PyTorch 2.15 the pickles run code; of the others some later check of its
# own may or may not save the user.
_HOSTILE = {
    "pickled weight": _pickled_weight,
    "pickled constant": _pickled_constant,
    "any function of torch": lambda trace: _call("torch.os.system", f"touch {trace}"),
    "pickle loader": lambda trace: _call("torch.load", str(trace)),
    "file mapper": lambda trace: _call("torch.ops.aten.from_file.default", str(trace)),
    "dunder": lambda trace: _call("_operator.__class__.__base__", str(trace)),
    "higher order": lambda trace: _call("torch.ops.higher_order.cond"),
    "weight name": lambda trace: _rename("head.bias", f'head.bias"+{_code(trace)}+"'),
    "tree specification": lambda trace: on_graph(_factory),
    "compiled library": lambda trace: {"data/aotinductor/model/net.so": b"\x7fELF"},
    "second network": lambda trace: {"models/other.json": b"{}"},
}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_hostile_programmes_are_refused(programme: Path, tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "net.pt2"
    edit(programme, path, **_HOSTILE[kind](trace))
    with pytest.raises(InputError, match="is refused"):
        load_model(str(path), mean=(0, 0, 0), std=(1, 1, 1))
    assert not trace.exists()


# Parts that no CNN needs are left out, whatever they hold. With torch.export.load most run code.
_IGNORED = {
    "node name": lambda trace: _rename("linear", f"y = {_code(trace)}; linear"),
    "attribute": lambda trace: _size("Integer.__class__"),
    "expression in a symbol": lambda trace: _size(f"Integer({_code(trace)!r})"),
    "expression": lambda trace: _size(_code(trace)),
    "guard": lambda trace: on_graph(
        lambda document, _: document.update(guards_code=[_code(trace)])
    ),
    "sample inputs": lambda trace: {"data/sample_inputs/model.pt": _torch_bytes(trace)},
    "legacy weights": lambda trace: {"data/weights/model.pt": _torch_bytes(trace)},
    "legacy constants": lambda trace: {"data/constants/model.pt": _torch_bytes(trace)},
    "metadata": lambda trace: on_graph(
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
    edit(programme, path, **_IGNORED[kind](trace))
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
