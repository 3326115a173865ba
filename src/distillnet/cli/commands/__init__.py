"""One module per command: its options, and the library call that does it."""

__all__: list[str] = []
