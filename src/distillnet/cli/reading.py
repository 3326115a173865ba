"""The options of commands that stream images through a run: how they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillnet.cli.options import BatchOpt, PixelsOpt, UnreadableOpt, WorkersOpt
from distillnet.images.left_out import MAX_PIXELS, MAX_UNREADABLE_PERCENT
from distillnet.job.options import Options

if TYPE_CHECKING:
    from distillnet.images import BatchStream, ImageSet
    from distillnet.images.preprocessing import Preprocessing

__all__ = ["ReadingOptions"]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How images are read."""

    batch_size: BatchOpt = 32
    workers: WorkersOpt = 0
    max_unreadable: UnreadableOpt = MAX_UNREADABLE_PERCENT
    max_pixels: PixelsOpt = MAX_PIXELS

    def batches(
        self,
        images: "ImageSet",
        how: "Preprocessing",
        on_progress: Callable[[str, int, int], None],
        stage: str,
    ) -> "BatchStream":
        """A stream of images that tells how far it is."""
        options = Options(
            batch_size=self.batch_size,
            workers=self.workers,
            max_unreadable_percent=self.max_unreadable,
        )
        return options.batches(images, how, lambda n: on_progress(stage, n, len(images)))
