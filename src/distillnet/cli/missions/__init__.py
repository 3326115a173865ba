"""Commands of missions in the field: rules for unknown images, signed packages."""

__all__: list[str] = []
