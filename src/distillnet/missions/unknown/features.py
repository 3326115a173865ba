"""What the last layer of a network sees, and the rule as a part of the graph.

The rule is one linear layer beside the head, on the same features, so every runtime has what it
needs: nothing but a linear layer, a scale and a concatenation is added. A head that is a
convolution over the map, as SqueezeNet has it, sees a map: its mean over the places is taken.

Legend: N images, K classes of the mission, F features.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from distillnet.errors import InputError, UnsupportedError
from distillnet.graph import Graph, Node, fast_layout, run
from distillnet.graph.operators import LAYERS
from distillnet.images import Batch
from distillnet.missions.unknown.rule import Rule

__all__ = ["Measured", "feature_of", "measure", "with_unknown"]


@dataclass(frozen=True, eq=False)
class Measured:
    """Features (N, F) and scores (N, K) of images, float64, and the images' labels (N,)."""

    features_nf: Tensor
    scores_nk: Tensor
    labels_n: Tensor

    def __len__(self) -> int:
        return len(self.labels_n)


def feature_of(graph: Graph) -> str:
    """The node that the last layer reads.

    Raises:
        UnsupportedError: no single layer makes the scores, such as where two heads are added.
    """
    node = graph[graph.output]
    while node.op not in LAYERS:
        if len(node.inputs) != 1:
            raise UnsupportedError(
                f"the scores come from {node.name!r}, a {node.op} of {len(node.inputs)} values; "
                "expected one last layer, whose features the rule for unknown images reads"
            )
        node = graph[node.inputs[0]]
    return node.inputs[0]


def measure(graph: Graph, batches: Iterable[Batch]) -> Measured:
    """Features before the head and scores of images, in their order."""
    feature = feature_of(graph)
    device = next(iter(graph.params.values())).device
    features, scores, labels = [], [], []
    with torch.inference_mode():
        for batch in batches:
            x = fast_layout(batch.x_nchw.to(device))
            values = run(graph, {graph.input.name: x}, [feature, graph.output])
            f = values[feature]
            features.append((f.mean((2, 3)) if f.ndim == 4 else f).double().cpu())
            scores.append(values[graph.output].double().cpu())
            labels.append(batch.labels_n)
    return Measured(torch.cat(features), torch.cat(scores), torch.cat(labels))


def with_unknown(graph: Graph, rule: Rule) -> Graph:
    """The graph with calibrated scores, and behind them one that is the largest for the unknown.

    Scores (N, K) become (N, K + 1): those of the mission over ``rule.temperature``, and the rule's.

    >>> from distillnet.graph.capture import capture
    >>> graph = capture(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), (2, 2),
    ...                 channels=1)
    >>> out = with_unknown(graph, Rule(2.0, (0.0,) * 4, 1.5))
    >>> out[out.output].shape
    (4,)
    """
    feature = graph[feature_of(graph)]
    nodes, params = list(graph.nodes), dict(graph.params)
    like = next(p for p in params.values() if p.is_floating_point())
    head = feature.name
    if len(feature.shape) == 3:
        pooled = Node(":unknown:mean", "mean", (head,), (feature.shape[0], 1, 1), {"keepdim": True})
        flat = Node(":unknown:features", "flatten", (pooled.name,), (feature.shape[0],))
        nodes += [pooled, flat]
        head = flat.name
    if len(rule.weight) != feature.shape[0]:
        raise InputError(
            f"the rule for unknown images has {len(rule.weight)} weights; expected "
            f"{feature.shape[0]}, as many as this network has features. Fit it again with "
            "`distillnet unknown`"
        )
    k = graph[graph.output].shape[0]
    values = {
        ":unknown.weight": torch.tensor([rule.weight], dtype=torch.float64),
        ":unknown.bias": torch.tensor([rule.bias], dtype=torch.float64),
        ":unknown.scale": torch.full((k,), 1 / rule.temperature, dtype=torch.float64),
        ":unknown.shift": torch.zeros(k, dtype=torch.float64),
    }
    params |= {name: value.to(like) for name, value in values.items()}
    layer = {"weight": ":unknown.weight", "bias": ":unknown.bias"}
    scale = {"scale": ":unknown.scale", "shift": ":unknown.shift"}
    nodes += [
        Node(":unknown", "linear", (head,), (1,), {}, layer),
        Node(":unknown:calibrated", "affine", (graph.output,), (k,), {}, scale),
        Node(":unknown:scores", "cat", (":unknown:calibrated", ":unknown"), (k + 1,)),
    ]
    return Graph(tuple(nodes), params, ":unknown:scores")
