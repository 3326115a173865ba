"""Fixtures that several test modules use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; where it is absent a skip, or a failure in CI."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("DISTILLNET_DATA", default))
    if not path.is_dir():
        reason = f"no real data in {path}; set DISTILLNET_DATA"
        if os.environ.get("DISTILLNET_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
