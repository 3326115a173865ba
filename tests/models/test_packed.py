"""Packed files: what is read is what was written, at the cost of its entropy, or it is refused."""

import lzma
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from distillnet.errors import InputError
from distillnet.files.packed import MAGIC, is_packed
from distillnet.models.packed import Packed, Plain, Shared, read_packed, write_packed
from distillnet.models.packed.levels import MOST, row_classes
from distillnet.models.packed.rans import Decoder, Encoder, Stream, tables_of
from distillnet.models.weights import read_weights

_NONE = np.zeros(0, np.float32)


def _shared(levels: np.ndarray, seed: int = 0) -> Shared:
    draw = np.random.default_rng(seed)
    rows, columns = (draw.integers(-20, 5, n).astype(np.int8) for n in levels.shape)
    return Shared(levels.shape, levels, rows, columns, _NONE)


def _laplace(shape: tuple[int, int], width: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).laplace(0, width, shape).round().astype(np.int32)


MATRICES = {
    "dense": _laplace((40, 30), 3.0),
    "sparse": _laplace((64, 50), 0.2),
    "all zero": np.zeros((5, 7), np.int32),
    "one number": np.array([[-3]], np.int32),
    "large": _laplace((9, 11), 3000.0).clip(-MOST, MOST),
    "the largest": np.array([[MOST, -MOST, 0], [16, -16, 15]], np.int32),
    "one column": _laplace((300, 1), 2.0),
    "rows unlike": (_laplace((30, 40), 1.0) * 4 ** (np.arange(30)[:, None] % 4)).astype(np.int32),
}


@pytest.mark.parametrize("levels", MATRICES.values(), ids=MATRICES)
def test_levels_come_back_as_they_were(levels: np.ndarray, tmp_path: Path) -> None:
    whole = _shared(levels)
    path = tmp_path / "a.dnp"
    write_packed(Packed("weights", {"w": whole}, {}, {"n": 1.5}), path)
    read = read_packed(path)
    # In float64, each factor by itself: another way to the same number, to rounding.
    step = 2.0 ** (whole.rows[:, None] / 2.0) * 2.0 ** (whole.columns / 2.0)
    np.testing.assert_allclose(read.tensors["w"].numpy(), levels * step, rtol=1e-6)
    assert torch.equal(read.tensors["w"], whole.value)
    assert read.about == {"n": 1.5}


def test_a_file_holds_all_that_was_packed(tmp_path: Path) -> None:
    tensors = {
        "z": _shared(_laplace((6, 12), 1.0)),
        "half": Plain(torch.tensor([0.5, -2.0]).half()),
        "whole": Plain(torch.tensor([[0.1]])),
        "counter": Plain(torch.tensor(7)),
        "mask": Plain(torch.tensor([True, False])),
        "empty": Plain(torch.zeros(0, 3)),
        "book": Shared((2, 1, 2), np.array([[-1, 0], [1, 0]]), *(np.zeros(2, np.int8),) * 2,
                       np.array([-0.3, 0.0, 0.7], np.float32)),
    }  # fmt: skip
    records = {"a.json": b"{}", "b": b""}
    write_packed(Packed("run", tensors, records, {}), tmp_path / "a")
    read = read_packed(tmp_path / "a")
    assert list(read.tensors) == list(tensors)
    assert dict(read.records) == records
    assert read.tensors["half"].tolist() == [0.5, -2.0]
    assert read.tensors["counter"].tolist() == 7
    assert read.tensors["mask"].tolist() == [True, False]
    assert read.tensors["empty"].shape == (0, 3)
    assert torch.equal(read.tensors["whole"], torch.tensor([[0.1]]))
    assert torch.equal(read.tensors["book"], torch.tensor([[[-0.3, 0.0]], [[0.7, 0.0]]]))


def test_a_file_is_little_larger_than_its_entropy(tmp_path: Path) -> None:
    levels = _laplace((400, 500), 1.0)
    write_packed(Packed("weights", {"w": _shared(levels)}, {}, {}), tmp_path / "a")
    _, counts = np.unique(levels, return_counts=True)
    share = counts / counts.sum()
    entropy = -(share * np.log2(share)).sum() * levels.size / 8
    steps = 400 + 500  # of noise, at most a byte each
    assert entropy * 0.995 < (tmp_path / "a").stat().st_size < entropy * 1.01 + steps + 1000


def test_rows_and_columns_that_are_unlike_help(tmp_path: Path) -> None:
    """Contexts are worth their while: a shuffled matrix of the same numbers takes more."""
    width = 2.0 ** np.linspace(-3, 3, 200)
    levels = (np.random.default_rng(0).laplace(size=(300, 200)) * width).round().astype(np.int32)
    shuffled = np.random.default_rng(1).permutation(levels.ravel()).reshape(levels.shape)
    sizes = []
    for i, matrix in enumerate((levels, shuffled)):
        write_packed(Packed("weights", {"w": _shared(matrix)}, {}, {}), tmp_path / str(i))
        sizes.append((tmp_path / str(i)).stat().st_size)
    assert sizes[0] < 0.9 * sizes[1]


