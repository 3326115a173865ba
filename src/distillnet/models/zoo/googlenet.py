"""The GoogLeNet of the BVLC Caffe model zoo, the network that the paper distils.

It differs from torchvision's: biases and no batch norm, local response normalisation, and a true
5x5 convolution in the 5x5 branch. See Szegedy et al., "Going Deeper with Convolutions", Table 1.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillnet.images.preprocessing import Preprocessing

__all__ = [
    "BVLC_GOOGLENET_PREPROCESSING",
    "BvlcGoogLeNet",
    "Inception",
    "bvlc_googlenet",
    "from_caffe_names",
]

BVLC_GOOGLENET_PREPROCESSING = Preprocessing(
    input_size=(224, 224),
    mean=(104.0, 117.0, 123.0),
    std=(1.0, 1.0, 1.0),
    divisor=1.0,
    channels="BGR",
)

# Input channels, then the columns 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5 and pool_proj of Table 1.
_INCEPTION = {
    "inception_3a": (192, 64, 96, 128, 16, 32, 32),
    "inception_3b": (256, 128, 128, 192, 32, 96, 64),
    "inception_4a": (480, 192, 96, 208, 16, 48, 64),
    "inception_4b": (512, 160, 112, 224, 24, 64, 64),
    "inception_4c": (512, 128, 128, 256, 24, 64, 64),
    "inception_4d": (512, 112, 144, 288, 32, 64, 64),
    "inception_4e": (528, 256, 160, 320, 32, 128, 128),
    "inception_5a": (832, 256, 160, 320, 32, 128, 128),
    "inception_5b": (832, 384, 192, 384, 48, 128, 128),
}

# What Caffe calls a layer -> what it is called here, where names are Python identifiers.
_FROM_CAFFE = {
    "conv1/7x7_s2": "conv1",
    "conv2/3x3_reduce": "conv2_reduce",
    "conv2/3x3": "conv2",
    "loss3/classifier": "classifier",
}
_BRANCH_FROM_CAFFE = {
    "1x1": "conv_1x1",
    "3x3_reduce": "reduce_3x3",
    "3x3": "conv_3x3",
    "5x5_reduce": "reduce_5x5",
    "5x5": "conv_5x5",
    "pool_proj": "pool_proj",
}


class Inception(nn.Module):
    """Four branches over one input, concatenated: 1x1, 3x3, 5x5 and pooled."""

    def __init__(
        self, c_in: int, c1: int, c3_reduce: int, c3: int, c5_reduce: int, c5: int, c_pool: int
    ) -> None:
        super().__init__()
        self.conv_1x1 = nn.Conv2d(c_in, c1, 1)
        self.reduce_3x3 = nn.Conv2d(c_in, c3_reduce, 1)
        self.conv_3x3 = nn.Conv2d(c3_reduce, c3, 3, padding=1)
        self.reduce_5x5 = nn.Conv2d(c_in, c5_reduce, 1)
        self.conv_5x5 = nn.Conv2d(c5_reduce, c5, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool_proj = nn.Conv2d(c_in, c_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c1 + c3 + c5 + c_pool, H, W)."""
        branch_1x1 = F.relu(self.conv_1x1(x))
        branch_3x3 = F.relu(self.conv_3x3(F.relu(self.reduce_3x3(x))))
        branch_5x5 = F.relu(self.conv_5x5(F.relu(self.reduce_5x5(x))))
        branch_pool = F.relu(self.pool_proj(self.pool(x)))
        return torch.cat([branch_1x1, branch_3x3, branch_5x5, branch_pool], dim=1)


class BvlcGoogLeNet(nn.Module):
    """GoogLeNet as Caffe defines it, without the auxiliary heads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.pool1 = _halving_pool()
        self.norm1 = _response_norm()
        self.conv2_reduce = nn.Conv2d(64, 64, 1)
        self.conv2 = nn.Conv2d(64, 192, 3, padding=1)
        self.norm2 = _response_norm()
        self.pool2 = _halving_pool()
        self.inception_3a = Inception(*_INCEPTION["inception_3a"])
        self.inception_3b = Inception(*_INCEPTION["inception_3b"])
        self.pool3 = _halving_pool()
        self.inception_4a = Inception(*_INCEPTION["inception_4a"])
        self.inception_4b = Inception(*_INCEPTION["inception_4b"])
        self.inception_4c = Inception(*_INCEPTION["inception_4c"])
        self.inception_4d = Inception(*_INCEPTION["inception_4d"])
        self.inception_4e = Inception(*_INCEPTION["inception_4e"])
        self.pool4 = _halving_pool()
        self.inception_5a = Inception(*_INCEPTION["inception_5a"])
        self.inception_5b = Inception(*_INCEPTION["inception_5b"])
        self.pool5 = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.classifier = nn.Linear(1024, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W), BGR minus the mean -> logits (N, 1000)."""
        x = self.norm1(self.pool1(F.relu(self.conv1(x))))
        x = F.relu(self.conv2(F.relu(self.conv2_reduce(x))))
        x = self.pool2(self.norm2(x))
        x = self.inception_3b(self.inception_3a(x))
        x = self.pool3(x)
        x = self.inception_4b(self.inception_4a(x))
        x = self.inception_4e(self.inception_4d(self.inception_4c(x)))
        x = self.pool4(x)
        x = self.inception_5b(self.inception_5a(x))
        return self.classifier(self.dropout(self.pool5(x).flatten(1)))


def bvlc_googlenet() -> BvlcGoogLeNet:
    """BVLC GoogLeNet with PyTorch's default random weights: 6,998,552 parameters.

    >>> sum(p.numel() for p in bvlc_googlenet().parameters())
    6998552
    """
    return BvlcGoogLeNet()


def from_caffe_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with Caffe's layer names replaced by ours; any other name stays as it is.

    >>> list(from_caffe_names({"inception_3a/3x3_reduce.bias": torch.zeros(96)}))
    ['inception_3a.reduce_3x3.bias']
    """
    return {_from_caffe(key): value for key, value in state.items()}


def _from_caffe(key: str) -> str:
    layer, dot, kind = key.rpartition(".")
    module, _, branch = layer.partition("/")
    if module in _INCEPTION and branch in _BRANCH_FROM_CAFFE:
        layer = f"{module}.{_BRANCH_FROM_CAFFE[branch]}"
    return _FROM_CAFFE.get(layer, layer) + dot + kind


def _halving_pool() -> nn.MaxPool2d:
    # Caffe rounds the output size of a pool up.
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _response_norm() -> nn.LocalResponseNorm:
    # Caffe, like PyTorch, divides alpha by the window's size.
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
