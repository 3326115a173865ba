"""Signed packages: what a device takes, what it refuses, and that missions run as they were."""

import random
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import distillnet as dn
from distillnet.errors import InputError
from distillnet.graph import Graph, GraphModule
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.missions.packages import (
    WEIGHTS,
    Missions,
    apply_package,
    diff_packages,
    new_keys,
    open_package,
    pack_mission,
    read_base,
    shared_weights,
)
from distillnet.missions.packages import device as packages_device
from distillnet.missions.packages.graphs import named_as
from distillnet.missions.packages.package import (
    check_name,
    decode,
    encode,
    graph_of,
    keep_of,
)
from distillnet.missions.packages.signing import MAGIC, signed
from distillnet.missions.unknown import Rule, with_unknown

SHA = "a" * 64


class _Net(nn.Module):
    """Convolutions with a residual add, LRN and a linear head: slices of every kind."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.LocalResponseNorm(3), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.a(x).relu())
        return self.head((x + self.b(x).relu().clamp(0.0, 6.0)).mean((2, 3)))


@dataclass(frozen=True)
class _Field:
    """What a maker has: the network, keys, and a folder of runs."""

    home: Path
    graph: Graph
    keep: dict[str, Tensor]
    secret: Path
    public: Path

    def base(self):
        return shared_weights("net", self.graph, SHA, self.home / WEIGHTS)

    def plan(self, classes: tuple[int, ...], *, gone: int = 0) -> dn.Plan:
        return dn.Plan(
            {
                s: k.clone().index_fill_(0, torch.tensor([gone]), False)
                for s, k in self.keep.items()
            },
            classes,
        )


class _Run:
    """What packing reads of a run."""

    def __init__(self, classes: tuple[int, ...], layers: list[dict[str, object]]) -> None:
        self.mission = dn.Mission(classes, tuple(f"class {c}" for c in classes))
        self.preprocessing = dn.Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3)
        self.weights_sha256, self.result = SHA, {"layers": layers}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> _Field:
    home = tmp_path_factory.mktemp("field")
    for path, data in zip((home / "key", home / "key.pub"), new_keys(), strict=True):
        path.write_bytes(data)
    graph = capture(_Net(), (8, 8))
    relus = [s for s in analyse(graph).sites if graph[s].op in ("act", "lrn", "add")]
    keep = {s: torch.ones(graph[s].shape, dtype=torch.bool) for s in relus}
    return _Field(home, graph, keep, home / "key", home / "key.pub")


def _pack(
    field: _Field,
    path: Path,
    classes: tuple[int, ...] = (0, 2, 5),
    *,
    name: str = "day",
    serial: int = 1,
    refit: float = 0.0,
    unknown: bool = False,
    gone: int = 0,
) -> tuple[dn.Plan, nn.Module]:
    """A package of a network cut by a plan, some of its weights changed; the network itself."""
    plan = field.plan(classes, gone=gone)
    cut = dn.compact(field.graph, analyse(field.graph), plan)
    draw = torch.Generator().manual_seed(1)
    params = {
        n: p + refit * torch.randn(p.shape, generator=draw) if p.is_floating_point() else p
        for n, p in cut.params.items()
    }
    cut = Graph(cut.nodes, params, cut.output)
    module = GraphModule(cut)
    graph = named_as(capture(module, (8, 8)), module)  # as from a programme
    if unknown:
        n = graph.params[graph[graph.output].params["weight"]].shape[1]
        graph = with_unknown(graph, Rule(2.0, (0.1,) * n, 0.3))
    run = _Run(classes, [{"site": "a", "threshold": 0.25}, {"site": "b", "threshold": None}])
    pack_mission(
        run,
        graph,
        field.base(),
        path,
        field.secret,
        name=name,
        serial=serial,
        keep=plan.keep,
        unknown=unknown,
    )  # type: ignore[arg-type]
    return plan, GraphModule(graph)


def _x(n: int = 5) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def device(field: _Field, tmp_path: Path) -> Path:
    field.base()
    (tmp_path / WEIGHTS).write_bytes((field.home / WEIGHTS).read_bytes())
    return tmp_path


@pytest.mark.parametrize("refit", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("unknown", [False, True])
def test_every_bit_of_the_network_comes_back(
    field: _Field, tmp_path: Path, refit: float, unknown: bool
) -> None:
    plan, network = _pack(field, tmp_path / "p", refit=refit, unknown=unknown)
    contents = open_package(tmp_path / "p", [field.public]).contents
    graph = graph_of(contents, field.base(), "it")
    want = GraphModule(graph).state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(want[name], tensor)
    torch.testing.assert_close(GraphModule(graph)(_x()), network(_x()))
    assert {s: k.tolist() for s, k in keep_of(contents).items()} == {
        s: k.tolist() for s, k in plan.keep.items()
    }
    assert contents.thresholds == {"a": 0.25}


def test_what_the_mission_shares_is_not_stored(field: _Field, tmp_path: Path) -> None:
    _pack(field, tmp_path / "plain")
    _pack(field, tmp_path / "refitted", refit=1.0)
    plain, refitted = (
        open_package(tmp_path / name, [field.public]).contents for name in ("plain", "refitted")
    )
    assert {t.coding for t in plain.tensors.values()} == {"same"}
    assert not any(t.packed for t in plain.tensors.values())
    assert "changed" in {t.coding for t in refitted.tensors.values()}


def test_missions_are_switched_from_image_to_image_over_the_same_weights(
    field: _Field, device: Path
) -> None:
    wanted = {}
    for name, classes, refit, unknown in (
        ("day", (0, 2, 5), 0.0, False),
        ("night", (4, 1), 0.0, False),
        ("rain", (1, 3), 0.5, True),
    ):
        path = device / "p"
        _, wanted[name] = _pack(
            field, path, classes, name=name, refit=refit, unknown=unknown, gone=len(wanted)
        )
        apply_package(path, device, [field.public])
    missions = Missions.of_device(device, [field.public])
    assert missions.names == ("day", "night", "rain")
    assert missions.classes("rain") == ("class 1", "class 3", "unknown")
    assert missions.preprocessing("day").input_size == (8, 8)
    for name in ("night", "day", "rain", "day", "night"):
        torch.testing.assert_close(missions.scores(name, _x()), wanted[name](_x()))
    shared = {p.data_ptr() for p in missions._base.graph.params.values()}
    for name in ("day", "night"):  # not a copy of a weight
        graph = missions._held[name][1]
        floats = [p for p in graph.params.values() if p.is_floating_point()]
        assert {p.data_ptr() for p in floats} <= shared
    with pytest.raises(InputError, match="no mission 'dusk'"):
        missions.scores("dusk", _x())
    with pytest.raises(InputError, match="expected"):
        missions.scores("day", _x()[..., :4])


def _flipped(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flipped, "no trusted key"),
        (lambda data: data[:-1], "no trusted key"),
        (lambda data: data[:40], "no mission package"),
        (lambda data: data + b"\0", "no trusted key"),
        (lambda data: b"", "no mission package"),
        (lambda data: data.replace(b"mission 1", b"mission 2", 1), "no mission package"),
    ],
    ids=["tampered", "truncated", "cut short", "longer", "empty", "another format"],
)
def test_a_device_keeps_its_mission_when_a_package_is_damaged(
    field: _Field, device: Path, change, message: str
) -> None:
    _pack(field, device / "one", serial=1)
    apply_package(device / "one", device, [field.public])
    _pack(field, device / "two", serial=2, refit=1.0)
    (device / "bad").write_bytes(change((device / "two").read_bytes()))
    place = device / "missions" / "day.mission"
    before = place.read_bytes()
    with pytest.raises(InputError, match=message):
        apply_package(device / "bad", device, [field.public])
    assert place.read_bytes() == before
    apply_package(device / "two", device, [field.public])
    assert place.read_bytes() == (device / "two").read_bytes()


def test_what_was_checked_is_what_is_put_on_a_device(
    field: _Field, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of the file meanwhile."""
    _pack(field, device / "one")
    checked = (device / "one").read_bytes()
    put_together = packages_device.graph_of

    def late(*args: object) -> Graph:
        (device / "one").write_bytes(b"another")
        return put_together(*args)

    monkeypatch.setattr(packages_device, "graph_of", late)
    apply_package(device / "one", device, [field.public])
    assert (device / "missions" / "day.mission").read_bytes() == checked


