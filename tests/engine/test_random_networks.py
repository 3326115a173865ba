"""Networks that nobody thought of, as the C engine computes them; ``make fuzz`` makes more."""

from pathlib import Path

import pytest

from random_in_8_bits import check_random_in_8_bits
from random_networks import check_random_network
from selection import exhaustive


@pytest.mark.slow
# Scalars, vectors of four, this machine's; and scores that are nearly equal, so that their rounding
# is a large share of their range.
@pytest.mark.parametrize("seed", exhaustive([0, 4, 11, 8009], (4, 8009).__contains__))
def test_the_code_of_a_random_network_stays_within_its_bounds(seed: int, tmp_path: Path) -> None:
    assert check_random_network(seed, tmp_path) == 4  # missions


@pytest.mark.slow
# Vectors, none padded, AVX2, plain C.
@pytest.mark.parametrize("seed", exhaustive([0, 5, 6, 3], (5, 6).__contains__))
def test_in_8_bits_it_does_so_too_and_says_what_the_reference_says(
    seed: int, tmp_path: Path
) -> None:
    assert check_random_in_8_bits(seed, tmp_path / "c") == 4  # missions
