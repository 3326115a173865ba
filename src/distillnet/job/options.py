"""What a distillation is asked for; checked without importing what does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distillnet.cut.times import TimeTable, built_in_times, fitting_multiple
from distillnet.errors import InputError
from distillnet.images.left_out import MAX_UNREADABLE_PERCENT
from distillnet.search.budget import Budget
from distillnet.search.readings import reading_of

if TYPE_CHECKING:
    from distillnet.images import Album, BatchStream, ImageSet
    from distillnet.images.preprocessing import Preprocessing

__all__ = ["AIMS", "METHODS", "PARTIAL", "SCORE_NAMES", "SURGEON", "Options",
           "allowed_unreadable"]  # fmt: skip

METHODS = ("best", "paper")
AIMS = ("time", "macs")
PARTIAL = ("neurons", "blocks")
SURGEON = "surgeon"  # not a score of neurons, but an order in which channels go
SCORE_NAMES = ("heat", "variance", "sensitivity", "l1", "random")  # of search.SCORES


@dataclass(frozen=True)
class Options:
    """How to distill; all that changes the result beside the model and the images.

    ``score`` None is the method's own: the surgeon for best, heat for paper. ``optimise`` tells
    what is made small, and ``times`` how long layers take; the built-in table where there is none.
    From it come, unless they are given, ``element_cost``, how many MACs take as long as writing one
    number of a layer's output, and the multiple that widths are rounded to. ``labels`` fits the
    last layer to the images' labels (``refit.head``), ``views`` looks at few images from elsewhere,
    too (``search.views``), ``tune`` trains what is found for a while
    (``job.tuning``). ``seen`` tells whether the network was trained on the images; None finds out
    (``search.known.knows``). More than ``max_unreadable_percent`` of a set of images stops the job
    when they cannot be read.
    """

    budget: Budget = field(default_factory=Budget)
    method: str = "best"
    score: str | None = None
    keep_input_size: bool = False
    split: bool = True
    optimise: str = "time"
    times: TimeTable | None = None
    round_to: int = 0  # until it is told by ``times``
    param_weight: float = 0.1
    element_cost: float = -1.0  # until it is told by ``times``
    complete_only: bool = False
    partial: str = "neurons"  # or blocks: as many channels at once as the C engine computes
    reading: str = "price"  # of search.READINGS: how paper finds its thresholds
    labels: bool = True
    views: bool = True
    tune: bool = False
    seen: bool | None = None
    seed: int = 0
    batch_size: int = 32
    workers: int = 0
    device: str = "auto"
    max_unreadable_percent: float = MAX_UNREADABLE_PERCENT

    def __post_init__(self) -> None:
        if self.optimise not in AIMS:
            raise InputError(f"found the aim {self.optimise!r}; expected {' or '.join(AIMS)}")
        self._ask_times()
        if self.method not in METHODS:
            raise InputError(f"found the method {self.method!r}; expected {' or '.join(METHODS)}")
        allowed = (*SCORE_NAMES, *((SURGEON,) if self.method == "best" else ()))
        if self.score is not None and self.score not in allowed:
            raise InputError(
                f"found the score {self.score!r}; method {self.method} takes {', '.join(allowed)}"
            )
        if self.tune and self.method != "best":
            raise InputError(f"found --tune with the method {self.method}; only best takes it")
        if self.partial not in PARTIAL:
            raise InputError(f"found {self.partial!r} to remove; expected {' or '.join(PARTIAL)}")
        reading_of(self.reading)
        if self.reading != "price" and self.method != "paper":
            raise InputError(f"found the reading {self.reading!r}; only the method paper has any")
        if self.round_to < 1:
            raise InputError(f"found --round-to {self.round_to}; expected 1 or more")
        if not 0 <= self.max_unreadable_percent <= 100:
            raise InputError(
                f"found --max-unreadable {self.max_unreadable_percent:g}; expected 0 to 100 percent"
            )
        if not 0 <= self.param_weight < float("inf"):
            raise InputError(f"found --param-weight {self.param_weight}; expected 0 or more")
        if not 0 <= self.element_cost < float("inf"):
            raise InputError(f"found an element cost of {self.element_cost}; expected 0 or more")

    def _ask_times(self) -> None:
        """Fill in what was left to the table of times."""
        if self.optimise == "macs":
            multiple, element = 1, 0.0
        else:
            times = self.times or built_in_times()
            object.__setattr__(self, "times", times)
            multiple, element = times.multiple, times.element
        if self.round_to == 0:
            object.__setattr__(self, "round_to", multiple)
        if self.element_cost == -1:
            object.__setattr__(self, "element_cost", element)

    def batches(
        self,
        images: "ImageSet",
        how: "Preprocessing",
        on_image: Callable[[int], None] | None = None,
        album: "Album | None" = None,
    ) -> "BatchStream":
        """Images in batches, read as these options say."""
        from distillnet.images import load_batches

        return load_batches(
            images,
            how,
            batch_size=self.batch_size,
            workers=self.workers,
            on_image=on_image,
            max_unreadable_percent=self.max_unreadable_percent,
            album=album,
        )

    def multiple_for(self, widths: Sequence[int]) -> int:
        """What channels are rounded to in a network of layers of such widths.

        The table's multiple only as far as layers hold several of it; any other as it is.
        """
        if self.times is None or self.round_to != self.times.multiple:
            return self.round_to
        return fitting_multiple(self.round_to, widths)

    @property
    def for_paper(self) -> dict[str, Any]:
        """What of a map ``search_paper`` removes and how it finds out, as it takes it."""
        return {
            "complete_only_plan": self.complete_only,
            "in_blocks": self.partial == "blocks",
            "reading": reading_of(self.reading),
        }

    @property
    def score_name(self) -> str:
        """The score that is used."""
        return self.score or (SURGEON if self.method == "best" else "heat")


def allowed_unreadable(noted: Mapping[str, Any]) -> float:
    """How many of a run's images, in percent, may be unreadable, by the options it notes."""
    return float(noted.get("max_unreadable_percent", MAX_UNREADABLE_PERCENT))
