"""Networks of the paper that no library ships."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from distillnet.images.preprocessing import Preprocessing
from distillnet.models.names import ZOO_CLASSES
from distillnet.models.zoo.googlenet import (
    BVLC_GOOGLENET_PREPROCESSING,
    bvlc_googlenet,
    from_caffe_names,
)
from distillnet.models.zoo.tensorflow import (
    TF_CIFAR_PREPROCESSING,
    TF_MNIST_PREPROCESSING,
    tf_cifar,
    tf_mnist,
)

__all__ = ["ZOO", "ZooNetwork", "bvlc_googlenet", "tf_cifar", "tf_mnist"]


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
