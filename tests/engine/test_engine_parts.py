"""What the C engine refuses, and the plans behind its code: memory and places."""

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from architectures import SIDE, captured
from compiling import compiled, export, names
from distillnet.engine import (
    build_native,
    compile_compact,
    identifier,
    noise_image,
    write_folder,
)
from distillnet.engine.arena import alive_at_once, plan_arena
from distillnet.engine.spans import active_strips, bit_words
from distillnet.engine.steps import Buffer, Halo, Strip
from distillnet.errors import InputError, UnsupportedError
from distillnet.graph import Graph, run
from distillnet.graph.capture import capture
from distillnet.graph.operators import Node


def test_wrong_arguments_return_error_codes(tmp_path: Path) -> None:
    _, graph, _ = captured("chain")
    program, mission = compile_compact(graph, "all", names(7))
    native = compiled(program, export(program, [mission], [np.zeros(7)], tmp_path / "c"), "-O1")
    bound = native.mission("all")
    x, y = np.zeros((3, SIDE, SIDE), np.float32), np.zeros(7, np.float32)
    arena, size = native.arena.ctypes.data, native.arena.nbytes

    def call(mission=bound, arena=arena, size=size, x=x.ctypes.data, y=y.ctypes.data) -> int:
        pointer = None if mission is None else ctypes.addressof(mission)
        return native.run(pointer, arena, size, x, y)

    assert call() == 0
    assert np.isfinite(y).all()
    x[0, 3, 3] = np.nan  # no clamp on the way may make a score of it, as none does in PyTorch
    assert call() == 0
    assert np.isnan(y).all()
    for wrong in ({"mission": None}, {"arena": None}, {"x": None}, {"y": None}):
        assert call(**wrong) == 1
    assert call(size=size - 1) == call(arena=arena + 4) == 2
    for name, value in (("magic", 0), ("weights_id", 1), ("n_layers", 9)):
        other = native.mission("all")
        setattr(other, name, value)
        assert call(mission=other) == 3
    without = native.mission("all")
    without.weights = None
    assert call(mission=without) == 1
    with pytest.raises(InputError, match="missions/"):
        native.mission("none")
    with pytest.raises(InputError, match=r"expected \(3, 12, 12\)"):
        native.scores(bound, np.zeros((1, 3, 8, 8), np.float32))


def test_what_there_is_no_kernel_for_is_named(tmp_path: Path) -> None:
    _, graph, _ = captured("chain")
    last = graph[graph.output]
    odd = Node("odd one", "fourier", (last.name,), last.shape)
    with pytest.raises(UnsupportedError, match=r"'fourier' of 'odd one'.*--format onnx"):
        compile_compact(Graph((*graph.nodes, odd), graph.params, odd.name), "a", names(7))
    act = next(node for node in graph.nodes if node.op == "act")
    nodes = tuple(
        replace(n, attrs={**n.attrs, "kind": "wave"}) if n is act else n for n in graph.nodes
    )
    with pytest.raises(UnsupportedError, match="'wave'"):
        compile_compact(Graph(nodes, graph.params, graph.output), "a", names(7))
    program, mission = compile_compact(graph, "all", names(7))
    for prefix in ("int", "a-b", "", "7", "test"):
        with pytest.raises(InputError, match="--prefix"):
            write_folder(program, [mission], {"all": np.zeros(1)}, tmp_path, prefix, banner="b")
        assert not any(tmp_path.iterdir())


def test_buffers_alive_together_never_overlap() -> None:
    generator = np.random.default_rng(0)
    for _ in range(30):
        buffers = []
        for i in range(int(generator.integers(1, 30))):
            first = int(generator.integers(0, 20))
            size = (int(generator.integers(1, 9)) * 16, int(generator.integers(1, 9)), 3)
            last = first + int(generator.integers(0, 5))
            buffers.append(Buffer(str(i), size, Halo(), first, last))
        offsets, length = plan_arena(buffers)
        for i, a in enumerate(buffers):
            assert 0 <= offsets[a.name] <= offsets[a.name] + a.size <= length - 16
            for b in buffers[:i]:
                if a.first <= b.last and b.first <= a.last:
                    apart = offsets[a.name] >= offsets[b.name] + b.size
                    assert apart or offsets[b.name] >= offsets[a.name] + a.size
        assert length - 16 >= alive_at_once(buffers)


def test_strips_compute_what_bitmaps_keep_and_nothing_far_from_it() -> None:
    keep = np.random.default_rng(1).random((40, 6, 9)) < 0.3
    keep[:, 2] = False
    keep[16:32] = True
    strips = [Strip(range(0, 16), 0, 0), Strip(range(16, 32), 0, 0), Strip(range(32, 40), 0, 0)]
    for active in active_strips(strips, keep):
        mine = keep[active.strip.channels.start : active.strip.channels.stop]
        if active.spans is None:
            assert mine.all()
            continue
        assert not mine.all()
        computed = np.zeros(mine.shape[1:], bool)
        words = []
        for span in active.spans:
            assert mine[:, span.y, span.x0].any()
            assert mine[:, span.y, span.x1 - 1].any()
            computed[span.y, span.x0 : span.x1] = True
            words.append(bit_words(mine)[span.y, span.x0 : span.x1].reshape(-1))
        assert computed[mine.any(0)].all()
        assert active.places(54) == computed.sum()
        assert active.bits is not None
        assert np.array_equal(active.bits, np.concatenate(words))


def test_more_features_than_16_bits_count_are_reordered(tmp_path: Path) -> None:
    """As networks of TensorFlow flatten their maps: places first, channels last."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 64, 3, padding=1), nn.Linear(64 * 33 * 33, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).relu().permute(0, 2, 3, 1).flatten(1))

    torch.manual_seed(0)
    graph = capture(Flat().eval(), (33, 33))
    program, mission = compile_compact(graph, "only", list("abcd"))
    image = noise_image((3, 33, 33), 1.0)
    want = run(graph, {graph.input.name: torch.from_numpy(image)[None]})[graph.output].numpy()
    write_folder(program, [mission], {"only": want[0]}, tmp_path, "net", banner="b")
    native = build_native(tmp_path, "net", (3, 33, 33), flags=("-O1",))
    got = native.scores(native.mission("only"), image[None])
    assert np.abs(got - want).max() < 1e-4 * np.ptp(want)


def test_missions_of_alike_names_have_macros_of_their_own() -> None:
    taken: list[str] = []
    for name in ("day", "Day", "DAY", "day_n", "day 1", "day-1"):
        taken.append(identifier(name, taken))
    macros = {f"{name}{end}".upper() for name in taken for end in ("_N_CLASSES", "_CLASSES")}
    assert len(macros) == 2 * len(taken)
