"""The reference designs of TensorFlow's tutorials, which the paper distils in its Table 3."""

from collections import OrderedDict

from torch import nn

from distillnet.images.preprocessing import Preprocessing

__all__ = ["TF_CIFAR_PREPROCESSING", "TF_MNIST_PREPROCESSING", "tf_cifar", "tf_mnist"]

TF_MNIST_PREPROCESSING = Preprocessing(
    input_size=(28, 28), mean=(0.1307,), std=(0.3081,), channels="L"
)
# The tutorial standardises each image by itself. Fixed figures, those of CIFAR-10's training
# images, cost no accuracy and leave nothing to compute on the device.
TF_CIFAR_PREPROCESSING = Preprocessing(
    input_size=(24, 24), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), resize=32
)


def tf_mnist() -> nn.Sequential:
    """TensorFlow's MNIST network, (N, 1, 28, 28) -> logits (N, 10): 3,274,634 parameters.

    >>> sum(p.numel() for p in tf_mnist().parameters())
    3274634
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * 7 * 7, 1024),
            relu3=nn.ReLU(),
            dropout=nn.Dropout(0.4),
            fc2=nn.Linear(1024, 10),
        )
    )


def tf_cifar() -> nn.Sequential:
    """TensorFlow's CIFAR-10 network, (N, 3, 24, 24) -> logits (N, 10): 1,068,298 parameters.

    >>> sum(p.numel() for p in tf_cifar().parameters())
    1068298
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 64, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=_same_pool(),
            norm1=_tf_response_norm(),
            conv2=nn.Conv2d(64, 64, 5, padding=2),
            relu2=nn.ReLU(),
            norm2=_tf_response_norm(),
            pool2=_same_pool(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * 6 * 6, 384),
            relu3=nn.ReLU(),
            fc2=nn.Linear(384, 192),
            relu4=nn.ReLU(),
            fc3=nn.Linear(192, 10),
        )
    )


def _same_pool() -> nn.MaxPool2d:
    # On even sides TensorFlow's SAME pads one row and column at the end only, which for a maximum
    # is what ceil mode does.
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _tf_response_norm() -> nn.LocalResponseNorm:
    # TensorFlow: depth_radius 4, bias 1, alpha 0.001 / 9, beta 0.75. Its alpha multiplies the sum
    # over the 2 * 4 + 1 channels, PyTorch's multiplies their mean.
    size = 2 * 4 + 1
    return nn.LocalResponseNorm(size, alpha=size * (0.001 / 9), beta=0.75, k=1.0)
