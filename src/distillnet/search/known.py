"""Images that the network was trained on: how they are told, and by how much they mislead.

The original knows them by heart and makes next to no errors there, so all that a smaller network
forgets of them counts as lost, which the original never had of other images; and a smaller input
seems to cost less than it does. On the average of the yardstick both cancel each other, but a
single mission may be off by a point where the input is much smaller, so an estimate is the less
certain for that (docs/results.md).

``knows`` tells such images by the temperature at which the original's probabilities are right:
training brings it to 1 on its own images, while on others a network is too sure of itself. That is
so where training asked for certainty. A network that was taught to leave something to the other
classes (label smoothing) is certain of no image; its temperature is below 1 on images of its
training, and may well be 1 on others, so it tells nothing.
"""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["knows", "misled_pp"]

# Temperatures between which images are taken for those of the training. Below them is who never
# errs, and who was taught to be less sure than it might be.
_LEAST_TRAINED, _TRAINED = 0.8, 1.05
_STEP = 0.025
_CERTAIN, _EASIEST = 0.99, 0.1  # the probability that training for certainty gives such a share
_LEAST_KNOWN = 100  # images that a temperature is told from
_KNOWN_PP = 0.8  # by what known images mislead, by the share of pixels saved


def knows(scores_nk: Tensor, labels_n: Tensor) -> bool:
    """Whether a network seems to have been trained on images: its probabilities are right on them.

    The temperature T of  softmax(scores / T)  with the least cross-entropy is 1 where training has
    minimised that very thing, and larger on images that the network was not trained on. The
    cross-entropy is convex in 1 / T, so it has one valley: the least lies at ``_TRAINED`` or below
    where the next temperature is no better, and at ``_LEAST_TRAINED`` or above where the one before
    is no better. Of few images it tells too little, and of a network that is not even certain of
    the easiest tenth: then they are taken for new.

    Args:
        scores_nk: of all classes.
        labels_n: positions among them.
    """
    if len(labels_n) < _LEAST_KNOWN:
        return False
    scores, labels = scores_nk.double().cpu(), labels_n.cpu()
    surest_n = scores.softmax(1).amax(1)
    if float(surest_n.quantile(1 - _EASIEST)) < _CERTAIN:
        return False

    def surprise(temperature: float) -> float:
        return float(F.cross_entropy(scores / temperature, labels))

    return surprise(_TRAINED) <= surprise(_TRAINED + _STEP) and surprise(
        _LEAST_TRAINED
    ) <= surprise(_LEAST_TRAINED - _STEP)


def misled_pp(pixels: float) -> float:
    """By what losses on images that a network knows may be off at a share of its pixels.

    >>> misled_pp(1.0), misled_pp(0.5)
    (0.0, 0.4)
    """
    return _KNOWN_PP * (1 - pixels)
