"""Images as batches of tensors, read by this process or by several.

Shapes: x_nchw is (images, channels, H, W) and labels_n is (images,).
"""

import math
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from distillnet.errors import ImageError, InputError
from distillnet.images.album import Album
from distillnet.images.files import ImageRef, OpenFiles, UnreadableImage, read_image
from distillnet.images.folders import ImageSet
from distillnet.images.left_out import MAX_UNREADABLE_PERCENT
from distillnet.images.preprocessing import Preprocessing, pixels, values

__all__ = ["Batch", "BatchStream", "Loaded", "load_all", "load_batches"]

# Images that a worker sends at once. Not a whole batch: progress shall move in small steps.
_CHUNK = 8


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images as a network takes them: x_nchw float32, labels_n int64, and which they are."""

    x_nchw: torch.Tensor
    labels_n: torch.Tensor
    refs: tuple[ImageRef, ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """All readable images of a set, and one message for each that was not readable."""

    x_nchw: torch.Tensor
    labels_n: torch.Tensor
    refs: tuple[ImageRef, ...]
    unreadable: tuple[str, ...]


@dataclass(eq=False)
class BatchStream:
    """Batches of ``images`` in their order, read anew at each iteration.

    Unreadable images are left out, and ``unreadable`` has a message for each that the latest
    iteration met so far. Once they are more than ``max_unreadable_percent`` of the set, and more
    than one, or all, iterating raises ImageError; at 0 percent the first one does.
    """

    images: ImageSet
    how: Preprocessing
    batch_size: int
    workers: int
    on_image: Callable[[int], None] | None
    max_unreadable_percent: float = MAX_UNREADABLE_PERCENT
    album: Album | None = None
    unreadable: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Batch]:
        self.unreadable = ()
        n_done = 0
        ready: list[tuple[np.ndarray, ImageRef]] = []
        refs = iter(self.images.refs)
        with closing(self._chunks()) as chunks:
            for chunk in chunks:
                rows = iter(chunk.x_nchw)
                for failure, ref in zip(chunk.failures, refs, strict=False):
                    if failure is None:
                        ready.append((next(rows), ref))
                    else:
                        self._add_unreadable(failure)
                n_done += len(chunk.failures)
                if self.on_image is not None:
                    self.on_image(n_done)
                while len(ready) >= self.batch_size:
                    yield _batch(ready[: self.batch_size])
                    del ready[: self.batch_size]
        if ready:
            yield _batch(ready)

    def _chunks(self) -> Generator["_Chunk"]:
        if self.workers:
            return _by_processes(self.images, self.how, self.batch_size, self.workers)
        return _by_threads(self.images, self.how, self.album)

    def _add_unreadable(self, message: str) -> None:
        self.unreadable += (message,)
        if len(self.unreadable) > (allowed := self._allowed()):
            n, first = len(self.unreadable), "; ".join(self.unreadable[:3])
            raise ImageError(
                f"{n} of {len(self.images)} images cannot be read, and at most "
                f"{self.max_unreadable_percent:g} % may be unreadable, {allowed} of these. Replace "
                f"or remove them, or allow more with --max-unreadable. The first: {first}"
            )

    def _allowed(self) -> int:
        """How many may be unreadable: a share of them, one at least, and never all."""
        if not self.max_unreadable_percent:
            return 0
        share = math.floor(self.max_unreadable_percent / 100 * len(self.images))
        return min(len(self.images) - 1, max(1, share))


def load_batches(
    images: ImageSet,
    how: Preprocessing,
    *,
    batch_size: int = 32,
    workers: int = 0,
    on_image: Callable[[int], None] | None = None,
    max_unreadable_percent: float = MAX_UNREADABLE_PERCENT,
    album: Album | None = None,
) -> BatchStream:
    """Batches of preprocessed images, read by ``workers`` processes, or by this one if 0.

    ``on_image`` is told from time to time how many images are done, unreadable ones included.
    ``album`` keeps large images for other input sizes, where this process reads them.
    """
    if not 0 <= max_unreadable_percent <= 100:
        raise InputError(
            f"found --max-unreadable {max_unreadable_percent:g}; expected 0 to 100 percent"
        )
    if batch_size < 1 or workers < 0:
        raise InputError(
            f"cannot read batches of {batch_size} images with {workers} workers; expected at "
            "least 1 image and 0 workers"
        )
    return BatchStream(images, how, batch_size, workers, on_image, max_unreadable_percent, album)


def load_all(
    images: ImageSet,
    how: Preprocessing,
    *,
    workers: int = 0,
    on_image: Callable[[int], None] | None = None,
    max_unreadable_percent: float = MAX_UNREADABLE_PERCENT,
    album: Album | None = None,
) -> Loaded:
    """All images of a set at once; needs 4 bytes of memory per value."""
    stream = load_batches(
        images,
        how,
        batch_size=_CHUNK,
        workers=workers,
        on_image=on_image,
        max_unreadable_percent=max_unreadable_percent,
        album=album,
    )
    channels = 1 if how.channels == "L" else 3
    # Filled in place: a list of batches joined at the end would need the memory twice.
    x_nchw = torch.empty((len(images), channels, *how.input_size))
    refs: list[ImageRef] = []
    for batch in stream:
        x_nchw[len(refs) : len(refs) + len(batch.refs)] = batch.x_nchw
        refs.extend(batch.refs)
    labels_n = torch.tensor([ref.label for ref in refs], dtype=torch.int64)
    return Loaded(x_nchw[: len(refs)], labels_n, tuple(refs), stream.unreadable)


def _batch(ready: list[tuple[np.ndarray, ImageRef]]) -> Batch:
    arrays, refs = zip(*ready, strict=True)
    labels_n = torch.tensor([ref.label for ref in refs], dtype=torch.int64)
    return Batch(torch.from_numpy(np.stack(arrays)), labels_n, refs)


@dataclass(frozen=True, eq=False)
class _Chunk:
    # NumPy, because it travels through a pipe. A tensor would go through shared memory, of which
    # a container often has too little, and through a handshake that Ctrl-C can break.
    x_nchw: np.ndarray  # the readable images
    failures: tuple[str | None, ...]  # for every image, why it is not readable


class _Chunks(Dataset[_Chunk]):
    """The chunks of a set by number; files are opened by the process that reads them.

    With ``threads`` the images of a chunk are read side by side: decoders leave Python meanwhile.
    """

    def __init__(
        self,
        images: ImageSet,
        how: Preprocessing,
        threads: Executor | None = None,
        album: Album | None = None,
    ) -> None:
        self.images = images
        self.how = how
        self.files = OpenFiles()
        self.threads = threads
        self.album = album

    def __len__(self) -> int:
        return math.ceil(len(self.images) / _CHUNK)

    def _read(self, ref: ImageRef) -> np.ndarray | str:
        """The image, or why it cannot be read."""

        def read() -> Image.Image:
            return read_image(ref, self.files, self.images.max_pixels)

        try:
            if self.album is None:
                made = pixels(read(), self.how)
            else:
                made = self.album.pixels(ref, self.how, read)
        except UnreadableImage as error:
            return str(error)
        return values(made, self.how)

    def __getitem__(self, number: int) -> _Chunk:
        refs = self.images.refs[number * _CHUNK : (number + 1) * _CHUNK]
        read = list((self.threads.map if self.threads else map)(self._read, refs))
        arrays = [one for one in read if not isinstance(one, str)]
        failures = tuple(one if isinstance(one, str) else None for one in read)
        return _Chunk(np.stack(arrays) if arrays else np.empty(0), failures)


def _by_threads(images: ImageSet, how: Preprocessing, album: Album | None) -> Generator[_Chunk]:
    n_threads = min(_CHUNK, torch.get_num_threads())
    with ThreadPoolExecutor(n_threads) as threads:
        chunks = _Chunks(images, how, threads if n_threads > 1 else None, album)
        with closing(chunks.files):
            yield from (chunks[number] for number in range(len(chunks)))


def _by_processes(
    images: ImageSet, how: Preprocessing, batch_size: int, workers: int
) -> Generator[_Chunk]:
    chunks = _Chunks(images, how)
    loader = DataLoader(
        chunks,
        batch_size=None,  # a chunk is what the data set's own __getitem__ gives
        num_workers=workers,
        # Enough to prepare one batch while the network works on another.
        prefetch_factor=max(2, math.ceil(batch_size / (_CHUNK * workers))),
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # not the global one, whose state belongs to the caller
    )
    with _interrupts_held():
        iterator = iter(loader)
    yield from iterator


# Ctrl-C reaches every process of the terminal, and only this one shall react: it ends its
# workers, which ignore the signal. One that arrives while they are being started has to wait:
# they do not ignore it yet, and a half-made iterator could not end them.


def _ignore_interrupts(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # never interrupted
        yield
        return
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if held:
        signal.raise_signal(signal.SIGINT)
