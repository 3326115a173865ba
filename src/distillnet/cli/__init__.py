"""The command line: thin layers over the Python API."""

from distillnet.cli.main import app, main

__all__ = ["app", "main"]
