"""Parts of a set: disjoint, by class, and the same again for the same seed."""

from pathlib import Path

import pytest

from distillnet.errors import InputError
from distillnet.images import ImageRef, ImageSet, limit, load_batches, split
from noisy_pictures import TINY


def set_of(counts):
    return ImageSet(
        tuple(
            ImageRef(Path(f"{label}/{i:04}"), label)
            for label, n in counts.items()
            for i in range(n)
        )
    )


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.8, 0.99])
def test_split(fraction):
    images = set_of({7: 2, 3: 3, 5: 50, 1: 1})
    first, second = split(images, fraction, seed=1)
    assert not set(first.refs) & set(second.refs)
    assert set(first.refs) | set(second.refs) == set(images.refs)
    for label, n in images.counts().items():
        wanted = round(fraction * n)
        assert first.counts().get(label, 0) == (min(max(wanted, 1), n - 1) if n > 1 else wanted)
    for part in (first, second):
        assert list(part.refs) == [ref for ref in images.refs if ref in set(part.refs)]
    assert split(images, fraction, seed=1) == (first, second)


def test_split_depends_on_seed_and_not_on_other_classes():
    both, alone = set_of({0: 40, 1: 40}), set_of({1: 40})
    assert split(both, 0.5, seed=0) != split(both, 0.5, seed=1)
    assert split(both, 0.5, seed=0)[0].select([1]) == split(alone, 0.5, seed=0)[0]
    positions = [{ref.path.name for ref in split(both, 0.5, 0)[0].select([c]).refs} for c in (0, 1)]
    assert positions[0] != positions[1]


def test_limit():
    images = set_of({0: 10, 1: 3})
    few, more = limit(images, 2, seed=0), limit(images, 5, seed=0)
    assert (few.counts(), more.counts()) == ({0: 2, 1: 2}, {0: 5, 1: 3})
    assert set(few.refs) < set(more.refs)
    assert limit(images, 10, seed=0) == images
    assert limit(images, 2, seed=0) == few != limit(images, 2, seed=1)


def test_bad_arguments():
    images = set_of({0: 2})
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="fraction"):
            split(images, fraction, 0)
    with pytest.raises(InputError, match="0 images per class"):
        limit(images, 0, 0)
    with pytest.raises(InputError, match="batches of 0 images with -1 workers"):
        load_batches(images, TINY, batch_size=0, workers=-1)
    with pytest.raises(InputError, match="--max-unreadable 101"):
        load_batches(images, TINY, max_unreadable_percent=101)
