"""The process around a command: its memory, signals and streams, and what a failure tells."""

__all__: list[str] = []
