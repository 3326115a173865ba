"""A small network that is right everywhere, and searches that cut it."""

import functools
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor, nn

from distillnet.classes import Mission
from distillnet.cut.surgery import compact
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.channels import Channels, analyse
from distillnet.search import Budget, Found, SearchSettings, Sized, open_search

__all__ = ["MISSION", "Small", "accuracy", "find", "random", "sized", "sized_images"]

_SETTINGS = {field.name for field in fields(SearchSettings)}
MISSION = Mission((0, 2, 3), ("a", "c", "d"))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    """A residual stream, a branch beside it, concat, global pool; five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.inner = nn.Conv2d(12, 20, 3, padding=1)
        self.back = nn.Conv2d(20, 12, 3, padding=1)
        self.side = nn.Conv2d(12, 10, 1)
        self.last = nn.Conv2d(22, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        y = (x + self.back(self.inner(x).relu())).relu()
        z = torch.cat([y, self.side(x).relu()], 1)
        return self.fc(self.last(z).relu().mean((2, 3)))


@functools.cache
def _captured(net: nn.Module, size: tuple[int, int]) -> tuple[Graph, Channels]:
    graph = capture(net, size)
    return graph, analyse(graph)


def sized(net: nn.Module) -> Callable[[tuple[int, int]], Sized]:
    def at(size: tuple[int, int]) -> Sized:
        graph, channels = _captured(net, size)
        x, y = random(80, 3, 16, 16, seed=2), random(150, 3, 16, 16, seed=3)
        smaller = [nn.functional.interpolate(t, size, mode="area") for t in (x, y)]
        return Sized(graph, channels, torch.cat(smaller), 80)

    return at


def find(module: nn.Module, labels: Tensor, budget: Budget, **options: object) -> Found:
    """By a search of one size; ``options`` are its own or of its ``SearchSettings``."""
    settings = SearchSettings(**{k: options.pop(k) for k in tuple(options) if k in _SETTINGS})
    return open_search(sized(module), [(16, 16)], MISSION, labels, settings, **options)(budget)


def accuracy(found: Found, labels: Tensor) -> float:
    """Of the compact network on the search images."""
    small = compact(found.graph, analyse(found.graph), found.plan)
    with torch.inference_mode():
        x = sized_images(found)
        scores = run(small, {small.input.name: x})[small.output]
    return float((scores.argmax(1) == labels).double().mean())


def sized_images(found: Found) -> Tensor:
    height, width = found.graph.input.shape[1:]
    return nn.functional.interpolate(random(150, 3, 16, 16, seed=3), (height, width), mode="area")
