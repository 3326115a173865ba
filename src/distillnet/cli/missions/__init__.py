"""Commands on atlases: what missions cost, and making them without images."""

__all__: list[str] = []
