"""How long a run of the digits takes to end after a signal that comes while it starts: real processes at random instants.

    python -m benchmarks.signals --num 20 --seed 0
    python -m benchmarks.signals --num 20 --processes 2

Prints each instant with the seconds until the process had ended and its last line, then median and maximum. Compiled programs
come from a cache that a first run fills; --compile leaves it empty. Of two processes that are one run, one gets the signal when
both have joined and so many seconds have passed; the time is that until both have ended.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from gensupcon_jax.store.lock import LOCK
from tests import QUICK_COMPILES, ROOT
from tests.running import command, free_port


def start(folder: Path, num: int, environment: dict[str, str]) -> list[subprocess.Popen]:
    """The processes of one run."""
    several = [f"--coordinator_address=127.0.0.1:{free_port()}", f"--num_processes={num}"]
    return [
        subprocess.Popen(
            command(folder, flags=[*several, f"--process_id={own}"] if num > 1 else []),
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for own in range(num)
    ]  # fmt: skip


def stopped(processes: list[subprocess.Popen], folder: Path, seconds: float, rng: random.Random) -> float:
    """The seconds from the signal to one of these processes, so long after the start, to the end of all."""
    number = rng.choice((signal.SIGINT, signal.SIGTERM))
    time.sleep(seconds)
    while len(processes) > 1 and not (folder / LOCK).exists():  # the first holds it when all have joined
        time.sleep(0.01)
    rng.choice(processes).send_signal(number)
    since = time.monotonic()
    for process in processes:
        process.wait(120)
    took = time.monotonic() - since
    ends = []
    for process in processes:
        lines = process.communicate()[1].splitlines()
        ends.append(f"status {process.returncode}: {lines[-1] if lines else ''}")
    print(f"{number.name} after {seconds:5.2f} s: ended {took:.2f} s later, {'; '.join(ends)}", flush=True)
    return took


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=20, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: %(default)s)")
    parser.add_argument("--until", type=float, default=6.0, help="the last instant, in seconds (default: %(default)g)")
    parser.add_argument("--processes", type=int, default=1, help="of a run (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="every process compiles")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        if not options.compile:
            environment |= {"XLA_FLAGS": QUICK_COMPILES, "JAX_COMPILATION_CACHE_DIR": f"{scratch}/compiled"}
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
            for process in start(Path(scratch, "first"), options.processes, environment):
                if process.wait() != 0:
                    raise SystemExit(process.communicate()[1])
        took = []
        for index in range(options.num):
            folder, seconds = Path(scratch, str(index)), rng.uniform(0.1, options.until)
            took.append(stopped(start(folder, options.processes, environment), folder, seconds, rng))
    print(f"{options.num} runs: median {statistics.median(took):.2f} s, maximum {max(took):.2f} s")


if __name__ == "__main__":
    main()
