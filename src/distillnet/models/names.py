"""What a MODEL argument names, as far as can be told without importing the library that has it.

A name that is wrong shall not cost the seconds that torch takes to load. What torchvision and timm
have is read from the text of their modules; where that tells nothing, ``sources`` asks them.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from distillnet.classes import ClassTable, imagenet_table, numbered_table, read_class_table
from distillnet.errors import InputError
from distillnet.models.designs import FIRENET, FireDesign, read_design

__all__ = [
    "ZOO_CLASSES",
    "check_model",
    "classes_before",
    "design_of",
    "library_names",
    "unknown",
]

_FORMS = "torchvision:NAME, timm:NAME, zoo:NAME, FILE.py:CALLABLE or FILE.pt2"

# The networks of ``zoo`` and the names of their classes; None: the 1,000 of ImageNet.
ZOO_CLASSES: Mapping[str, tuple[str, ...] | None] = {
    "bvlc_googlenet": None,
    FIRENET: None,
    "nin": None,
    "tf_mnist": tuple("0123456789"),
    "tf_cifar": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}
_IMAGENET = 1000

# A builder of theirs, whatever other decorators stand between.
_REGISTERED = re.compile(
    r"^@register_model(?:\(\))?\n(?:@[^\n]*\n(?:[ )][^\n]*\n)*)*def (\w+)", re.M
)


def check_model(spec: str) -> None:
    """Raise InputError where a MODEL argument is of no known form, or names what is not there.

    >>> check_model("zoo:tf_mnist")
    """
    library, _, name = spec.partition(":")
    if library == "timm" and find_spec("timm") is None:
        raise InputError(
            f"{spec} needs timm, which is not installed; run pip install 'distillnet[timm]'."
        )
    if library in ("torchvision", "timm"):
        known = library_names(library)
        if known and name.partition("." if library == "timm" else ":")[0] not in known:
            raise unknown(spec, name, known)
    elif library == "zoo":
        if design_of(name) is None and name not in ZOO_CLASSES:
            raise unknown(spec, name, ZOO_CLASSES)
    elif spec.endswith(".pt2"):
        _check_file(Path(spec), "FILE.pt2, a torch.export programme")
    elif spec.rpartition(":")[0].endswith(".py"):
        _check_file(Path(spec.rpartition(":")[0]), "FILE.py:CALLABLE")
    elif spec.endswith(".py"):
        raise InputError(f"{spec} names no callable; expected {spec}:CALLABLE.")
    else:
        raise InputError(f"Found the model {spec!r}, expected {_FORMS}.{_guess(spec)}")


def classes_before(spec: str, class_names: Path | None) -> ClassTable | None:
    """The classes of the network that ``spec`` names, or None where only the network can tell.

    Raises:
        InputError: the file of class names is no table, or not one for this network.
    """
    library, _, name = spec.partition(":")
    own = ZOO_CLASSES.get(name) if library == "zoo" else None
    n_classes = len(own) if own else _IMAGENET if library in ("torchvision", "zoo") else None
    design = design_of(name) if library == "zoo" else None
    if design is not None and design.classes != _IMAGENET:
        n_classes, own = design.classes, tuple(map(str, range(design.classes)))
    if class_names is not None:
        return read_class_table(class_names, n_classes)
    if n_classes is None:
        return None
    return numbered_table(n_classes, own) if own else imagenet_table()


def design_of(name: str) -> FireDesign | None:
    """The FireNet that ``firenet`` or ``firenet:KEY=VALUE,...`` names; None for other networks.

    >>> design_of("firenet:base=64").base
    64
    """
    family, _, described = name.partition(":")
    return read_design(described) if family == FIRENET else None


def unknown(spec: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a network that a source does not have, with the nearest that it has."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    near = ", ".join(close) if close else f"one of {', '.join(known[:4])}, ..."
    return InputError(f"There is no network {spec!r}; expected a name such as {near}.")


@cache
def library_names(library: str) -> tuple[str, ...]:
    """The networks that torchvision or timm register, sorted; none where it is not installed."""
    found = find_spec(library)
    if found is None or found.origin is None:
        return ()
    texts = (
        path.read_text("utf-8") for path in (Path(found.origin).parent / "models").glob("*.py")
    )
    return tuple(sorted({name for text in texts for name in _REGISTERED.findall(text)}))


def _guess(spec: str) -> str:
    if spec in library_names("torchvision"):
        return f" Did you mean torchvision:{spec}?"
    if spec in ZOO_CLASSES:
        return f" Did you mean zoo:{spec}?"
    if spec in library_names("timm"):
        return f" Did you mean timm:{spec}?"
    return ""


def _check_file(path: Path, expected: str) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected {expected}.")
    if not path.exists():
        raise InputError(f"There is no file {path}; expected {expected}.")
