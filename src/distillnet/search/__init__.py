"""Finding the smallest plan within a budget: what to score neurons by, and where to cut."""

import lazy_loader

# What the room offers stands in __init__.pyi and is imported when it is first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
