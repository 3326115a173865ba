"""What each change does to a network and to training it on many machines: the slides' table."""

from collections.abc import Sequence
from dataclasses import dataclass

from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS
from distillnet.playbook.changes import Change, apply_change
from distillnet.playbook.quantities import Quantities, quantities

__all__ = ["Effect", "effects", "slides_changes"]

INITIAL = Change("initial network")


@dataclass(frozen=True)
class Effect:
    """A changed network's quantities beside those of the network as it was."""

    change: Change
    before: Quantities
    after: Quantities

    @property
    def output(self) -> float:
        """The quantity of output, as a ratio to that before."""
        return self.after.output / self.before.output

    @property
    def params(self) -> float:
        """The quantity of parameters, and with it of communication, as a ratio."""
        return self.after.params / self.before.params

    @property
    def macs(self) -> float:
        """The quantity of computation, as a ratio."""
        return self.after.macs / self.before.macs

    @property
    def macs_per_byte(self) -> float:
        """MACs per byte that a worker communicates in a step, for each image of its batch.

        The more of them, the more workers training can make use of.
        """
        return self.after.macs / self.after.gradient_bytes


def effects(graph: Graph, changes: Sequence[Change]) -> tuple[Effect, ...]:
    """What each change does by itself; the first row is the network as it is.

    Raises InputError where a change does not fit the network, see ``apply_change``.
    """
    before = quantities(graph)
    rows = [Effect(INITIAL, before, before)]
    rows += [Effect(c, before, quantities(apply_change(graph, c))) for c in changes]
    return tuple(rows)


def slides_changes(graph: Graph) -> tuple[Change, ...]:
    """The changes of the slides' table for any network, each 4x.

    The kernel is that of the middle layer, or the next after it that is wider than a pixel; the
    filters are those of the layer behind the middle one, or the next that makes no scores; the pool
    is the first. In Network in Network these are conv7, conv8 and pool3, as in the slides.

    Raises InputError for a network with fewer than three layers.
    """
    layers = [node for node in graph.nodes if node.op in LAYERS]
    channels = analyse(graph)
    scores = set(channels.outputs.tolist())
    inner = [n.name for n in layers if not scores & set(channels.of[n.name].tolist())]
    if len(layers) < 3 or not inner:
        raise InputError(f"found a network of {len(layers)} layers, expected at least 3")
    middle = len(layers) // 2
    wide = [
        node.name
        for node in (*layers[middle:], *layers[:middle])
        if node.op == "conv" and graph.params[node.params["weight"]].shape[-1] > 1
    ]
    filters = next((n.name for n in layers[middle + 1 :] if n.name in inner), inner[-1])
    pools = [node.name for node in graph.nodes if node.op in ("max_pool", "avg_pool")]
    changes = [
        Change("4x more input channels", input_channels=4),
        Change(f"4x more filters in {filters}", filters={filters: 4}),
    ]
    if wide:
        title = f"4x larger filter resolution in {wide[0]}"
        changes.append(Change(title, kernel_side={wide[0]: 2}))
    changes.append(Change("4x more categories to classify", outputs=4))
    if pools:
        title = f"remove {pools[0].partition(':')[0]} downsampling layer"
        changes.append(Change(title, removed=frozenset(pools[:1])))
    changes.append(Change("4x larger input data resolution", input_side=2))
    return tuple(changes)
