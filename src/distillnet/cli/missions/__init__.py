"""Commands on atlases, rules for unknown images, signed packages."""

__all__: list[str] = []
