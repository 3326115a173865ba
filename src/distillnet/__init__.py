"""Cut a pretrained CNN down to the few classes you need, with no training.

>>> import distillnet as dn
>>> mission = dn.parse_mission("tench, church", dn.imagenet_table())
>>> mission.indices
(0, 497)
"""

import lazy_loader

# What the room offers stands in __init__.pyi and is imported when it is first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