@pytest.mark.parametrize("name", ["", "my run", "-day", "a/b", "ü", "x" * 65])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Pass one with --name"):
        check_name(name)


@pytest.mark.parametrize("serial", [3, 2])
def test_an_older_package_is_refused(field: _Field, device: Path, serial: int) -> None:
    _pack(field, device / "new", serial=3)
    _pack(field, device / "old", serial=serial, refit=1.0)
    apply_package(device / "new", device, [field.public])
    with pytest.raises(InputError, match="expected a larger number"):
        apply_package(device / "old", device, [field.public])
    missions = Missions(field.base())
    missions.add(device / "new", [field.public])
    with pytest.raises(InputError, match="expected a larger number"):
        missions.add(device / "old", [field.public])


def test_a_foreign_package_is_refused(field: _Field, device: Path, tmp_path: Path) -> None:
    other = capture(_Net(seed=1), (8, 8))
    base = shared_weights("net", other, SHA, tmp_path / "other")
    run, keep = _Run((0, 2, 5), []), field.plan((0, 2, 5)).keep
    cut = dn.compact(other, analyse(other), dn.Plan(keep, (0, 2, 5)))
    pack_mission(
        run, cut, base, tmp_path / "p", field.secret, name="day", serial=9, keep=dict(keep),
        unknown=False,
    )  # type: ignore[arg-type] # fmt: skip
    with pytest.raises(InputError, match="belongs to other weights"):
        apply_package(tmp_path / "p", device, [field.public])
    assert not (device / "missions").exists()
    _, stranger = new_keys()
    (tmp_path / "stranger.pub").write_bytes(stranger)
    _pack(field, tmp_path / "q")
    with pytest.raises(InputError, match="no trusted key"):
        apply_package(tmp_path / "q", device, [tmp_path / "stranger.pub"])
    apply_package(tmp_path / "q", device, [tmp_path / "stranger.pub", field.public])
    with pytest.raises(InputError, match="holds other weights"):
        shared_weights("net", field.graph, SHA, tmp_path / "other")


