"""A device's table of times: what it makes of times, and what it refuses."""

import json
from pathlib import Path

import pytest

from distillnet.cut.times import (
    CHAINS,
    POOL,
    SIDE,
    TimeTable,
    built_in_times,
    known_times,
    machine,
    read_times,
    times_cache,
)
from distillnet.errors import InputError
from distillnet.job.options import Options


def _table(per_mac: float, per_pooled: float, block: int = 1, machine: str = "m") -> TimeTable:
    """Of a device whose layers take so long; those that leave a block unfilled take double."""

    def seconds(n_in: int, n_out: int, kernel: int) -> float:
        if kernel == POOL:
            return SIDE * SIDE * per_pooled * n_out
        slow = 2 if n_in % block or n_out % block else 1
        return SIDE * SIDE * per_mac * n_in * n_out * kernel**2 * slow

    times = {name: sum(seconds(*layer) for layer in chain) for name, chain in CHAINS.items()}
    return TimeTable(machine, "r", 1, times)


@pytest.mark.parametrize(("per_mac", "per_pooled"), [(1e-11, 0.0), (1e-11, 5e-10), (3e-10, 3e-10)])
def test_a_number_costs_what_a_pool_takes_for_it(per_mac: float, per_pooled: float) -> None:
    assert _table(per_mac, per_pooled).element == pytest.approx(per_pooled / per_mac, abs=1e-6)


@pytest.mark.parametrize("block", [4, 8, 16])
def test_widths_are_rounded_to_the_blocks_of_the_device(block: int) -> None:
    assert _table(1e-11, 0.0, block).multiple == block


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = _table(1e-11, 1e-9)
    (tmp_path / "times.json").write_text(table.dumps())
    assert read_times(tmp_path / "times.json") == table


def test_the_built_in_table_is_whole() -> None:
    assert 0 < built_in_times().element < 1000
    assert built_in_times().multiple in (8, 16)


def test_this_machines_table_counts_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert known_times() == built_in_times()
    times_cache().parent.mkdir()
    table = _table(1e-11, 1e-9, machine=machine())
    times_cache().write_text(table.dumps())
    assert known_times() == table
    monkeypatch.setattr("distillnet.cut.times.usable_cores", lambda: 77)
    assert known_times() == table, "also where this process may use other cores"
    times_cache().write_text(_table(1e-11, 1e-9, machine="another").dumps())
    assert known_times() == built_in_times()
    times_cache().write_text("[")
    assert known_times() == built_in_times()


_SOME = next(iter(CHAINS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.pop("seconds"), "does not hold what distillnet writes"),
        (lambda found: found.update(format=99), "is of format 99, .* this one reads format 1"),
        (lambda found: found.update(side=29), "does not hold what distillnet writes"),
        (lambda found: found.update(threads=-1), "does not hold what distillnet writes"),
        (lambda found: found.update(more=1), "does not hold what distillnet writes"),
        (lambda found: found.update(seconds=[1]), "does not hold what distillnet writes"),
        (lambda found: found.update(machine=3), "does not hold what distillnet writes"),
        (lambda found: found["seconds"].pop(_SOME), "it goes on where it stopped"),
        (lambda found: found["seconds"].update({_SOME: -1.0}), "expected more"),
        (lambda found: found["seconds"].update({_SOME: float("nan")}), "does not hold"),
        (lambda found: found["seconds"].update({_SOME: 10**400}), "does not hold"),
    ],
)
def test_what_is_no_table_is_refused(change: object, said: str, tmp_path: Path) -> None:
    found = json.loads(_table(1e-11, 1e-9).dumps())
    change(found)  # type: ignore[operator]
    (tmp_path / "times.json").write_text(json.dumps(found))
    with pytest.raises(InputError, match=said):
        read_times(tmp_path / "times.json")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"1" * 5_000])
def test_noise_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "times.json").write_bytes(content)
    with pytest.raises(InputError):
        read_times(tmp_path / "times.json")


@pytest.mark.parametrize(
    ("asked", "widths", "multiple"),
    [
        ({}, [64, 64, 128, 16], 16),  # the built-in table's
        ({}, [8, 8, 12, 16, 10], 2),  # blocks would leave nothing to remove
        ({}, [3], 1),
        ({"round_to": 8}, [8, 8, 12], 8),  # the user's own
        ({"optimise": "macs"}, [64, 64], 1),
    ],
)
def test_narrow_networks_are_rounded_to_less(asked: dict, widths: list[int], multiple: int) -> None:
    assert built_in_times().multiple == 16
    assert Options(**asked).multiple_for(widths) == multiple
