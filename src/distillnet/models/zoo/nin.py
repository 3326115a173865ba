"""Network in Network for ImageNet, the Caffe network that the slides' changes begin with.

Lin et al., "Network in Network". Layers are counted through, conv1 to conv12, as the slides do it,
and a pool is named for the layer that it follows.
"""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from distillnet.models.zoo.googlenet import BVLC_GOOGLENET_PREPROCESSING

__all__ = ["NIN_PREPROCESSING", "from_caffe_nin", "nin"]

# Caffe's reference networks share it: BGR, 0 to 255, minus the mean.
NIN_PREPROCESSING = BVLC_GOOGLENET_PREPROCESSING

# Filters, their side, stride and padding.
_LAYERS = (
    *((96, 11, 4, 0), (96, 1, 1, 0), (96, 1, 1, 0)),
    *((256, 5, 1, 2), (256, 1, 1, 0), (256, 1, 1, 0)),
    *((384, 3, 1, 1), (384, 1, 1, 0), (384, 1, 1, 0)),
    *((1024, 3, 1, 1), (1024, 1, 1, 0), (1000, 1, 1, 0)),
)
_CAFFE = (
    *("conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4"),
    *("conv3", "cccp5", "cccp6", "conv4-1024", "cccp7-1024", "cccp8-1024"),
)


def nin() -> nn.Sequential:
    """Network in Network, (N, 3, 224, 224), BGR minus the mean -> logits (N, 1000).

    >>> sum(p.numel() for p in nin().parameters())
    7595176
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (filters, side, stride, padding) in enumerate(_LAYERS, 1):
        layers[f"conv{number}"] = nn.Conv2d(channels, filters, side, stride, padding)
        layers[f"relu{number}"] = nn.ReLU()
        if number in (3, 6, 9):  # Caffe rounds the output size of a pool up
            layers[f"pool{number}"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        channels = filters
        if number == 9:
            layers["drop"] = nn.Dropout(0.5)
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


def from_caffe_nin(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with Caffe's layer names replaced by ours, or ours as they are.

    ``conv2`` is a layer to both, so Caffe's names count only where all of them are there.
    """
    if not {f"{name}.weight" for name in _CAFFE} <= set(state):
        return dict(state)
    ours = {name: f"conv{number}" for number, name in enumerate(_CAFFE, 1)}
    renamed = {}
    for key, value in state.items():
        layer, dot, kind = key.rpartition(".")
        renamed[ours.get(layer, layer) + dot + kind] = value
    return renamed
