"""From a MODEL argument to a network with its weights, its preprocessing and its classes."""

import lazy_loader

# What the room offers stands in __init__.pyi and is imported when it is first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
