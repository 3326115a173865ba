"""Where every value lies: side by side for concatenations, in place where nobody needs the input.

Values are placed from the last to the first, so that a reader's wish is known before its producer
is placed.
"""

from collections.abc import Mapping
from dataclasses import replace

from distillnet.engine.arena import alive_at_once, plan_arena
from distillnet.engine.by_rows import with_chains
from distillnet.engine.lower import Lowered, lower
from distillnet.engine.steps import Buffer, Halo, Place, Program, Slot, Step
from distillnet.graph import Graph, consumers

__all__ = ["compile_graph", "place_steps"]

_IN_PLACE = frozenset({"activation", "affine", "binary", "mask"})


def compile_graph(graph: Graph, *, by_rows: bool = False) -> Program:
    """A graph as steps over one arena, some of them row by row where that makes it smaller.

    Raises:
        UnsupportedError: an operator that the engine has no kernel for.
    """
    return place_steps(lower(graph), graph, by_rows=by_rows)


def place_steps(low: Lowered, graph: Graph, *, by_rows: bool = False) -> Program:
    """Steps over named values as steps over one arena; ``graph`` is what they were made of.

    Args:
        by_rows: run steps by turns, row by row, where that makes the arena smaller.
    """
    readers = {name: [n.name for n in after] for name, after in consumers(graph).items()}
    steps, places, shapes = _place(low, graph, readers)
    buffers = _buffers(steps, places, shapes)
    steps, buffers = _with_borders(steps, places, buffers)
    buffers = _with_lifetimes(steps, places, buffers)
    chains, buffers = with_chains(steps, places, buffers) if by_rows else ((), buffers)
    offsets, length = plan_arena(list(buffers.values()))
    slots = {s.slot: Slot(s.slot, i, places[s.writes].shape) for i, s in enumerate(steps) if s.slot}
    return Program(
        steps, places, buffers, offsets, low.weights.array(), slots, low.input, low.output,
        length, alive_at_once(list(buffers.values())), chains=chains,
    )  # fmt: skip


def _place(
    low: Lowered, graph: Graph, readers: Mapping[str, list[str]]
) -> tuple[tuple[Step, ...], dict[str, Place], dict[str, tuple[int, int, int]]]:
    """Places by value, the shape of every buffer, and the steps with what cannot lie in place."""
    places: dict[str, Place] = {}
    shapes: dict[str, tuple[int, int, int]] = {}
    made_by = {step.writes: step for step in low.steps}
    missing: dict[str, list[Step]] = {}  # by concatenation, what has to be copied into it

    def place_of(name: str) -> Place:
        if name not in places:
            shapes[name] = low.shapes[name]
            places[name] = Place(name, low.shapes[name])
        return places[name]

    def join(name: str) -> None:
        inputs = low.concats[name]
        here = places.get(name) or _lies_already(name, low, places)
        if here is None:
            here = place_of(name)
        places[name] = here
        copies = []
        at = here.channel
        for i, source in enumerate(inputs):
            wanted = Place(here.buffer, low.shapes[source], at, here.y, here.x)
            movable = source in made_by or source in low.concats
            if movable and source not in places and inputs.count(source) == 1:
                places[source] = wanted
            elif places.get(source) != wanted:
                part = f"{name}:{i}"
                places[part] = wanted
                copies.append(Step("copy", part, (source,), part))
            at += low.shapes[source][0]
        missing[name] = copies

    for node in reversed(graph.nodes):
        if node.name in low.concats:
            join(node.name)
        if node.name not in made_by:
            continue
        here = place_of(node.name)
        step = made_by[node.name]
        if step.kernel not in _IN_PLACE:
            continue
        for source in step.reads:
            if (
                source in made_by
                and source not in places
                and readers[source] == [step.name]
                and low.shapes[source] == here.shape
            ):
                places[source] = here
                break

    _place_views(low, graph, places)
    return _ordered(low, graph, missing), places, shapes


