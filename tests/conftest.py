"""Fixtures that several test modules use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, or a skip."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("DISTILLNET_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data in {path}; set DISTILLNET_DATA")
    return path
