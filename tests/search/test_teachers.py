"""The original is asked once for several input sizes, as far as memory allows."""

import pytest
import torch

from distillnet.graph import run
from distillnet.refit.teacher import bytes_to_teach
from distillnet.search import teachers
from distillnet.search.teachers import Teachers
from small_network import Small, sized

SIDES = (16, 14, 12, 10, 8)
IMAGES = torch.arange(0, 230, 2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sides that the original was asked for, each time."""
    times: list[list[int]] = []
    teach_all = teachers.teach_all

    def counted(original, students, *args: object, **options: object):
        times.append([height for height, _ in students])
        return teach_all(original, students, *args, **options)

    monkeypatch.setattr(teachers, "teach_all", counted)
    return times


@pytest.fixture
def at():
    torch.manual_seed(0)
    return sized(Small().eval())


def known(at, sides=SIDES) -> dict[tuple[int, int], object]:
    return {(side, side): at((side, side)).graph for side in sides}


def test_all_sizes_are_asked_for_at_once(at, asked: list[list[int]]) -> None:
    original = Teachers(at((16, 16)), known(at), seed=0)
    for side in (12, 16, 8, 14, 10, 12):
        original.of(IMAGES, at((side, side)))
    assert asked == [[12, 10, 14, 8, 16]]


def test_the_nearest_sizes_go_first_where_memory_is_short(at, asked, monkeypatch) -> None:
    graphs = known(at)
    own = at((16, 16)).graph
    for_each = [bytes_to_teach(own, graphs[s, s], len(IMAGES), 10**9) for s in (14, 12, 10)]
    monkeypatch.setattr(teachers, "_BYTES_OF_SIZES", sum(for_each))
    original = Teachers(at((16, 16)), graphs, seed=0)
    for side in (12, 14, 10, 8):
        original.of(IMAGES, at((side, side)))
    assert [sides[:3] for sides in asked] == [[12, 10, 14], [8, 10, 12]]


def test_some_images_are_a_part_of_all_and_others_are_asked_for_anew(at, asked) -> None:
    here, original = at((12, 12)), Teachers(at((16, 16)), {}, seed=0)
    everyone = original.of(IMAGES, here)
    some = original.of(IMAGES[[3, 1]], here)
    for layer, rows in everyone.rows.items():
        of_each = rows.unflatten(0, everyone.places[layer].shape)
        torch.testing.assert_close(some.rows[layer], of_each[[3, 1]].flatten(0, 1))
        assert torch.equal(some.places[layer], everyone.places[layer][[3, 1]])
    assert len(asked) == 1
    original.of(torch.tensor([1, 3]), here)
    original.forget()
    original.of(torch.tensor([1, 3]), here)
    assert len(asked) == 3


@pytest.mark.parametrize("at_own_size", [True, False])
def test_who_is_asked(at, at_own_size: bool) -> None:
    """What the last layer says is what the network says at that size."""
    here, own = at((12, 12)), at((16, 16))
    original = Teachers(own, known(at), seed=0)
    original.at_own_size = at_own_size
    asked = own if at_own_size else here
    said = original.of(IMAGES, here).rows[here.graph.output]
    true = run(asked.graph, {asked.graph.input.name: asked.x_nchw[IMAGES]})[asked.graph.output]
    torch.testing.assert_close(said.float(), true, rtol=2**-8, atol=0)
