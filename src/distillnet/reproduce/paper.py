"""What the tables of Distill-Net say (M. Motamedi and others; docs/results.md has the source)."""

from dataclasses import dataclass

__all__ = [
    "CIFAR_REMOVED",
    "EMERGENCY",
    "IDEAL_TIMES",
    "MNIST_REMOVED",
    "MODULES",
    "SUBSETS",
    "TABLES",
    "TIMES",
    "Inception",
]

TABLES = ("table1", "table2", "table3", "table4", "readings")
MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")  # of GoogLeNet


@dataclass(frozen=True)
class Inception:
    """A row of table 1 or 2.

    Attributes:
        modules: compression ratio (Eq. 16) of each module, the mean over its layers.
        skipped_millions: of the 1,107 million MACs that the paper counts in the modules.
        speedup: their MACs, before over after.
    """

    modules: tuple[float, ...]
    skipped_millions: int
    speedup: float
    loss_pp: float


EMERGENCY = Inception((1.05, 1.65, 1.71, 1.68, 2.05, 2.86, 3.49, 4.26, 4.71), 539, 1.95, 0.0)
# Random classes: how many -> what the paper found.
SUBSETS = {
    5: Inception((1.03, 1.46, 2.09, 1.34, 1.86, 2.83, 3.25, 2.24, 4.35), 485, 1.8, 0.13),
    10: Inception((1.02, 1.43, 1.53, 1.30, 1.73, 2.28, 1.90, 1.47, 2.02), 382, 1.5, 0.20),
    15: Inception((1.01, 1.43, 1.44, 1.13, 1.50, 1.80, 1.46, 1.38, 1.98), 315, 1.4, 0.00),
}
# Table 3: parameters removed, in percent, where 1, 2, ... of ten classes are.
MNIST_REMOVED = (10, 20, 30, 40, 49, 49, 57, 71)
CIFAR_REMOVED = (10, 20, 30, 40, 50, 60, 68, 76)
# Table 4: TF-MNIST's time on a phone, before over after, and what the paper calls ideal.
TIMES = (1.07, 1.18, 1.40, 1.61, 1.90, 2.45, 3.09, 4.26)
IDEAL_TIMES = (1.11, 1.25, 1.43, 1.67, 2.00, 2.50, 3.33, 5.00)
