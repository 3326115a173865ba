"""Random networks through the C engine, under sanitizers: ``make fuzz``.

In float32 they are compared with PyTorch, in 8 bits with the reference.

    python tests/fuzz/engine.py --seconds 600

A finding is a network that is computed wrongly, or whose code touches what it may not; its seed
makes it again.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--networks", type=int, default=10**9, help="if time allows")
    args = parser.parse_args()
    sys.path[:0] = [str(TESTS), str(TESTS / "engine")]
    from random_in_8_bits import check_random_in_8_bits
    from random_networks import check_random_network

    end = time.monotonic() + args.seconds
    seed, missions, refused, findings = args.first, 0, 0, 0
    while time.monotonic() < end and seed < args.first + args.networks:
        try:
            with tempfile.TemporaryDirectory() as folder:
                by_rows = seed % 2 == 1
                passed = check_random_network(seed, Path(folder), by_rows=by_rows)
                passed += check_random_in_8_bits(seed, Path(folder) / "in 8 bits")
            missions, refused = missions + passed, refused + (passed == 0)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings += 1
            print(f"    seed {seed}: {type(error).__name__}: {str(error)[:800]}", flush=True)
        seed += 1
    print(
        f"{'C engine':18} {seed - args.first:>9,} networks, {missions:,} missions as they must be, "
        f"{refused:,} networks refused, {findings} findings"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
