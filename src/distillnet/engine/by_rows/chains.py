"""One chain: which rows each of its steps takes, in which order they run, and how many rows of each
window are in memory at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from distillnet.engine.steps import Buffer, Chain, Link, Place, Step

__all__ = ["BY_ROWS", "chain_of", "reach_of"]

# Kernels that can compute some rows of their output.
BY_ROWS = frozenset(
    {"input", "conv", "depthwise", "max_pool", "avg_pool", "activation", "affine", "lrn"}
)
_LAYERS = ("conv", "depthwise")
_POOLS = ("max_pool", "avg_pool")


def chain_of(
    steps: Sequence[Step],
    first: int,
    last: int,
    places: Mapping[str, Place],
    buffers: Mapping[str, Buffer],
    windows: Sequence[str],
) -> tuple[Chain, dict[str, int]]:
    """Steps ``first`` to ``last`` as a chain, and how many rows each of its windows has.

    Args:
        windows: the buffers of which not all rows are kept; no other step uses them.
    """
    links: list[Link] = []
    for i in range(first, last + 1):
        if steps[i].kernel != "border":
            links.append(_link(steps[i], i, links, steps, places, buffers, windows))
    begun: set[str] = set()
    for n, link in enumerate(links):
        if link.writes is not None and link.writes not in begun:  # the first, whom all readers need
            begun.add(link.writes)
            links[n] = replace(link, border=buffers[link.writes].halo.bottom)
    chain = Chain(first, last, tuple(links), tuple(windows))
    return chain, _Run(chain, buffers).rows()


def _link(
    step: Step,
    at: int,
    before: Sequence[Link],
    steps: Sequence[Step],
    places: Mapping[str, Place],
    buffers: Mapping[str, Buffer],
    windows: Sequence[str],
) -> Link:
    y = places[step.writes]
    writes = y.buffer if y.buffer in windows else None
    if not step.reads:
        return Link(at, y.shape[1], 0, None, writes, 0, 0, 0, 0, 0, ())
    x = places[step.reads[0]]
    b = buffers[x.buffer]
    stride, pad = 1, 0
    least, most = x.y, x.y + x.shape[1]
    if step.kernel in (*_LAYERS, *_POOLS):
        stride, pad = step.settings["stride"][0], step.settings["padding"][0]
        if step.kernel in _LAYERS:
            least, most = -b.halo.top, b.shape[1] + b.halo.bottom
    needs = tuple(
        n for n, link in enumerate(before) if places[steps[link.step].writes].buffer == x.buffer
    )
    reads = x.buffer if x.buffer in windows else None
    reach = reach_of(step)
    return Link(at, y.shape[1], 0, reads, writes, stride, pad - x.y, reach, least, most, needs)


def reach_of(step: Step) -> int:
    """Of how many rows of its input a row of a step's output is made, those between included."""
    if step.kernel not in (*_LAYERS, *_POOLS):
        return 1
    return int((step.settings["kernel"][0] - 1) * step.settings["dilation"][0] + 1)


class _Run:
    """The order in which rows are computed, as ``chain.c`` has it; only counts go by here."""

    def __init__(self, chain: Chain, buffers: Mapping[str, Buffer]) -> None:
        self.links, self.buffers = chain.links, buffers
        self.done = [0] * len(chain.links)
        self.readers = {w: [n for n, k in enumerate(self.links) if k.reads == w] for w in
                        chain.windows}  # fmt: skip
        self.writers = {w: [n for n, k in enumerate(self.links) if k.writes == w] for w in
                        chain.windows}  # fmt: skip
        self.most = {w: buffers[w].halo.top for w in chain.windows}
        self.first = {w: self._next_read(w) for w in chain.windows}
        self.targets = [n for n in reversed(range(len(self.links))) if not self.links[n].writes]

    def rows(self) -> dict[str, int]:
        """By window, how many rows have to be in memory at once."""
        while (target := next((n for n in self.targets if self._left(n)), None)) is not None:
            at = target
            while (other := self._lacking(at)) is not None:
                at = other
            self._run(at)
            for n in self.targets:
                while n != target and self._left(n) and self._lacking(n) is None:
                    self._run(n)
        return dict(self.most)

    def _left(self, n: int) -> bool:
        return self.done[n] < self.links[n].rows

    def _lacking(self, n: int) -> int | None:
        """A link whose rows the next row of this one waits for. It is one before, so none waits
        for itself."""
        link = self.links[n]
        if not self._left(n):  # what is left is a border
            return None
        _, end = link.rows_read(self.done[n])
        for other in link.needs:
            if self.done[other] < min(end, self.links[other].rows + self.links[other].border):
                return other
        return None

    def _run(self, n: int) -> None:
        link = self.links[n]
        self.done[n] += 1
        window = link.writes
        if window is not None:
            self.first[window] = self._next_read(window, n)
            self.most[window] = max(self.most[window], self.done[n] - self.first[window])

    def _next_read(self, window: str, running: int = -1) -> int:
        """The first row of a window, halo above 0, that is read or written again."""
        b = self.buffers[window]
        rows = [
            self.links[n].rows_read(self.done[n])[0] for n in self.readers[window] if self._left(n)
        ]
        # A row of which another writer's channels are missing stays.
        rows += [
            self.done[n] - (n == running)
            for n in self.writers[window]
            if n == running or self._left(n)
        ]
        return min([*rows, b.shape[1] + b.halo.bottom])
