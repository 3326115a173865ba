"""What a search may spend, or has to reach."""

import math
from dataclasses import dataclass

from distillnet.errors import InputError

__all__ = ["Budget", "in_points"]


def in_points(pp: float) -> str:
    """So many percentage points, in words.

    >>> in_points(1.0), in_points(0.5)
    ('1 point', '0.5 points')
    """
    return f"{pp:g} point" + ("" if pp == 1 else "s")


@dataclass(frozen=True)
class Budget:
    """A loss to respect, or else a ratio to reach.

    Attributes:
        max_loss_pp: closed-set accuracy that may be lost, in percentage points.
        max_class_loss_pp: the same for the class that loses most; None is three times max_loss_pp.
        target_macs: original over distilled MACs to reach instead; None respects the loss.
        target_params: the same for parameters.
        confidence: how sure the search has to be that the loss is respected on unseen images.
    """

    max_loss_pp: float = 1.0
    target_macs: float | None = None
    target_params: float | None = None
    max_class_loss_pp: float | None = None
    confidence: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.max_loss_pp <= 100:
            raise InputError(
                f"found a loss of {self.max_loss_pp} percentage points; expected 0 to 100, "
                "correct --max-loss"
            )
        if self.max_class_loss_pp is not None and not 0 <= self.max_class_loss_pp <= 100:
            raise InputError(
                f"found a loss of {self.max_class_loss_pp} percentage points for a class; expected "
                "0 to 100, correct --max-class-loss"
            )
        if not 0.5 <= self.confidence < 1:
            raise InputError(
                f"found a confidence of {self.confidence}; expected 0.5, as likely as not, up to "
                "less than 1, correct --confidence"
            )
        for option, value in (
            ("--target-macs", self.target_macs),
            ("--target-params", self.target_params),
        ):
            if value is not None and not 1 <= value < math.inf:
                raise InputError(f"found the ratio {value}; expected 1 or more, correct {option}")
        if self.target_macs is not None and self.target_params is not None:
            raise InputError("found --target-macs and --target-params; give one of them")

    @property
    def has_target(self) -> bool:
        """Whether there is a ratio to reach, and no loss to respect."""
        return self.target_macs is not None or self.target_params is not None

    @property
    def class_limit_pp(self) -> float:
        """What the worst class may lose, in percentage points."""
        return 3 * self.max_loss_pp if self.max_class_loss_pp is None else self.max_class_loss_pp
