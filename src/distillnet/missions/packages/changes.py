"""What a mission's network has in place of the original's parameters, layer by layer."""

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.engine import LayerRefit
from distillnet.errors import InputError
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.operators import LAYERS
from distillnet.refit.compensation import with_biases

__all__ = ["changed_layers"]


def changed_layers(
    graph: Graph, plan: Plan, tensors: Mapping[str, Tensor], what: str
) -> dict[str, LayerRefit]:
    """By layer, the parameters of a compact network that are not a slice of the original's.

    They come in the original's shapes, what the plan removed as it was there.

    Args:
        graph: the original.
        tensors: of the compact network, named as ``packages.graphs.named_as`` does.
        what: the mission, for messages.

    Raises:
        InputError: something else than weights and biases of whole layers was changed, or a layer
            was split in two.
    """
    whole = with_biases(graph)
    origins = {
        # A tensor whose numbers say where they stood: what is left of it tells what was cut.
        n: torch.arange(p.numel()).reshape(p.shape) if p.is_floating_point() else p
        for n, p in whole.params.items()
    }
    cut = compact(replace(whole, params=origins), analyse(graph), plan)
    left = dict(tensors)
    found = {}
    for node in whole.nodes:
        if node.op not in LAYERS:
            continue
        values: dict[str, NDArray[np.float32]] = {}
        differs = {}
        for role, name in node.params.items():
            key = re.sub(r"\W", "_", name)
            full = whole.params[name].detach().cpu().clone().contiguous()
            given = left.pop(key, None)
            if given is None and role == "weight":
                raise InputError(
                    f"{what} has no layer {node.name!r} as the original has it; expected whole "
                    "layers, for code that several missions share, and found one that was split in "
                    "two. Distill with --no-split, or export the run as C of its own"
                )
            if given is not None:
                if given.shape != cut.params[name].shape:
                    raise InputError(
                        f"{what} has {tuple(given.shape)} numbers for {name!r}, where its bitmaps "
                        f"leave {tuple(cut.params[name].shape)}; distill again"
                    )
                at = cut.params[name].flatten()
                differs[role] = not torch.equal(full.flatten()[at], given.detach().flatten())
                full.view(-1)[at] = given.detach().cpu().flatten()
            values[role] = full.numpy()
        if any(differs.values()):
            bias = values.get("bias", np.zeros(node.shape[0], np.float32))
            weight = values["weight"] if differs["weight"] else None
            found[node.name] = LayerRefit(bias, weight)
    _check_rest(whole, cut, left, what)
    return found


def _check_rest(whole: Graph, cut: Graph, left: Mapping[str, Tensor], what: str) -> None:
    """All else, the constants of normalisations for instance, must be the original's."""
    originals = {re.sub(r"\W", "_", name): name for name in cut.params}
    for key, given in left.items():
        name = originals.get(key)
        if not given.is_floating_point():
            continue
        if name is not None and name in whole.params:
            want = whole.params[name].detach().cpu().flatten()[cut.params[name].flatten()]
            if torch.equal(want, given.detach().cpu().flatten()):
                continue
        raise InputError(
            f"{what} has numbers of its own for {key!r}, which is no layer's weight; expected "
            "changes of convolutions and linear layers alone. Export the run as C of its own"
        )
