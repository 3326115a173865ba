"""Networks that nobody thought of, as the C engine computes them; ``make fuzz`` makes more."""

from pathlib import Path

import pytest

from random_networks import check_random_network


@pytest.mark.slow
# Scalars, vectors of four, this machine's; and scores that are nearly equal, so that their rounding
# is a large share of their range.
@pytest.mark.parametrize("seed", [0, 4, 11, 8009])
def test_the_code_of_a_random_network_stays_within_its_bounds(seed: int, tmp_path: Path) -> None:
    assert check_random_network(seed, tmp_path) == 4  # missions
