"""What the tables of Distill-Net say (M. Motamedi and others; docs/results.md has the source)."""

__all__ = ["CIFAR_REMOVED", "MNIST_REMOVED", "SUBSETS", "TABLES", "TIMES"]

TABLES = ("table2", "table3", "table4")
# Table 2: random classes -> MACs of the inception modules, before over after, and points lost.
SUBSETS = {5: (1.8, 0.13), 10: (1.5, 0.20), 15: (1.4, 0.00)}
# Table 3: parameters removed, in percent, where 1, 2, ... of ten classes are.
MNIST_REMOVED = (10, 20, 30, 40, 49, 49, 57, 71)
CIFAR_REMOVED = (10, 20, 30, 40, 50, 60, 68, 76)
# Table 4: TF-MNIST's time on a phone, before over after.
TIMES = (1.07, 1.18, 1.40, 1.61, 1.90, 2.45, 3.09, 4.26)
