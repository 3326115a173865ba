"""A small network with random weights."""

import pytest

from distillnet.models import Model, random_model
from weights_on_disk import SMALL


@pytest.fixture(scope="session")
def small() -> Model:
    return random_model(SMALL, input_size=64)
