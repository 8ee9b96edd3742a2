"""What the clock of steps and the account of the time add to training: seconds a step, with and without both, in turn.

python -m benchmarks.clock
"""

import collections
import contextlib
import itertools
import statistics
import tempfile
import time

import jax

from benchmarks.guard import asked, build
from gensupcon_jax.cluster import sharding
from gensupcon_jax.data import datasets
from gensupcon_jax.paths import as_path
from gensupcon_jax.run.account import Account
from gensupcon_jax.run.step_clock import StepClock


def seconds_of_steps(compiled, num_steps: int, account: Account | None):
    """Seconds a step, wall and CPU of all threads, and the compiled step with its new state; two steps are in flight."""
    step_fn, state, batch, key = compiled
    in_flight = collections.deque()
    wall, cpu = time.monotonic(), time.process_time()
    with contextlib.ExitStack() as opened:
        clock = None if account is None else opened.enter_context(StepClock(account))
        batches = itertools.repeat(batch, num_steps)
        for each in batches if clock is None else clock.waiting(batches):
            if len(in_flight) == 2:
                float(in_flight.popleft()["loss"])
            began = time.monotonic()
            state, metrics = step_fn(state, {}, each, key)
            in_flight.append(metrics)
            if clock is not None:
                clock.sent(metrics, began, is_timed=True)
        jax.block_until_ready(state)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return wall / num_steps, cpu / num_steps, (step_fn, state, batch, key)


def main() -> None:
    """Print the medians and their ratios."""
    given, config = asked(__doc__, rounds=21, steps=50, batch_size=32)
    compiled = build(config, datasets.load("digits"), sharding.make_mesh(jax.devices()[:1]), is_guarded=True)
    pairs = []
    with tempfile.TemporaryDirectory() as folder, Account() as account:
        account.keep_in(as_path(folder))  # it is written once a second
        for turn in range(given.rounds):
            measured = {}
            for is_clocked in (True, False) if turn % 2 else (False, True):
                *seconds, compiled = seconds_of_steps(compiled, given.steps, account if is_clocked else None)
                measured[is_clocked] = seconds
            pairs.append((measured[True], measured[False]))
    for place, name in enumerate(("wall", "CPU")):
        both = [[pair[which][place] for pair in pairs[1:]] for which in (0, 1)]
        ratios = [one / other for one, other in zip(*both, strict=True)]
        print(
            f"{name} milliseconds a step: {1000 * statistics.median(both[0]):.3f} with, {1000 * statistics.median(both[1]):.3f} "
            f"without; the median of {len(ratios)} paired ratios is {statistics.median(ratios):.4f}"
        )


if __name__ == "__main__":
    main()
