"""Tuning: nearer to the original, the same structure, repeatable, and nothing for nothing."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cases import random
from distillnet.cut.cost import cost
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, split
from distillnet.cut.thin import Split
from distillnet.graph import Graph
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from distillnet.refit import tune as tune_module
from distillnet.refit.tune import TuneSettings, prepare, tune
from plans import random_plan, scores

OUTPUTS = (4, 0, 2)
SIZE, SMALL = (16, 16), (12, 12)


def _network(seed: int, size: tuple[int, int] = SIZE) -> Graph:
    """A chain with a batch norm that stays (two read it), a residual add and five scores."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.a(x).relu())
            return self.fc((x + self.b(x)).relu().mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net().eval()
        net.fc.weight.data *= 8  # decisions that differ
        return capture(net, size)


@pytest.fixture(scope="module")
def teacher() -> Graph:
    graph = _network(0)
    y = scores(graph, _images())
    bias = graph[graph.output].params["bias"]
    return replace(graph, params={**graph.params, bias: graph.params[bias] - y.mean(0)})


def _images(n: int = 200) -> Tensor:
    """Of colours that tell them apart: noise alone averages out."""
    return random(n, 3, 16, 16).float() + 2 * random(n, 3, 1, 1, seed=1).float()


def _tune(student: Graph, teacher: Graph, *, n: int = 200, **settings: object) -> Graph:
    x = _images(n)
    here = nn.functional.interpolate(x, student.input.shape[1:], mode="area")
    how = TuneSettings(**{"steps": 30, "step": 0.03, "share": 1.0, **settings})
    return tune(student, prepare(teacher, x, OUTPUTS, how), here, torch.arange(n))


def _divergence(teacher: Graph, student: Graph) -> float:
    """On images that nobody has seen, by hand."""
    x = random(300, 3, 16, 16, seed=7).float() + 2 * random(300, 3, 1, 1, seed=8).float()
    here = nn.functional.interpolate(x, student.input.shape[1:], mode="area")
    p, q = (
        scores(graph, images)[:, list(OUTPUTS)].softmax(1)
        for graph, images in ((teacher, x), (student, here))
    )
    return float((p * (p.log() - q.log())).sum(1).mean())


@pytest.mark.parametrize("size", [SIZE, SMALL])
def test_a_network_of_random_weights_comes_nearer_to_its_teacher(teacher: Graph, size) -> None:
    student = _network(1, size)
    done = _tune(student, teacher, steps=100)
    assert _divergence(teacher, done) < 0.5 * _divergence(teacher, student)


def test_a_share_of_the_way_lies_between_what_was_and_what_was_learnt(teacher: Graph) -> None:
    student = _network(1)
    none, half, whole = (_tune(student, teacher, share=share) for share in (0.0, 0.5, 1.0))
    for name, before in student.params.items():
        assert torch.equal(none.params[name], before)
        middle = (before.double() + whole.params[name].double()) / 2
        assert torch.allclose(half.params[name].double(), middle, rtol=1e-6, atol=1e-7)


def test_where_nothing_can_be_gained_little_is_lost(teacher: Graph) -> None:
    assert _divergence(teacher, _tune(teacher, teacher, step=0.001)) < 1e-3


def test_weights_beyond_all_numbers_are_not_taken(teacher: Graph) -> None:
    student = _network(1)
    assert _tune(student, teacher, step=1e30) is student


@pytest.mark.parametrize("group", [0, 3])
def test_a_fold_that_is_left_out_is_not_seen_in_a_mixture_either(
    teacher: Graph, group: int
) -> None:
    """Whatever its images show, they change nothing."""
    student, how = _network(1), TuneSettings(steps=8, step=0.03)
    left_out = torch.arange(100) % how.groups == group
    tuned = []
    for factor in (1, -3):
        x = torch.where(left_out[:, None, None, None], factor * _images(100), _images(100))
        lessons = prepare(teacher, x, OUTPUTS, how)
        tuned.append(tune(student, lessons, x, torch.nonzero(~left_out)[:, 0]))
    for name, tensor in tuned[0].params.items():
        assert torch.equal(tensor, tuned[1].params[name])


def test_a_view_is_a_part_of_an_image_mixed_with_another_s() -> None:
    """Of images of one colour each, which parts do not change: both colours, by their shares."""
    how = TuneSettings(crops=6)
    colours = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    x = colours[:, :, None, None].expand(20, 3, 16, 16)
    views = tune_module._Views(x, x, how)
    everything = torch.arange(20)
    for view in range(views.count):
        seen = views.of_student(torch.full((20,), view), everything)
        assert torch.equal(seen, views.of_teacher(torch.full((20,), view), everything))
        assert torch.allclose(seen, seen[..., :1, :1].expand_as(seen), atol=1e-6)
        if view < 2:
            assert torch.equal(seen, x)
            continue
        own, other = views.share[view - 2][:, None], colours[views.partner[view - 2]]
        assert torch.allclose(seen[..., 0, 0], own * colours + (1 - own) * other, atol=1e-6)
        assert sorted(views.partner[view - 2].tolist()) == list(range(20)), "each is a part once"


@pytest.mark.parametrize(("n", "epochs"), [(1, 100), (64, 100), (320, 60), (2000, 10), (9999, 10)])
def test_trainings_are_as_long_of_few_images_as_of_many(n: int, epochs: int) -> None:
    assert TuneSettings(steps=600).epochs(n) == epochs


def test_the_same_seed_gives_the_same_bytes(teacher: Graph) -> None:
    student = _network(1)
    state = torch.get_rng_state()
    first, again, other = (_tune(student, teacher, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    for name, tensor in first.params.items():
        assert not tensor.requires_grad
        assert tensor.numpy().tobytes() == again.params[name].numpy().tobytes()
    assert any(not torch.equal(first.params[name], other.params[name]) for name in other.params)


@pytest.mark.parametrize("style", ["channels", "partial"])
def test_a_cut_network_keeps_its_structure(teacher: Graph, style: str) -> None:
    """Layers that are split stay split, channels stay gone, masks stay; so does the input."""
    channels = analyse(teacher)
    plan = Plan(random_plan(teacher, channels, style, seed=2).keep)
    student = compact(teacher, channels, plan)
    layer = next(n.name for n in student.nodes if n.op == "conv" and n.shape[0] > 2)
    student = split(student, layer, Split(2))
    before = {name: tensor.clone() for name, tensor in student.params.items()}
    done = _tune(student, teacher)
    assert done.nodes == student.nodes
    assert cost(done, analyse(done)) == cost(student, analyse(student))
    changed = set()
    for name, tensor in done.params.items():
        assert (tensor.shape, tensor.dtype) == (before[name].shape, before[name].dtype)
        assert torch.equal(student.params[name], before[name]), "the one that was given"
        if not torch.equal(tensor, before[name]):
            changed.add(name)
    trained = {name for n in student.nodes for role, name in n.params.items() if role != "keep"}
    assert changed == trained


def test_products_in_bfloat16_lead_to_the_same_place(
    teacher: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Forced here, so that processors without instructions for them try it, too.
    student, made = _network(1), {}
    for low in (False, True):
        how = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=low)
        monkeypatch.setattr(tune_module, "_quickly", lambda device, how=how: how())
        made[low] = _tune(student, teacher, steps=100)
    assert all(p.dtype == torch.float32 for p in made[True].params.values())
    assert any(not torch.equal(p, made[False].params[n]) for n, p in made[True].params.items())
    before, exact, low = (_divergence(teacher, g) for g in (student, made[False], made[True]))
    assert abs(low - exact) < 0.05 * before


def test_scores_beside_the_mission_keep_their_weights(teacher: Graph) -> None:
    student = _network(1)
    done = _tune(student, teacher)
    for name in student[student.output].params.values():
        same = done.params[name].reshape(5, -1) == student.params[name].reshape(5, -1)
        assert [bool(row.all()) for row in same] == [c not in OUTPUTS for c in range(5)]


def test_a_temperature_tells_what_sure_probabilities_hide() -> None:
    """Of scores that differ where nobody looks; and its square keeps gradients as large."""
    aim = torch.tensor([[20.0, 0.0, -4.0]])
    now = torch.tensor([[20.0, -4.0, 0.0]], requires_grad=True)
    cold, warm = (tune_module._divergence(aim, now, t) for t in (1.0, 8.0))
    assert float(cold) < 1e-6
    assert float(warm) > 0.1
    # At high temperatures it is half the mean square of what centred scores differ by.
    hot = tune_module._divergence(aim, now, 1e3)
    change = (now - aim) - (now - aim).mean()
    assert float(hot) == pytest.approx(float(change.square().mean() / 2), rel=1e-2)
