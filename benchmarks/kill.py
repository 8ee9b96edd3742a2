"""kill -9 a real training many times and compare with the run that nobody touched.

python -m benchmarks.kill --kills 100
"""

import argparse
import collections
import tempfile
import time
from pathlib import Path

from tests.killing import CHANGES, compare


def main() -> None:
    """Print where the kills fell and whether every run ended bit for bit the same; status 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often a process is killed")
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fell, same = compare(
            Path(folder), num_kills=given.kills, seed=given.seed, changes=CHANGES, devices=given.devices
        )
    where = ", ".join(f"{count} {name}" for name, count in sorted(collections.Counter(fell).items()))
    print(f"{len(fell)} kills ({where}), {len(same)} runs, {sum(same)} of them bit for bit as the untouched one, "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    raise SystemExit(not all(same))


if __name__ == "__main__":
    main()
