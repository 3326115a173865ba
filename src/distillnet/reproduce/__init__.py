"""Tables of the papers, measured."""

__all__: list[str] = []
