"""What can go wrong, as a tree of exceptions.

    DistillnetError          anything this package raises on purpose
    └── InputError           the user's input is wrong; exit status 2
        ├── UnsupportedError an operator or architecture that cannot be distilled
        └── ImageError       images that cannot be used

Every message names what was found, what was expected and what to do.
"""

__all__ = ["DistillnetError", "ImageError", "InputError", "UnsupportedError"]


class DistillnetError(Exception):
    """Anything this package raises on purpose."""


class InputError(DistillnetError):
    """The input is wrong; the message says what was found, what was expected and what to do."""


class UnsupportedError(InputError):
    """The network holds an operator or a structure that distillnet does not follow."""


class ImageError(InputError):
    """A folder of images cannot be used, or too many of its images cannot be read."""
