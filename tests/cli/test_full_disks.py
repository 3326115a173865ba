"""What cannot be written whole is not written at all; earlier results stay."""

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from distillnet.files import tensors
from invocations import DISTILL, SEARCH, Cli, assert_refused, distill_words, drop_unfinished, tree


@contextlib.contextmanager
def _small_files(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond ``limit`` bytes: like a full disk, but for EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
# What is written first is larger than the first limit, and so on: statistics, then the programme.
@pytest.mark.parametrize("limit", [100, 9000])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_file_that_cannot_grow(
    limit: int, earlier: bool, cli: Cli, home: Path, request: pytest.FixtureRequest
) -> None:
    if earlier:
        request.getfixturevalue("run_folder")
    before = tree(home)
    with _small_files(limit):
        done = cli(*DISTILL)
    assert_refused(done, 1)
    assert os.strerror(errno.EFBIG) in done.err
    assert tree(home) == before


@pytest.mark.parametrize("name", ["write_bytes", "write_text", "save_file"])
def test_a_full_disk(
    name: str, run_folder: Path, cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(home)

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensors if name == "save_file" else Path, name, full)
    done = cli(*SEARCH)
    assert_refused(done, 1)
    assert "No space left on device" in done.err
    assert "free some space" in done.err
    assert drop_unfinished(run_folder) == (name == "write_bytes")  # the search was done by then
    assert tree(home) == before


def test_folders_made_for_a_run_that_fails_go_again(cli: Cli, home: Path) -> None:
    before = tree(home)
    words = (*distill_words(data="damaged"), "--max-unreadable", "0", "--optimise", "macs")
    done = cli(*words, "--out", "deep/deeper/run")
    assert_refused(done)
    drop_unfinished(home / "deep" / "deeper" / "run")
    assert tree(home) == before
    assert cli(*DISTILL, "--out", "deep/deeper/run").status == 0
    assert (home / "deep" / "deeper" / "run" / "result.json").exists()


def test_a_link_to_a_folder_stays(cli: Cli, home: Path) -> None:
    (home / "link").symlink_to(home / "elsewhere")
    for _ in range(2):
        assert cli(*DISTILL, "--out", "link").status == 0
    assert (home / "link").is_symlink()
    assert (home / "elsewhere" / "result.json").exists()
