"""What a programme may call is a closed set; what it makes is known before anything is computed."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.graph.capture.aten import TABLE
from distillnet.models.programs import load_program
from distillnet.models.programs.archive import Refused
from distillnet.models.programs.operators import check_arguments, function_of
from programmes import edit, on_graph

SIDE = 8


class _Net(nn.Module):
    """A layer, channels by constant indices, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)[:, self.order].mean((2, 3)))


@pytest.fixture(scope="module")
def programme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programme") / "net.pt2"
    x = torch.rand(2, 3, SIDE, SIDE)
    options = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(_Net().eval(), (x,), dynamic_shapes=options), path)
    return path


def _argument(value: object) -> dict[str, object]:
    match value:
        case bool():
            return {"as_bool": value}
        case int():
            return {"as_int": value}
        case float():
            return {"as_float": value}
        case str():
            return {"as_tensor": {"name": value}}
        case [str(), *_]:
            return {"as_tensors": [{"name": name} for name in value]}
        case [*_]:
            return {"as_ints": value}
    raise TypeError(value)


def _call(name: str, *results: str, **arguments: object) -> dict[str, object]:
    """A call of an ATen operator; text names values."""
    outputs = [{"as_tensor": {"name": result}} for result in results or ("made",)]
    return {
        "target": f"torch.ops.aten.{name}",
        "inputs": [{"name": k, "arg": _argument(v), "kind": 1} for k, v in arguments.items()],
        "outputs": outputs,
        "metadata": {},
    }


def _with(*calls: dict[str, object]) -> dict[str, object]:
    return on_graph(lambda _, graph: graph["nodes"].extend(calls))


# What was found to read or write outside of its tensors, or was feared to; `b_order`
# stands for any indices, for none of these is called.
_UNCHECKED = [
    _call("max_pool2d_with_indices_backward.default", grad_output="x", self="x", kernel_size=[2, 2],
          stride=[2, 2], padding=[0, 0], dilation=[1, 1], ceil_mode=False, indices="b_order"),
    _call("adaptive_max_pool2d_backward.default", grad_output="x", self="x", indices="b_order"),
    _call("max_unpool2d.default", self="x", indices="b_order", output_size=[9, 9]),
    _call("as_strided.default", self="x", size=[9], stride=[1], storage_offset=10**9),
    _call("as_strided_.default", self="x", size=[9], stride=[1], storage_offset=10**9),
    _call("_ctc_loss.default", "a", "b", log_probs="x", targets="b_order",
          input_lengths=[10**9], target_lengths=[10**9]),
    _call("ctc_loss.IntList", log_probs="x", targets="b_order", input_lengths=[10**9],
          target_lengths=[10**9]),
    _call("segment_reduce.default", data="x", lengths="b_order"),
    _call("embedding_bag.default", "a", "b", "c", "d", weight="x", indices="b_order",
          offsets="b_order"),
    _call("index_put_.default", self="x", indices=["b_order"], values="x"),
    _call("put_.default", self="x", index="b_order", source="x"),
    _call("scatter_.src", self="x", dim=0, index="b_order", src="x"),
    _call("resize_.default", self="x", size=[10**9]),
    _call("set_.source_Tensor", self="x", source="b_order"),
    _call("from_file.default", filename="x"),
    _call("empty.memory_format", size=[4]),
    _call("_reshape_alias.default", self="x", size=[4], stride=[10**9]),
    _call("_convolution_mode.default", input="x", weight="p_a_weight"),
    _call("relu.out", self="x", out="x"),
]  # fmt: skip


@pytest.mark.parametrize("call", _UNCHECKED, ids=lambda call: call["target"].split(".", 3)[-1])
def test_operators_outside_of_the_set_are_refused_by_name(
    programme: Path, tmp_path: Path, call: dict[str, object]
) -> None:
    path = tmp_path / "net.pt2"
    edit(programme, path, **_with(call))
    with pytest.raises(InputError, match=re.escape(f"it calls {call['target']!r}")):
        load_program(path)