@pytest.mark.parametrize("lanes", [1, 3, 64])
@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_symbols_come_back_in_their_order(lanes: int, n: int) -> None:
    draw = np.random.default_rng(n)
    contexts = draw.integers(0, 3, n)
    symbols = draw.geometric(0.4, n).clip(max=9) * contexts % 9
    counts = np.zeros((3, 10), np.int64)
    np.add.at(counts, (contexts, symbols), 1)
    tables = tables_of(counts)
    encoder = Encoder(tables, lanes)
    encoder.put(symbols, contexts)
    stream = encoder.finish()
    decoder = Decoder(tables, stream)
    assert decoder.take(contexts).tolist() == symbols.tolist()
    decoder.close()
    if len(stream.words):
        with pytest.raises(ValueError, match="words end"):
            Decoder(tables, Stream(stream.states, stream.words[:-1])).take(contexts)


def test_row_classes_follow_the_mean() -> None:
    levels = np.array([[0, 0], [1, -1], [2, 2], [4, -4]])
    assert row_classes(levels).tolist() == [0, 10, 12, 14]


# --- files that are not what they should be


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "a.dnp"
    tensors = {"w": _shared(_laplace((20, 30), 2.0)), "b": Plain(torch.ones(20))}
    write_packed(Packed("weights", tensors, {"r": b"12345"}, {}), path)
    return path


def _with_head(path: Path, old: bytes, new: bytes) -> bytes:
    """The file with another text in its head."""
    data = path.read_bytes()
    at = len(MAGIC) + 4
    size = int.from_bytes(data[len(MAGIC) : at], "little")
    body = lzma.decompress(data[at : at + size])
    assert old in body
    squeezed = lzma.compress(body.replace(old, new, 1))
    return MAGIC + len(squeezed).to_bytes(4, "little") + squeezed + data[at + size :]


HOSTILE = {
    "weights out of all proportion": (b'"shape":[20,30]', b'"shape":[20,300000000]'),
    "no weights, much of it": (b'"shape":[20]', b'"shape":[2147483648,2147483648,0]'),
    "rows that do not fit": (b'"rows":20', b'"rows":7'),
    "no rows": (b'"rows":20', b'"rows":0'),
    "more records than there are": (b'"bytes":5', b'"bytes":500000000'),
    "fewer": (b'"bytes":5', b'"bytes":4'),
    "another kind": (b'"kind":"weights"', b'"kind":"pickle"'),
    "another type": (b'"dtype":"float32"', b'"dtype":"object"'),
    "another format": (b'"format":1', b'"format":9'),
    "too many lanes": (b'"lanes":1', b'"lanes":100000'),
    "more lanes": (b'"lanes":1', b'"lanes":2'),
    "two of a name": (b'"name":"b"', b'"name":"w"'),
    "a codebook that is not there": (b'"codebook":0', b'"codebook":65536'),
    "bits that are not there": (b'"extra":', b'"extra":9'),
    "a key that nobody knows": (b'"kind"', b'"x":1,"kind"'),
}


@pytest.mark.parametrize(("old", "new"), HOSTILE.values(), ids=HOSTILE)
def test_a_head_that_lies_is_refused(old: bytes, new: bytes, written: Path) -> None:
    written.write_bytes(_with_head(written, old, new))
    with pytest.raises(InputError, match="not a whole packed file"):
        read_packed(written)


def test_a_head_that_unpacks_to_more_than_the_file_is_worth_is_refused(written: Path) -> None:
    squeezed = lzma.compress(bytes(2**27))
    written.write_bytes(MAGIC + len(squeezed).to_bytes(4, "little") + squeezed)
    with pytest.raises(InputError, match="larger than the file is worth"):
        read_packed(written)


def test_any_byte_that_changes_is_noticed(written: Path) -> None:
    """By one check or another: nothing but InputError, and never other weights."""
    data, draw = written.read_bytes(), random.Random(0)
    right = read_packed(written).tensors
    for _ in range(300):
        bad = bytearray(data)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        written.write_bytes(bad[: draw.randrange(len(bad))] if draw.random() < 0.2 else bad)
        try:
            found = read_packed(written).tensors
        except InputError:
            continue
        assert all(torch.equal(found[name], right[name]) for name in right)


def test_packed_weights_are_weights(written: Path) -> None:
    assert is_packed(written)
    assert not is_packed(written.parent)
    assert {name: tuple(t.shape) for name, t in read_weights(written).items()} == {
        "w": (20, 30), "b": (20,),
    }  # fmt: skip
    write_packed(Packed("run", {}, {}, {}), written)
    with pytest.raises(InputError, match="packed run"):
        read_weights(written)


def test_numbers_that_say_nothing_are_not_packed(tmp_path: Path) -> None:
    nothing = Shared((3000, 1000), np.zeros((3000, 1000), np.int8), np.zeros(3000, np.int8),
                     np.zeros(1000, np.int8), _NONE)  # fmt: skip
    with pytest.raises(ValueError, match="so few of its numbers"):
        write_packed(Packed("weights", {"w": nothing}, {}, {}), tmp_path / "a")
    assert not (tmp_path / "a").exists()
