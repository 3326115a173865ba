"""Networks of the paper and of the slides that no library ships."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from distillnet.images.preprocessing import Preprocessing
from distillnet.models.designs import FireDesign
from distillnet.models.names import ZOO_CLASSES, design_of
from distillnet.models.zoo.firenet import FIRENET_PREPROCESSING, FireNet
from distillnet.models.zoo.googlenet import (
    BVLC_GOOGLENET_PREPROCESSING,
    bvlc_googlenet,
    from_caffe_names,
)
from distillnet.models.zoo.nin import NIN_PREPROCESSING, from_caffe_nin, nin
from distillnet.models.zoo.tensorflow import (
    TF_CIFAR_PREPROCESSING,
    TF_MNIST_PREPROCESSING,
    tf_cifar,
    tf_mnist,
)

__all__ = [
    "ZOO",
    "FireNet",
    "ZooNetwork",
    "bvlc_googlenet",
    "nin",
    "tf_cifar",
    "tf_mnist",
    "zoo_network",
]


@dataclass(frozen=True)
class ZooNetwork:
    """How to build one network, feed it, name its classes and come by its weights."""

    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None  # None: the 1,000 classes of ImageNet
    weights_hint: str  # what to do without --weights, the end of an error message
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict


ZOO: Mapping[str, ZooNetwork] = {
    "bvlc_googlenet": ZooNetwork(
        bvlc_googlenet,
        BVLC_GOOGLENET_PREPROCESSING,
        ZOO_CLASSES["bvlc_googlenet"],
        "pass the Caffe weights, converted to safetensors with keys such as"
        " 'conv1/7x7_s2.weight', as --weights",
        from_caffe_names,
    ),
    "nin": ZooNetwork(
        nin,
        NIN_PREPROCESSING,
        ZOO_CLASSES["nin"],
        "pass the Caffe weights, converted to safetensors with keys such as 'cccp1.weight', as"
        " --weights",
        from_caffe_nin,
    ),
    "tf_mnist": ZooNetwork(
        tf_mnist,
        TF_MNIST_PREPROCESSING,
        ZOO_CLASSES["tf_mnist"],
        "make them with 'distillnet train zoo:tf_mnist --data DIR --out FILE', then pass"
        " --weights FILE",
    ),
    "tf_cifar": ZooNetwork(
        tf_cifar,
        TF_CIFAR_PREPROCESSING,
        ZOO_CLASSES["tf_cifar"],
        "make them with 'distillnet train zoo:tf_cifar --data DIR --out FILE', then pass"
        " --weights FILE",
    ),
}


def zoo_network(name: str) -> ZooNetwork:
    """The network behind ``zoo:NAME``; KeyError for a name that ``check_model`` would refuse."""
    design = design_of(name)
    return ZOO[name] if design is None else _firenet(design)


def _firenet(design: FireDesign) -> ZooNetwork:
    return ZooNetwork(
        partial(FireNet, design),
        FIRENET_PREPROCESSING,
        None if design.classes == 1000 else tuple(map(str, range(design.classes))),
        "train it, then pass --weights FILE (torchvision's of squeezenet1_0 fit the one that no"
        " KEY=VALUE changes)",
    )
