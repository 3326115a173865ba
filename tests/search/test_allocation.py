"""How a budget is spread over layers: at one price, and counted as ``cost`` counts."""

import math

import numpy as np
import pytest

from architectures import ARCHITECTURES, SIDE, captured
from distillnet.classes import Mission
from distillnet.cut.cost import class_macs, class_work, cost
from distillnet.cut.plan import removed_classes
from distillnet.cut.surgery import compact
from distillnet.cut.thin import Split
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS
from distillnet.search.allocation import Cut, channel_plan, cut_to_size, open_ledger, round_up
from distillnet.search.evidence import measure_evidence
from distillnet.search.orders import elimination_orders
from distillnet.search.splits import choose_splits, spectra
from small_network import MISSION, random


@pytest.mark.parametrize("split", [False, True], ids=["channels", "splits"])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_orders_and_ledger_follow_every_structure(name: str, split: bool) -> None:
    """The ledger's idea of MACs is that of ``class_macs``, and that one ``cost``'s."""
    _, graph, channels = captured(name)
    x = random(4, 3, SIDE, SIDE).double()
    mission = Mission((1, 4), ("b", "e"))
    evidence = measure_evidence(graph, channels, mission, x)
    orders = elimination_orders(graph, channels, evidence)
    known = spectra(graph, channels, evidence) if split else ()
    assert orders or known
    ledger = open_ledger(graph, channels, orders, mission.indices, spectra=known)
    full = class_macs(graph, channels, np.zeros(channels.count, dtype=bool))
    left = []
    for share in (0.8, 0.5):

        def fits(cut: Cut, share: float = share) -> bool:
            return class_macs(graph, channels, cut.gone, cut.splits) <= share * full

        cut = cut_to_size(graph, channels, ledger, fits)
        gone = cut.gone
        plan = channel_plan(graph, channels, cut, mission.indices)
        left.append(cost(graph, channels, plan).macs)
        small = compact(graph, channels, plan)
        assert left[-1] == cost(small, analyse(small)).macs
        removed = removed_classes(channels, plan)
        assert gone[removed].all()
        # Of a layer that goes whole one channel stays, for no runtime takes a tensor without any.
        empty = [ids for ids in channels.of.values() if gone[ids].all()]
        assert set(np.flatnonzero(gone & ~removed)) <= {int(ids[0]) for ids in empty}
        assert class_macs(graph, channels, removed, cut.splits) == left[-1]
    assert left[1] <= left[0]


def test_the_budget_is_spent_at_one_price(known) -> None:
    """No single step on or back would lower damages + price x cost: the optimum by hand."""
    graph, channels, _, orders = known
    full = class_macs(graph, channels, np.zeros(channels.count, dtype=bool))
    ledger = open_ledger(graph, channels, orders, MISSION.indices)
    gone = cut_to_size(
        graph, channels, ledger, lambda c: class_macs(graph, channels, c.gone) <= full / 2
    ).gone
    prices_on, prices_back = [], []
    macs = class_macs(graph, channels, gone)
    for order in orders:
        count = int(gone[order.classes].sum())
        step = int(np.searchsorted(order.counts, count))
        for other, found in ((step + 1, prices_on), (step - 1, prices_back)):
            if 0 <= other < len(order.counts):
                changed = gone.copy()
                changed[order.classes] = False
                changed[order.classes[: order.counts[other]]] = True
                saved = macs - class_macs(graph, channels, changed)
                found.append((order.damages[other] - order.damages[step]) / saved)
    assert min(prices_on) > 0.5 * max(prices_back)  # steps are whole channels


