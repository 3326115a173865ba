"""Signed packages of missions, the weights that they share, and rules for other images."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

import mutate
from distillnet.job.runs import open_run
from distillnet.missions.packages import (
    new_keys,
    open_package,
    pack_mission,
    read_base,
    shared_weights,
)
from distillnet.missions.packages.package import decode, graph_of, keep_of
from distillnet.missions.packages.signing import MAGIC
from distillnet.missions.unknown.of_runs import network_of
from distillnet.missions.unknown.rule import RULE, Rule, read_rule, write_rule
from kinds import Reader

__all__ = ["PACKAGES"]


def _rules(folder: Path) -> list[bytes]:
    network, path = folder / "run" / "model.pt2", folder / "run" / RULE
    write_rule(Rule(1.5, (0.25, -1.0, 3.0), 0.5), network, path, {"n": 3, "auroc": None})
    return [path.read_bytes()]


def _read_rule(data: bytes, folder: Path) -> object:
    (folder / "run" / RULE).write_bytes(data)
    return read_rule(folder / "run")


def _keys(folder: Path) -> tuple[Path, Path]:
    secret, public = folder / "key", folder / "key.pub"
    if not secret.exists():
        for path, data in zip((secret, public), new_keys(), strict=True):
            path.write_bytes(data)
    return secret, public


def _package(folder: Path) -> list[bytes]:
    """A mission of a network that nobody trained, bitmaps and all."""
    path, secret = folder / "seed.mission", _keys(folder)[0]
    if not path.exists():
        run = open_run(folder / "run")
        graph = network_of(run)
        base = shared_weights("net.py:net", graph, run.weights_sha256, folder / "base.safetensors")
        name = next(n.name for n in graph.nodes if n.op == "conv")
        keep = {name: torch.ones(graph[name].shape, dtype=torch.bool)}
        pack_mission(
            run, graph, base, path, secret, name="seed", serial=1, keep=keep, unknown=False
        )
    return [path.read_bytes()]


def _bodies(folder: Path) -> list[bytes]:
    return [data[len(MAGIC) : -64] for data in _package(folder)]


def _read_package(data: bytes, folder: Path) -> object:
    """As a device does; what nobody signed must never be taken."""
    public = _keys(folder)[1]
    path = folder / "damaged.mission"
    path.write_bytes(data)
    package = open_package(path, [public])
    if [data] != _package(folder):
        raise AssertionError("a package that was changed was accepted")
    return graph_of(package.contents, read_base(folder / "base.safetensors"), "it")


def _read_body(data: bytes, folder: Path) -> object:
    """A body that whoever holds the key has damaged: refused or read, but never a crash."""
    contents = decode(data, "it")
    keep_of(contents)
    return graph_of(contents, _base_of(folder), "it")


@cache
def _base_of(folder: Path) -> object:
    _package(folder)
    return read_base(folder / "base.safetensors")


def _bases(folder: Path) -> list[bytes]:
    _package(folder)
    return [(folder / "base.safetensors").read_bytes()]


def _read_base(data: bytes, folder: Path) -> object:
    path = folder / "base"
    path.write_bytes(data)
    return read_base(path)


PACKAGES: Mapping[str, Reader] = {
    "package": Reader(_package, mutate.in_bytes, _read_package),
    "body of a package": Reader(_bodies, mutate.in_bytes, _read_body, 1e-2),
    "shared weights": Reader(_bases, mutate.in_safetensors, _read_base, 1e-2),
    "unknown.json": Reader(_rules, mutate.in_json, _read_rule),
}
