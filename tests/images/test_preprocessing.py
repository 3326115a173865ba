"""Preprocessing is torchvision's, to the bit, and Caffe's by hand."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from distillnet.images.preprocessing import Preprocessing, preprocess
from noisy_pictures import picture

# Of 49 x 147 a float ratio 256 / 49 makes 767 pixels, and exact arithmetic 768.
SIZES = [(224, 224), (256, 256), (500, 375), (333, 501), (97, 61), (257, 1024), (640, 223)]
SIZES += [(3, 40), (49, 147)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("crop", "resize"), [(224, 256), (224, 232), (223, 235), (64, 64), (80, 61)]
)
def test_preprocess_is_torchvisions(crop, resize, mode):
    how = Preprocessing((crop, crop), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=resize)
    theirs = ImageClassification(crop_size=crop, resize_size=resize, mean=how.mean, std=how.std)
    for size in SIZES:
        image = picture(sum(size), size, mode)
        expected = theirs(image.convert("RGB"))
        assert torch.equal(preprocess(image, how), expected), (size, crop, resize)


def test_preprocess_is_torchvisions_bicubic():
    mean = (0.5, 0.5, 0.5)
    how = Preprocessing((48, 48), mean, mean, resize=50, interpolation="bicubic")
    theirs = ImageClassification(
        crop_size=48, resize_size=50, mean=mean, std=mean, interpolation=InterpolationMode.BICUBIC
    )
    for size in SIZES:
        assert torch.equal(preprocess(picture(1, size), how), theirs(picture(1, size)))


def test_preprocess_of_the_caffe_convention():
    """The whole image squashed, BGR, 0 to 255 less the mean."""
    how = Preprocessing((4, 3), (104, 117, 123), (1, 1, 1), divisor=1.0, channels="BGR")
    image = picture(0, (3, 4))
    pixels_hwc = np.array(image).astype(np.float64)
    expected = pixels_hwc[:, :, ::-1] - [104, 117, 123]
    assert np.array_equal(preprocess(image, how).permute(1, 2, 0).numpy(), expected)
    assert preprocess(picture(0, (30, 10)), how).shape == (3, 4, 3)
