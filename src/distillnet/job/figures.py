"""The figures of a result as a line of text, as a table and as a picture, for notebooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillnet.errors import InputError

if TYPE_CHECKING:  # both are optional, and take a second to import
    import pandas
    from matplotlib.axes import Axes

__all__ = ["Figures", "optional"]

_COLOURS = {"original": "#9aa5b1", "distilled": "#2066a8"}


@dataclass(frozen=True)
class Figures:
    """What a person wants to know first; accuracies are shares in 0..1, by class and of all."""

    title: str
    mac_ratio: float
    param_ratio: float
    loss_ci95_pp: tuple[float, float]
    n_images: int
    accuracy: tuple[float, float]  # of the original and of the distilled network
    per_class: Mapping[str, tuple[float, float]]
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        before, after = (100 * share for share in self.accuracy)
        low, high = self.loss_ci95_pp
        noted = f"; {len(self.warnings)} warnings" if len(self.warnings) > 1 else ""
        noted = "; 1 warning" if len(self.warnings) == 1 else noted
        return (
            f"{self.title}: {self.mac_ratio:.2f}x fewer MACs, {self.param_ratio:.2f}x fewer "
            f"parameters, {before:.1f} -> {after:.1f} % right (loss {before - after:+.1f} points, "
            f"95 % interval {low:+.1f} to {high:+.1f}, {self.n_images} images){noted}"
        )

    def frame(self) -> "pandas.DataFrame":
        """A row for each class and one for all of them, accuracies in percent."""
        pandas = optional("pandas")
        rows = {**self.per_class, "all": self.accuracy}
        table = {name: [100 * before, 100 * after] for name, (before, after) in rows.items()}
        columns = ["original", "distilled"]
        made = pandas.DataFrame.from_dict(table, orient="index", columns=columns)
        made["loss_pp"] = made["original"] - made["distilled"]
        made.index.name = "class"
        return made

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Bars of each class's accuracy before and after, on given axes or on new ones."""
        pyplot = optional("matplotlib.pyplot")
        names = list(self.per_class)
        if axes is None:
            height = 1.2 + 0.5 * len(names)
            axes = pyplot.subplots(figsize=(7, height), layout="constrained")[1]
        for column, (network, colour) in enumerate(_COLOURS.items()):
            axes.barh(
                [row + 0.4 * column - 0.2 for row in range(len(names))],
                [100 * shares[column] for shares in self.per_class.values()],
                height=0.36,
                color=colour,
                label=network,
            )
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(f"% right among the classes, {self.n_images} images")
        axes.set_title(f"{self.title}: {self.mac_ratio:.2f}x fewer MACs", fontsize=10)
        axes.legend(frameon=False, loc="lower left")
        return axes


def optional(module: str) -> Any:
    """A library that only pictures and tables need; InputError where it is not installed."""
    import importlib

    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"{package} is not installed, and this needs it; run pip install {package}"
        ) from None
