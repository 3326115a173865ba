"""What the room's tests share."""

import pytest

from colours import colours, network
from distillnet.job.partition import Images
from distillnet.models import Model


@pytest.fixture(scope="session")
def model() -> Model:
    return network()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return colours(tmp_path_factory.mktemp("colours"))
