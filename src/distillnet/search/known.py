"""Images that the network was trained on: how they are told, and by how much they mislead.

The original knows them by heart and makes next to no errors there, so all that a smaller network
forgets of them counts as lost, which the original never had of other images. And a network is
fitted to them too closely, the more so the smaller its input: so it seems to lose less than it
does. At 160 to 192 of 224 pixels the first error is the larger one, by 0.3 points; below about 150
the second, by a point at 112. What images say that were fitted is corrected by this sum, as it was
measured; networks differ in it, so an estimate is the less certain the smaller the input
(docs/results.md).

``knows`` tells such images by the temperature at which the original's probabilities are right:
training brings it to 1 on its own images, while on others a network is too sure of itself. That is
so where training asked for certainty. A network that was taught to leave something to the other
classes (label smoothing) is certain of no image; its temperature is below 1 on images of its
training, and may well be 1 on others, so it tells nothing.
"""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

__all__ = ["hidden_pp", "knows", "misled_pp"]

# Temperatures between which images are taken for those of the training. Below them is who never
# errs, and who was taught to be less sure than it might be.
_LEAST_TRAINED, _TRAINED = 0.8, 1.05
_STEP = 0.025
_CERTAIN, _EASIEST = 0.99, 0.1  # the probability that training for certainty gives such a share
_LEAST_KNOWN = 100  # images that a temperature is told from
# How much more other images lose, by the share of pixels saved: 0.5 is a side of about 160 in place
# of 224, 0.75 is one of 112.
_SAVED, _HIDDEN_PP = (0.0, 0.25, 0.5, 0.67, 0.75, 1.0), (0.0, -0.3, -0.3, 0.9, 1.0, 1.5)
# By what known images mislead, by the same share: as they are, and once that is corrected.
_MISLED_PP, _CORRECTED_PP = 0.8, 0.5


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


def hidden_pp(pixels: float) -> float:
    """How much more is lost of other images than of known ones that were fitted.

    Args:
        pixels: of the input, as a share of those that the original has.

    >>> hidden_pp(1.0), hidden_pp(0.5), hidden_pp(0.25)
    (0.0, -0.3, 1.0)
    """
    return float(np.interp(1 - pixels, _SAVED, _HIDDEN_PP))


def misled_pp(pixels: float, *, corrected: bool = False) -> float:
    """By what losses on images that a network knows may be off, as a standard error.

    Args:
        pixels: as of ``hidden_pp``.
        corrected: whether that was taken into account.

    >>> misled_pp(1.0), misled_pp(0.5), misled_pp(0.5, corrected=True)
    (0.0, 0.4, 0.25)
    """
    return (_CORRECTED_PP if corrected else _MISLED_PP) * (1 - pixels)