def _lies_already(name: str, low: Lowered, places: Mapping[str, Place]) -> Place | None:
    """The place of a concatenation whose inputs lie side by side in a larger one (DenseNet)."""
    inputs = low.concats[name]
    first = places.get(inputs[0])
    if first is None:
        return None
    at = first.channel
    for source in inputs:
        place = places.get(source)
        if place is None or place.buffer != first.buffer or place.channel != at:
            return None
        at += low.shapes[source][0]
    return replace(first, shape=low.shapes[name])


def _place_views(low: Lowered, graph: Graph, places: dict[str, Place]) -> None:
    for node in graph.nodes:
        view = low.views.get(node.name)
        if view is not None:
            base = places[view.of]
            places[node.name] = Place(
                base.buffer,
                low.shapes[node.name],
                base.channel + view.channel,
                base.y + view.y,
                base.x + view.x,
            )


def _ordered(low: Lowered, graph: Graph, missing: Mapping[str, list[Step]]) -> tuple[Step, ...]:
    """The steps with each concatenation's copies where its last input is there, and the output."""
    by_node: dict[str, list[Step]] = {step.name: [step] for step in low.steps}
    steps = []
    for node in graph.nodes:
        steps += by_node.get(node.name, [])
        steps += missing.get(node.name, [])
    return (*steps, Step("output", "output", (low.output,), ""))


def _needed_halo(step: Step, places: Mapping[str, Place]) -> tuple[int, int, int, int]:
    """Rows and columns that a step reads beyond its first input's buffer: top, left, ..."""
    x = places[step.reads[0]]
    top, left = -x.y, -x.x
    bottom, right = x.y + x.shape[1], x.x + x.shape[2]  # what the value itself takes
    if step.kernel in ("conv", "depthwise"):
        y = places[step.writes]
        s = step.settings
        reach = [
            (y.shape[d + 1] - 1) * s["stride"][d] + (s["kernel"][d] - 1) * s["dilation"][d] + 1
            for d in (0, 1)
        ]
        top, left = top + s["padding"][0], left + s["padding"][1]
        bottom = max(bottom, x.y - s["padding"][0] + reach[0])
        right = max(right, x.x - s["padding"][1] + reach[1])
    return top, left, bottom, right


def _buffers(
    steps: tuple[Step, ...],
    places: Mapping[str, Place],
    shapes: Mapping[str, tuple[int, int, int]],
) -> dict[str, Buffer]:
    halos = dict.fromkeys(shapes, Halo())
    for step in steps:
        for name in step.reads:
            place = places[name]
            _, height, width = shapes[place.buffer]
            one = replace(step, reads=(name,))
            top, left, bottom, right = _needed_halo(one, places)
            old = halos[place.buffer]
            halos[place.buffer] = Halo(
                max(old.top, top),
                max(old.left, left),
                max(old.bottom, bottom - height),
                max(old.right, right - width),
            )
    return {name: Buffer(name, shapes[name], halos[name]) for name in shapes}


def _with_borders(
    steps: tuple[Step, ...], places: Mapping[str, Place], buffers: Mapping[str, Buffer]
) -> tuple[tuple[Step, ...], dict[str, Buffer]]:
    """A step that writes a buffer's border goes before the first that writes into it."""
    result: list[Step] = []
    begun: set[str] = set()
    for step in steps:
        place = places.get(step.writes)
        if place is not None and place.buffer not in begun:
            begun.add(place.buffer)
            if not buffers[place.buffer].halo.empty:
                result.append(Step("border", place.buffer, (), step.writes))
        result.append(step)
    return tuple(result), {name: b for name, b in buffers.items() if name in begun}


def _with_lifetimes(
    steps: tuple[Step, ...], places: Mapping[str, Place], buffers: Mapping[str, Buffer]
) -> dict[str, Buffer]:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, step in enumerate(steps):
        for name in (*step.reads, step.writes):
            if name in places:
                buffer = places[name].buffer
                first.setdefault(buffer, i)
                last[buffer] = i
    return {name: replace(b, first=first[name], last=last[name]) for name, b in buffers.items()}
