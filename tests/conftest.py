"""Fixtures that several test modules use."""

import functools
import gc
import importlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_finish() -> None:
    """What is imported stays: torch.export makes Python look through it again and again."""
    gc.collect()
    gc.freeze()


# What torch.export and torch.onnx.export ask of whole libraries anew each time: a third of a small
# network's capture, half of its export. The answers do not change while tests run.
_ASKED_AGAIN = (
    ("torch._export.utils", "_materialize_cpp_cia_ops"),
    ("torch.onnx._internal.exporter._registration", "ONNXRegistry", "from_torchlib"),
)


@pytest.fixture(scope="session", autouse=True)
def libraries_are_asked_once() -> Iterator[None]:
    """All this is private: where it has another name, tests are slower and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for module, *owners, name in _ASKED_AGAIN:
            try:
                owner = functools.reduce(getattr, owners, importlib.import_module(module))
                patch.setattr(owner, name, staticmethod(functools.cache(getattr(owner, name))))
            except (ImportError, AttributeError):
                continue
        yield


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


@pytest.fixture
def signals_are_heard() -> Iterator[None]:
    """A test and what it starts hear Ctrl-C and SIGHUP, even where pytest is deaf to them."""
    hears = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, how) for number, how in hears.items()}
    yield
    for number, how in before.items():
        signal.signal(number, how)


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str, int], float]:
    """What bench was told of memory, by runtime, network and batch: no process is started."""
    told: dict[tuple[str, str, int], float] = {}

    def peak_mb(runtime: str, path: Path, threads: int, shape: tuple[int, ...]) -> float:
        return told.setdefault((runtime, path.stem, shape[0]), 1.0 + len(told))

    monkeypatch.setattr("distillnet.deploy.bench.peak_mb", peak_mb)
    return told
