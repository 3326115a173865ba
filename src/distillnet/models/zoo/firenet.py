"""FireNets: networks of fire modules, SqueezeNet 1.0 and 1.1 among them.

Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters". The layers' names
are torchvision's, so that its weights can be loaded.
"""

import torch
from torch import Tensor, nn

from distillnet.images.preprocessing import Preprocessing
from distillnet.models.designs import FireDesign, FireWidths

__all__ = ["FIRENET_PREPROCESSING", "Fire", "FireNet"]

FIRENET_PREPROCESSING = Preprocessing(
    input_size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=256
)


class Fire(nn.Module):
    """Few 1x1 filters (squeeze), then 1x1 and 3x3 filters over them (expand), concatenated."""

    def __init__(self, c_in: int, widths: FireWidths) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, widths.squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        if widths.expand_1x1:
            self.expand1x1 = nn.Conv2d(widths.squeeze, widths.expand_1x1, 1)
            self.expand1x1_activation = nn.ReLU(inplace=True)
        if widths.expand_3x3:
            self.expand3x3 = nn.Conv2d(widths.squeeze, widths.expand_3x3, 3, padding=1)
            self.expand3x3_activation = nn.ReLU(inplace=True)
        self.widths = widths

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, expand, H, W)."""
        x = self.squeeze_activation(self.squeeze(x))
        parts = []
        if self.widths.expand_1x1:
            parts.append(self.expand1x1_activation(self.expand1x1(x)))
        if self.widths.expand_3x3:
            parts.append(self.expand3x3_activation(self.expand3x3(x)))
        return torch.cat(parts, dim=1)


class FireNet(nn.Module):
    """A convolution, fire modules with pools between, a 1x1 classifier and its mean over the map.

    >>> squeezenet = FireNet(FireDesign())
    >>> sum(p.numel() for p in squeezenet.parameters())
    1248424
    """

    def __init__(self, design: FireDesign) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, design.conv1_filters, design.conv1_kernel, stride=2),
            nn.ReLU(inplace=True),
        ]
        if 1 in design.pools:
            layers.append(_halving_pool())
        channels = design.conv1_filters
        for number, widths in enumerate(design.widths(), 2):
            layers.append(Fire(channels, widths))
            channels = widths.expand
            if number in design.pools:
                layers.append(_halving_pool())
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(p=0.5),
            nn.Conv2d(channels, design.classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        return self.classifier(self.features(x)).flatten(1)


def _halving_pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)
