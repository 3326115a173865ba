"""Images by class: which there are, parts of them, and batches of tensors.

A label is always the network's own class index, never a position in the mission.
"""

import lazy_loader

# What the room offers stands in __init__.pyi and is imported when it is first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
