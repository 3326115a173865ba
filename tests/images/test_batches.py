"""Batches: dense, in order, with few unreadable images, and no process left behind."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from distillnet.errors import ImageError
from distillnet.images import ImageSet, load_all, load_batches, split
from distillnet.images.preprocessing import preprocess
from noisy_pictures import TINY, noise_set, picture, save


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 8, 20, 100])
def test_batches_are_dense_and_in_order(tmp_path, workers, batch_size):
    # 1 of 110 is unreadable, which may be. It is the last of a full batch of 8 or 20.
    images = noise_set(tmp_path / "i", 110, bad=[39])
    done = []
    stream = load_batches(
        images, TINY, batch_size=batch_size, workers=workers, on_image=done.append
    )
    for _ in range(2):  # it can be iterated again
        batches = list(stream)
        refs = [ref for batch in batches for ref in batch.refs]
        assert refs == [ref for i, ref in enumerate(images.refs) if i != 39]
        sizes = [len(batch.refs) for batch in batches]
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert 0 < sizes[-1] <= batch_size
        for batch in batches:
            assert batch.x_nchw.dtype == torch.float32
            assert batch.labels_n.dtype == torch.int64
            assert batch.x_nchw.shape == (len(batch.refs), 3, 4, 5)
            assert batch.labels_n.tolist() == [ref.label for ref in batch.refs]
            expected = [preprocess(picture(int(ref.path.stem)), TINY) for ref in batch.refs]
            assert torch.equal(batch.x_nchw, torch.stack(expected))
        assert len(stream.unreadable) == 1
        assert stream.unreadable[0].startswith(f"{images.refs[39].path}: not an image")
        assert done == sorted(done)
        assert done[-1] == 110
        done.clear()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("n", "bad", "percent", "stops"),
    [
        (40, [0, 1], 5.0, False),
        (40, [0, 1, 2], 5.0, True),
        (39, [0, 1], 5.0, True),
        (3, [1], 5.0, False),  # one may always be unreadable
        (3, [1, 2], 5.0, True),
        (3, [1], 0.0, True),  # but for those who want none
        (40, [39], 0.0, True),
        (40, list(range(20)), 50.0, False),
        (40, list(range(21)), 50.0, True),
        (1, [0], 100.0, True),  # and never all
    ],
)
def test_a_share_may_be_unreadable(tmp_path, n, bad, percent, stops, workers):
    images = noise_set(tmp_path / "i", n, bad)
    allowed = {"workers": workers, "max_unreadable_percent": percent}
    if not stops:
        loaded = load_all(images, TINY, **allowed)
        assert (len(loaded.refs), len(loaded.unreadable)) == (n - len(bad), len(bad))
        assert loaded.x_nchw.shape == (n - len(bad), 3, 4, 5)
        return
    read: list[int] = []
    with pytest.raises(ImageError, match=f"{len(bad)} of {n} images cannot be read") as caught:
        load_all(images, TINY, on_image=read.append, **allowed)
    assert f"at most {percent:g} %" in str(caught.value)
    assert str(images.refs[bad[0]].path) in str(caught.value)
    assert max(read, default=0) <= bad[-1]  # it stopped as soon as it was certain


def test_load_all_equals_the_batches(tmp_path):
    images = noise_set(tmp_path / "i", 30)
    loaded = load_all(images, TINY)
    batches = list(load_batches(images, TINY, batch_size=9))
    assert torch.equal(loaded.x_nchw, torch.cat([batch.x_nchw for batch in batches]))
    assert torch.equal(loaded.labels_n, torch.cat([batch.labels_n for batch in batches]))
    assert loaded.refs == images.refs


def test_an_empty_set_has_no_batches():
    assert list(load_batches(ImageSet(()), TINY)) == []
    assert load_all(ImageSet(()), TINY, workers=2).x_nchw.shape == (0, 3, 4, 5)


def test_stopping_early_leaves_no_process(tmp_path):
    import multiprocessing

    images = noise_set(tmp_path / "i", 100)
    stream = iter(load_batches(images, TINY, batch_size=4, workers=2))
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


def test_the_callers_random_state_is_untouched(tmp_path):
    images = noise_set(tmp_path / "i", 10)
    states = torch.get_rng_state(), random.getstate()
    load_all(images, TINY, workers=1)
    split(images, 0.5, 0)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_workers_need_not_be_forked(tmp_path):
    import pickle

    from distillnet.images.batches import _Chunks

    chunks = _Chunks(noise_set(tmp_path / "i", 3), TINY)
    assert np.array_equal(pickle.loads(pickle.dumps(chunks))[0].x_nchw, chunks[0].x_nchw)


INTERRUPTED = """
import sys
from pathlib import Path
from distillnet.images import ImageRef, ImageSet, load_batches
from distillnet.images.preprocessing import Preprocessing
if __name__ == "__main__":
    images = ImageSet((ImageRef(Path(sys.argv[1]), 0),) * 1_000_000)
    how = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    try:
        for number, batch in enumerate(load_batches(images, how, workers=2)):
            if number == 2:
                print("reading", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process group")
@pytest.mark.usefixtures("signals_are_heard")
def test_interrupt_with_workers(tmp_path):
    path = save(tmp_path / "x.png")
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the whole group, and only it
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert (process.returncode, errors) == (130, "")
