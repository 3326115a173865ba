"""Libraries that only some commands need, and what to say where one is missing."""

import importlib
from importlib.util import find_spec
from types import ModuleType

from distillnet.errors import InputError

__all__ = ["is_installed", "need"]


def is_installed(*modules: str) -> bool:
    """Whether modules can be imported, found without importing them."""
    return all(find_spec(module) is not None for module in modules)


def _nothing() -> None:
    pass


def need(module: str, extra: str) -> ModuleType:
    """Import a module of an optional dependency.

    Raises:
        InputError: it is not installed; the message names the extra that brings it.

    >>> need("math", "onnx").pi > 3
    True
    """
    try:
        imported = importlib.import_module(module)
        # ONNX Runtime's builds for Windows report to its maker unless they are told not to.
        getattr(imported, "disable_telemetry_events", _nothing)()
        return imported
    except ModuleNotFoundError as error:
        if not module.startswith(str(error.name)):
            raise
        raise InputError(
            f"this needs {error.name}, which is not installed; "
            f"run pip install 'distillnet[{extra}]'"
        ) from None