def test_the_set_is_what_capture_follows() -> None:
    """Of all of PyTorch's operators none that may be called is unknown to it."""
    names = {s.name.removeprefix("aten::") for s in torch._C._jit_get_all_schemas()
             if s.name.startswith("aten::")}  # fmt: skip
    assert len(names) > 1000
    accepted = set()
    for name in names:
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if packet is not None else ():
            try:
                function_of(f"torch.ops.aten.{name}.{overload}")
            except Refused:
                continue
            accepted.add(name)
            assert overload != "out"
            assert not overload.endswith("_out")
    assert set(TABLE) <= accepted
    assert len(accepted) < 150
    assert not [name for name in accepted if "backward" in name or "strided" in name]
    inference = {name.removesuffix("_") for name in accepted}
    # What export takes apart before capture sees it, or what works on sizes and constants alone.
    beside = {
        "alpha_dropout", "arange", "avg_pool3d", "batch_norm", "channel_shuffle", "chunk",
        "clamp_max", "clamp_min", "conv1d", "eq", "expand_as", "feature_dropout", "flatten", "full",
        "full_like", "lift_fresh_copy", "matmul", "movedim", "narrow", "new_full",
        "new_ones", "new_zeros", "ones", "ones_like", "reshape_as", "rsqrt", "rsub",
        "scalar_tensor", "selu", "sqrt", "square", "stack", "swapaxes", "sym_size", "t", "to",
        "_to_copy", "type_as",
        "unbind", "unflatten", "view_as", "zeros", "zeros_like",
    }  # fmt: skip
    assert inference - set(TABLE) == beside


def _padded(n: int) -> list[dict[str, object]]:
    return [_call("pad.default", self="x", pad=[0, n])]


def _squares(n: int) -> list[dict[str, object]]:
    """A size that is squared again and again."""
    first = _call("sym_size.int", self="x", dim=3)
    first["outputs"] = [{"as_sym_int": {"as_name": "n0"}}]
    calls = [first]
    for i in range(n):
        operand = {"name": "", "arg": {"as_sym_int": {"as_name": f"n{i}"}}, "kind": 1}
        outputs = [{"as_sym_int": {"as_name": f"n{i + 1}"}}]
        calls.append({"target": "_operator.mul", "inputs": [operand] * 2, "outputs": outputs,
                      "metadata": {}})  # fmt: skip
    return calls