def test_what_a_trusted_signer_got_wrong_is_refused_too(field: _Field, tmp_path: Path) -> None:
    _pack(field, tmp_path / "p", refit=1.0)
    contents = open_package(tmp_path / "p", [field.public]).contents
    some = next(n for n, t in contents.tensors.items() if t.coding == "changed")
    stored = contents.tensors[some]
    bomb = msgspec.structs.replace(stored, packed=b"\x78\x9c" + stored.packed[2:] * 3)
    for wrong in (
        msgspec.structs.replace(contents, tensors={**contents.tensors, some: bomb}),
        msgspec.structs.replace(contents, network_sha256="0" * 64),
        msgspec.structs.replace(contents, nodes=contents.nodes[1:]),
        msgspec.structs.replace(contents, unknown=True),
        msgspec.structs.replace(contents, output="nowhere"),
    ):
        (tmp_path / "wrong").write_bytes(signed(encode(wrong), field.secret))
        opened = open_package(tmp_path / "wrong", [field.public])
        with pytest.raises(InputError, match="cannot be put together"):
            graph_of(opened.contents, field.base(), "it")
    site, bits = next(iter(contents.keep.items()))
    cut = msgspec.structs.replace(bits, packed=bits.packed[:-2])
    wrong = msgspec.structs.replace(contents, keep={**contents.keep, site: cut})
    with pytest.raises(InputError, match="is not of its shape"):
        keep_of(wrong)


def test_random_damage_is_never_accepted(field: _Field, tmp_path: Path) -> None:
    _pack(field, tmp_path / "p")
    data, draw = (tmp_path / "p").read_bytes(), random.Random(0)
    for _ in range(2000):
        at, kind = draw.randrange(len(data)), draw.randrange(3)
        some = bytes(draw.randrange(256) for _ in range(draw.choice((1, 2, 8))))
        changed = (data[:at], data[:at] + some + data[at:], data[:at] + some + data[at + 1 :])[kind]
        if changed == data:
            continue
        (tmp_path / "bad").write_bytes(changed)
        with pytest.raises(InputError):
            open_package(tmp_path / "bad", [field.public])


def test_differences_are_told(field: _Field, tmp_path: Path) -> None:
    _pack(field, tmp_path / "one")
    _pack(field, tmp_path / "two", (0, 4), serial=2, refit=1.0, gone=1)
    one, two = (open_package(tmp_path / n, [field.public]) for n in ("one", "two"))
    found = diff_packages(one, two)
    assert (found["classes_added"], found["classes_removed"]) == (
        ["class 4"],
        ["class 2", "class 5"],
    )
    assert (found["serials"], found["same_weights"]) == ([1, 2], True)
    site = next(iter(field.keep))
    n = field.keep[site][0].numel()
    assert found["bitmaps"][site] == f"+{n} -{n} neurons"
    assert diff_packages(one, one)["bitmaps"] == {}
    assert diff_packages(one, one)["tensors"]["changed"] == 0


def test_a_shared_file_is_the_same_for_the_same_weights(field: _Field, tmp_path: Path) -> None:
    again = shared_weights("net", capture(_Net(), (8, 8)), SHA, tmp_path / "again")
    assert again.sha256 == field.base().sha256
    graph = read_base(tmp_path / "again").graph
    torch.testing.assert_close(GraphModule(graph)(_x()), GraphModule(field.graph)(_x()))


@pytest.mark.parametrize("size", [0, 10, 10**6])
def test_a_shared_file_of_another_size_is_refused(size: int, field: _Field, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * size)
    with pytest.raises(InputError, match="holds other weights"):
        shared_weights("net", field.graph, SHA, tmp_path / "other")


def test_a_body_that_is_none_is_refused() -> None:
    for body in (
        b"",
        b"\x80",
        MAGIC,
        bytes(np.arange(256, dtype=np.uint8)),
        b"\xdf\xff\xff\xff\xff",
    ):
        with pytest.raises(InputError, match="does not hold"):
            decode(body, "it")