@pytest.mark.parametrize("price", [1e-9, 1e-7, 1e-5, 1e-3])
def test_splits_are_the_cheapest_of_all(known, price: float) -> None:
    """By trying every rank of every layer, both ways."""
    graph, channels, evidence, _ = known
    nothing = np.zeros(channels.count, dtype=bool)
    sizes = {"stem": (12, 3, 9), "inner": (20, 12, 9), "back": (12, 20, 9), "side": (10, 12, 1),
             "last": (16, 22, 9)}  # fmt: skip
    seen = spectra(graph, channels, evidence)
    assert {s.layer for s in seen} == set(sizes)
    assert {s.layer for s in seen if s.separable} == {"stem", "inner", "back", "last"}
    chosen = choose_splits(graph, channels, seen, nothing, price)
    for layer, (n_out, n_in, kernel) in sizes.items():
        whole = 256 * n_out * n_in * kernel
        options: dict[Split | None, float] = {None: price * whole}
        for spectrum in (s for s in seen if s.layer == layer):
            side = math.isqrt(kernel) if spectrum.separable else 1
            for rank in range(1, len(spectrum.values)):
                left = 256 * rank * (n_in * kernel // side + n_out * side)
                if left <= 0.9 * whole:
                    split = Split(rank, spectrum.separable)
                    options[split] = spectrum.values[rank:].sum() + price * left
        assert chosen.get(layer) == min(options, key=options.__getitem__)


@pytest.mark.parametrize("element", [0.0, 7.0])
def test_work_counts_macs_and_numbers_written(known, element: float) -> None:
    """By hand, for the whole network and for one channel and one rank less."""
    graph, channels, _, _ = known
    gone = np.zeros(channels.count, dtype=bool)
    layers, others = 12 + 20 + 12 + 10 + 16, 12 + 22  # convolutions; the add and the concat
    macs = 256 * (12 * 27 + 20 * 108 + 12 * 180 + 10 * 12 + 16 * 198) + 16 * 5
    want = macs + element * (256 * (layers / 4 + others) + 16 + 5 / 4)
    assert class_work(graph, channels, gone, {}, element) == want
    gone[channels.of["inner"][3]] = True
    want -= 256 * (108 + 12 * 9) + element * 256 / 4
    assert class_work(graph, channels, gone, {}, element) == want
    want += 256 * (4 * (198 + 16) - 16 * 198) + element * 256 * 4 / 4
    assert class_work(graph, channels, gone, {"last": Split(4)}, element) == want
    want += 256 * 4 * (3 * 22 + 3 * 16 - 9 * 22 - 16)
    assert class_work(graph, channels, gone, {"last": Split(4, separable=True)}, element) == want


def test_where_numbers_are_dear_fewer_are_written_for_as_many_macs(known) -> None:
    graph, channels, evidence, orders = known
    seen, full = (
        spectra(graph, channels, evidence),
        class_macs(graph, channels, np.zeros(channels.count, dtype=bool)),
    )
    written = []
    for element in (0.0, 300.0):
        ledger = open_ledger(graph, channels, orders, MISSION.indices, 0.0, seen, element)

        def fits(cut: Cut) -> bool:
            return class_macs(graph, channels, cut.gone, cut.splits) <= full / 3

        cut = cut_to_size(graph, channels, ledger, fits)
        by_numbers = class_work(graph, channels, cut.gone, cut.splits, 1.0)
        written.append(by_numbers - class_macs(graph, channels, cut.gone, cut.splits))
    assert written[1] < written[0]


@pytest.mark.parametrize("multiple", [2, 4, 8])
def test_layers_are_rounded_up_to_a_multiple_or_left_whole(known, multiple: int) -> None:
    graph, channels, _, orders = known
    gone = np.zeros(channels.count, dtype=bool)
    for order in orders:
        gone[order.classes[: len(order.classes) * 2 // 3]] = True
    rounded = round_up(graph, channels, orders, gone, multiple)
    assert not (rounded & ~gone).any()
    for node in graph.nodes:
        if node.op in LAYERS and node.name != graph.output:
            ids = channels.of[node.name]
            left = int((~rounded[ids]).sum())
            assert left % multiple == 0 or left == len(ids)
            # The hottest came back: none that stayed away went later than one that returned.
            back = [i for o in orders for i, c in enumerate(o.classes) if gone[c] and c in ids
                    and not rounded[c]]  # fmt: skip
            away = [i for o in orders for i, c in enumerate(o.classes) if c in ids and rounded[c]]
            assert not back or not away or min(back) > max(away)
