"""Damaged files of every kind, a few hundred of each: ``make fuzz`` goes on from here."""

import random
import shutil
from pathlib import Path

import pytest

from readers import READERS, fuzz_folder
from watch import Watched, corpus_of, damaged

_SECONDS = 0.5  # of work for each reader, by what one execution costs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz_folder(tmp_path_factory.mktemp("readers"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_what_is_damaged_is_refused(name: str, made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made, tmp_path / "fuzz")
    watched = Watched(name, folder, tmp_path / "latest")
    reader = READERS[name]
    seeds = reader.seeds(folder)
    for data in seeds:
        reader.read(data, folder)  # what is right is read
    for data in [*seeds, *corpus_of(name)]:
        watched(data)
    draw = random.Random(0)
    for _ in range(int(_SECONDS / reader.cost)):
        watched(damaged(name, seeds, draw))
    assert watched.refused
