"""FireNets, a family of networks in a few numbers: what to build, said before torch is imported.

The metaparameters are those of Iandola et al., "SqueezeNet", section 5.1; the defaults are
SqueezeNet 1.0. ``zoo.firenet`` builds what is described here.
"""

from dataclasses import dataclass, fields
from typing import Any

from distillnet.errors import InputError

__all__ = ["FIRENET", "FireDesign", "FireWidths", "read_design", "read_metaparameter"]

FIRENET = "firenet"
_MOST_PARAMS = 200_000_000  # beyond it a number was mistyped, or a stranger's file wants memory


@dataclass(frozen=True)
class FireWidths:
    """The filters of one fire module: of its squeeze layer, and both kinds of its expand layer."""

    squeeze: int
    expand_1x1: int
    expand_3x3: int

    @property
    def expand(self) -> int:
        """The channels that the module hands on."""
        return self.expand_1x1 + self.expand_3x3


@dataclass(frozen=True)
class FireDesign:
    """One network of the FireNet family.

    Attributes:
        base: expand filters of the first fire module.
        increment: how many more there are behind every ``frequency`` modules.
        frequency: modules from one increment to the next.
        squeeze_ratio: squeeze filters per expand filter.
        share_3x3: of the expand filters, the share that is 3x3; the others are 1x1.
        modules: fire modules, which are counted from 2 on, since conv1 is 1.
        pools: the layers that a pool of stride 2 follows, in this count.
        conv1_filters: filters of the first layer, whose stride is 2.
        conv1_kernel: their side in pixels.
        classes: the network's scores.

    >>> [widths.expand for widths in FireDesign().widths()]
    [128, 128, 256, 256, 384, 384, 512, 512]
    """

    base: int = 128
    increment: int = 128
    frequency: int = 2
    squeeze_ratio: float = 0.125
    share_3x3: float = 0.5
    modules: int = 8
    pools: tuple[int, ...] = (1, 4, 8)
    conv1_filters: int = 96
    conv1_kernel: int = 7
    classes: int = 1000

    def __post_init__(self) -> None:
        for name, least in (
            *((name, 1) for name in ("base", "frequency", "modules", "conv1_filters")),
            *(("conv1_kernel", 1), ("increment", 0), ("classes", 2)),
        ):
            if getattr(self, name) < least:
                raise _wrong(name, getattr(self, name), f"a whole number from {least} on")
        if not 0 < self.squeeze_ratio <= 4:
            raise _wrong("squeeze_ratio", self.squeeze_ratio, "a number above 0, up to 4")
        if not 0 <= self.share_3x3 <= 1:
            raise _wrong("share_3x3", self.share_3x3, "a number from 0 to 1")
        outside = [place for place in self.pools if not 1 <= place <= self.modules + 1]
        if outside or len(set(self.pools)) < len(self.pools):
            found = "+".join(map(str, self.pools))
            raise _wrong("pools", found, f"different layers from 1 (conv1) to {self.modules + 1}")
        if self.modules > 1000:
            raise _wrong("modules", self.modules, "at most 1000")
        if self.params() > _MOST_PARAMS:
            raise InputError(
                f"found a FireNet of {self.params():,} parameters, expected at most"
                f" {_MOST_PARAMS:,}; lower modules, base or increment"
            )

    def params(self) -> int:
        """How many parameters the network has, biases among them.

        >>> FireDesign().params(), FireDesign(squeeze_ratio=0.75).params()
        (1248424, 4841704)
        """
        total, channels = (3 * self.conv1_kernel**2 + 1) * self.conv1_filters, self.conv1_filters
        for widths in self.widths():
            total += (channels + 1) * widths.squeeze
            total += (widths.squeeze + 1) * widths.expand_1x1
            total += (9 * widths.squeeze + 1) * widths.expand_3x3
            channels = widths.expand
        return total + (channels + 1) * self.classes

    def widths(self) -> tuple[FireWidths, ...]:
        """The filters of each fire module, the first first."""
        result = []
        for i in range(self.modules):
            expand = self.base + self.increment * (i // self.frequency)
            of_3x3 = round(self.share_3x3 * expand)
            squeeze = max(1, round(self.squeeze_ratio * expand))
            result.append(FireWidths(squeeze, expand - of_3x3, of_3x3))
        return tuple(result)

    def model(self) -> str:
        """The MODEL argument that names this design.

        >>> FireDesign(conv1_filters=64, conv1_kernel=3, pools=(1, 3, 5)).model()
        'zoo:firenet:pools=1+3+5,conv1_filters=64,conv1_kernel=3'
        """
        changed = [
            f"{field.name}={_written(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ":".join(["zoo", FIRENET, *([",".join(changed)] if changed else [])])


def read_design(text: str) -> FireDesign:
    """The design that ``KEY=VALUE,...`` describes; what is left out is as in SqueezeNet 1.0.

    Raises InputError for a key that is not known and for a value that is no number for it.

    >>> read_design("squeeze_ratio=0.5,pools=1+3").pools
    (1, 3)
    """
    values: dict[str, Any] = {}
    known = [field.name for field in fields(FireDesign)]
    for pair in text.split(",") if text else ():
        name, equals, value = pair.partition("=")
        if name not in known or not equals or name in values:
            raise InputError(
                f"found {pair!r} in a FireNet's description, expected KEY=VALUE with commas"
                f" between, each key once, of {', '.join(known)}"
            )
        values[name] = read_metaparameter(name, value)
    return FireDesign(**values)


def read_metaparameter(name: str, text: str) -> Any:
    """The value of one field of FireDesign, as it is written in a description or an option.

    >>> read_metaparameter("pools", "1+3+5"), read_metaparameter("share_3x3", "1")
    ((1, 3, 5), 1.0)
    """
    default = getattr(FireDesign, name)
    try:
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.split("+")) if text else ()
        return type(default)(text)
    except ValueError:
        kind = {tuple: "whole numbers with + between", float: "a number"}
        raise _wrong(name, text, kind.get(type(default), "a whole number")) from None


def _written(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


def _wrong(name: str, found: Any, expected: str) -> InputError:
    return InputError(f"found {name}={found} for a FireNet, expected {expected}")