_REASONS = {
    "zeros": "makes a tensor",
    "full": "makes a tensor|64-bit|overflow",
    "arange": "makes a tensor",
    "padding": "has the pad",
    "padding within its limit, again and again": "makes a tensor",
    "expanding": "makes a tensor|expanded size",
    "expanding into many": "makes a tensor",
    "a size that is squared": "beyond 64 bits",
    "windows": "has the stride",
    "pools": "has the output_size",
    "pools of nothing": "has the output_size",
    "parts": "more than 4096 parts",
    "groups": "has the groups",
    "negative padding": "has the padding",
    "scales that lead anywhere": "has the scales_h",
    "two results": "2 results declared",
    "no such value": "nothing",
    "no such argument": "is given 'other'",
    "the weights are changed": "changes the images or the weights",
    "what shares memory with the weights is changed": "changes the images or the weights",
    "a view of the images is changed": "changes the images or the weights",
    "one part is no tensor": "another form declared",
    "a tensor is no part": "another form declared",
    "a name is taken": "have the name 'x'",
    "shapes that do not fit": "must be 2D",
    "places that depend on the images": "not constant",
}
_BEYOND = {
    "zeros": [_call("zeros.default", size=[10**12])],
    "full": [_call("full.default", size=[10**9, 10**9], fill_value=1.0)],
    "arange": [_call("arange.default", end=10**13)],
    "padding": _padded(10**9),
    "padding within its limit, again and again": [
        _call("pad.default", "p1", self="x", pad=[60_000, 0, 60_000, 0]),
        _call("pad.default", "p2", self="p1", pad=[0, 0, 0, 0, 60_000, 0]),
    ],
    "expanding": [_call("expand.default", self="x", size=[2, 3, SIDE, SIDE * 10**9])],
    "expanding into many": [
        _call("unsqueeze.default", "u", self="x", dim=0),
        _call("expand.default", self="u", size=[10**8, 2, 3, SIDE, SIDE]),
    ],
    "a size that is squared": _squares(40),
    "windows": [_call("avg_pool2d.default", self="x", kernel_size=[1, 1], stride=[0, 0])],
    "pools": [_call("adaptive_avg_pool2d.default", self="x", output_size=[10**9, 10**9])],
    "pools of nothing": [_call("adaptive_avg_pool2d.default", self="x", output_size=[0, 0])],
    "parts": [
        _call("expand.default", "e", self="b_order", size=[10**6, 4]),
        _call("unbind.int", "parts", self="e", dim=0),
    ],
    "groups": [_call("conv2d.default", input="x", weight="p_a_weight", groups=0)],
    "negative padding": [_call("conv2d.default", input="x", weight="p_a_weight", padding=[-9, -9])],
    "scales that lead anywhere": [
        _call("upsample_nearest2d.default", self="x", output_size=[4, 4], scales_h=1e-300)
    ],
    "two results": [_call("relu.default", "one", "two", self="x")],
    "no such value": [_call("relu.default", self="nothing")],
    "no such argument": [_call("relu.default", self="x", other="x")],
    "the weights are changed": [_call("relu_.default", self="p_a_weight")],
    "what shares memory with the weights is changed": [
        _call("detach.default", "d", self="p_a_weight"), _call("relu_.default", self="d"),
    ],
    "a view of the images is changed": [
        _call("unsqueeze.default", "u", self="x", dim=0),
        _call("squeeze.dim", "s", self="u", dim=0), _call("relu_.default", self="s"),
    ],
    "one part is no tensor": [_call("chunk.default", "part", self="x", chunks=1)],
    "a tensor is no part": [
        _call("relu.default", self="x") | {"outputs": [{"as_tensors": [{"name": "made"}]}]}
    ],
    "a name is taken": [_call("relu.default", "x", self="x")],
    "shapes that do not fit": [_call("mm.default", self="x", mat2="b_order")],
    "places that depend on the images": [
        _call("to.dtype", "i", self="x") | {"inputs": [
            {"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1},
            {"name": "dtype", "arg": {"as_scalar_type": 5}, "kind": 1}]},
        _call("index_select.default", self="p_b_bias", dim=0, index="i"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", _BEYOND)
def test_what_would_be_made_is_checked_before(
    programme: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt2"
    edit(programme, path, **_with(*_BEYOND[kind]))
    made: list[Tensor] = []
    monkeypatch.setattr(nn.Module, "__call__", lambda *_: made.append(torch.zeros(1)))
    with pytest.raises(InputError, match=_REASONS[kind]):
        load_program(path)
    assert not made


@pytest.mark.parametrize("places", [[0, 1, 2, 4], [0, 1, 2, -5], [0, 1, 2, 10**9], [-(10**7)] * 4])
def test_indices_stay_within_what_they_point_into(
    programme: Path, tmp_path: Path, places: list[int]
) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(programme) as archive:
        config = next(n for n in archive.namelist() if n.endswith("weights_config.json"))
        entry = json.loads(archive.read(config))["config"]["order"]
    data = torch.tensor(places).numpy().tobytes()
    edit(programme, path, **{f"data/weights/{entry['path_name']}": data})
    with pytest.raises(InputError, match=r"index\.Tensor' reads at"):
        load_program(path)


def _entry(change: Callable[[dict], object]) -> dict[str, object]:
    """Change what the archive says of the weights of the first layer."""

    def rewrite(data: bytes) -> bytes:
        config = json.loads(data)
        change(config["config"]["a.weight"]["tensor_meta"])
        return json.dumps(config).encode()

    return {"data/weights/model_weights_config.json": rewrite}


_MISPLACED = {
    "stride": lambda meta: meta.update(strides=[{"as_int": 10**9}] * 4),
    "stride of zero": lambda meta: meta.update(
        sizes=[{"as_int": 10**4}] * 4, strides=[{"as_int": 0}] * 4
    ),
    "negative stride": lambda meta: meta.update(strides=[{"as_int": -1}] * 4),
    "offset": lambda meta: meta.update(storage_offset={"as_int": 10**9}),
    "negative offset": lambda meta: meta.update(storage_offset={"as_int": -4}),
    "size": lambda meta: meta.update(sizes=[{"as_int": 5}, *meta["sizes"][1:]]),
    "no numbers, much of it": lambda meta: meta.update(
        sizes=[{"as_int": 0}, *[{"as_int": 2**40}] * 3]
    ),
    "wider type": lambda meta: meta.update(dtype=8),
    "complex type": lambda meta: meta.update(dtype=10),
    "layout": lambda meta: meta.update(layout=1),
    "number of strides": lambda meta: meta.update(strides=[{"as_int": 1}]),
    "no number": lambda meta: meta.update(sizes=[{"as_int": True}, *meta["sizes"][1:]]),
    "a size beyond 64 bits": lambda meta: meta.update(sizes=[{"as_int": 2**70}] * 4),
}


@pytest.mark.parametrize("kind", _MISPLACED)
def test_tensors_lie_within_their_records(programme: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.pt2"
    edit(programme, path, **_entry(_MISPLACED[kind]))
    with pytest.raises(InputError, match=r"net\.pt2 is refused: its|it holds"):
        load_program(path)


def test_many_names_do_not_multiply_one_record(programme: Path, tmp_path: Path) -> None:
    def rewrite(data: bytes) -> bytes:
        config = json.loads(data)["config"]
        for i in range(100):
            config[f"more{i}"] = json.loads(json.dumps(config["a.weight"]))
            config[f"more{i}"]["tensor_meta"]["sizes"] = [{"as_int": 100 - i}]
            config[f"more{i}"]["tensor_meta"]["strides"] = [{"as_int": 1}]
        return json.dumps({"config": config}).encode()

    path = tmp_path / "net.pt2"
    edit(programme, path, **{"data/weights/model_weights_config.json": rewrite})
    with pytest.raises(InputError, match="share more"):
        load_program(path)


def test_records_that_lie_over_each_other_are_refused(programme: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(programme) as archive, zipfile.ZipFile(path, "w") as copy:
        infos = [(info.filename, archive.read(info)) for info in archive.infolist()]
        for name, data in infos:
            copy.writestr(name, data)
        large = max(copy.infolist(), key=lambda info: info.file_size)
        for i in range(200):
            twin = zipfile.ZipInfo(f"x/data/weights/weight_{i}x")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(twin, field, getattr(large, field))
            copy.filelist.append(twin)
    with pytest.raises(InputError, match="more than the file's"):
        load_program(path)


def test_wide_use_is_within_the_limits() -> None:
    check_arguments("conv2d", {"stride": [4, 4], "padding": "same", "groups": 960})
    check_arguments("batch_norm", {"running_mean": None, "training": True})  # of weights
    with pytest.raises(Refused, match=r"model\.eval\(\)"):
        check_arguments("dropout", {"train": True})


def test_what_is_advised_works(programme: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    edit(programme, path, **_with(_call("relu.out", self="x", out="x")))
    with pytest.raises(InputError) as refused:
        load_program(path)
    advice = re.search(r"(torch\.export\.export\(.*\)) and torch", str(refused.value))
    assert advice is not None
    names = {"torch": torch, "model": _Net(), "images": torch.rand(2, 3, SIDE, SIDE)}
    torch.export.save(eval(advice[1], names), path)
    load_program(path)
