"""How long a run of the digits takes to end after a signal that comes while it starts: real processes at random instants.

    python -m benchmarks.signals --num 20 --seed 0

Prints each instant with the seconds until the process had ended and its last line, then median and maximum. Compiled programs
come from a cache that a first run fills; --compile leaves it empty.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import QUICK_COMPILES, ROOT
from tests.running import command


def stopped(folder: Path, seconds: float, number: signal.Signals, environment: dict[str, str]) -> float:
    """The seconds from the signal, so long after the start, to the end of the process."""
    process = subprocess.Popen(
        command(folder), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    process.send_signal(number)
    since = time.monotonic()
    _, said = process.communicate(timeout=120)
    took = time.monotonic() - since
    last = said.splitlines()[-1] if said else ""
    print(
        f"{number.name} after {seconds:5.2f} s: ended {took:.2f} s later, status {process.returncode}: {last}",
        flush=True,
    )
    return took


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=20, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: %(default)s)")
    parser.add_argument("--until", type=float, default=6.0, help="the last instant, in seconds (default: %(default)g)")
    parser.add_argument("--compile", action="store_true", help="every process compiles")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if not options.compile:
            environment |= {"XLA_FLAGS": QUICK_COMPILES, "JAX_COMPILATION_CACHE_DIR": f"{scratch}/compiled"}
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            subprocess.run(command(Path(scratch, "first")), cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
        took = [
            stopped(
                Path(scratch, str(index)), rng.uniform(0.1, options.until), rng.choice((signal.SIGINT, signal.SIGTERM)),
                environment,
            )
            for index in range(options.num)
        ]  # fmt: skip
    print(f"{options.num} processes: median {statistics.median(took):.2f} s, maximum {max(took):.2f} s")


if __name__ == "__main__":
    main()
