"""What the guard against divergence and the update ratio add to a training step: CPU seconds, with and without, in turn.

python -m benchmarks.guard
"""

import argparse
import statistics
import time

import jax

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import digits
from gensupcon_jax.data import datasets
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.method import train_step
from gensupcon_jax.run import assemble


def build(config, dataset, mesh, *, is_guarded: bool):
    """A compiled step with its state, as training has it; without: neither the check, nor the choice, nor the ratio."""
    data = DataShape.of(dataset.description())
    real = train_step._guarded
    if not is_guarded:
        train_step._guarded = lambda state, candidate, updates, metrics, *rules: (candidate, metrics)
    try:
        parts = assemble.build_parts(config, data, assemble.lengths(config, 4), mesh)
        state = sharding.place(jax.jit(parts.initial_state_fn)(jax.random.key(0)), sharding.replicated(mesh))
        key = sharding.place(jax.random.key(1), sharding.replicated(mesh))
        split, size = dataset.train, config.batch_size
        placed = sharding.batch_sharding(mesh)
        batch = Batch(jax.device_put(split.images[:size], placed), jax.device_put(split.labels[:size], placed))
        step_fn = parts.train_step_fn.lower(state, {}, batch, key).compile()
    finally:
        train_step._guarded = real
    return step_fn, state, batch, key


def cpu_seconds(step_fn, state, batch, key, num_steps: int):
    """CPU seconds of all threads a step, and the state after the steps."""
    began = time.process_time()
    for _ in range(num_steps):
        state, metrics = step_fn(state, {}, batch, key)
        float(metrics["loss"])
    return (time.process_time() - began) / num_steps, state


def asked(description: str | None, **defaults: int):
    """The options of a comparison of steps of the digits, with these defaults; and the config."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=defaults["rounds"], help="pairs of measurements")
    parser.add_argument("--steps", type=int, default=defaults["steps"], help="steps of a measurement")
    parser.add_argument("--batch_size", type=int, default=defaults["batch_size"], help="images")
    options, config = parser.parse_args(), digits.get_config()
    config.batch_size = options.batch_size
    return options, config


def main() -> None:
    """Print both medians, their ratio, and what the compiler says of both programs."""
    given, config = asked(__doc__, rounds=15, steps=3, batch_size=256)
    dataset, mesh = datasets.load("digits"), sharding.make_mesh(jax.devices()[:1])
    measured, ratios = {True: [], False: []}, []
    steps = {guarded: build(config, dataset, mesh, is_guarded=guarded) for guarded in (True, False)}
    for turn in range(given.rounds):
        for guarded in (True, False) if turn % 2 else (False, True):
            step_fn, state, batch, key = steps[guarded]
            seconds, state = cpu_seconds(step_fn, state, batch, key, given.steps)
            steps[guarded] = step_fn, state, batch, key
            measured[guarded].append(seconds)
        ratios.append(measured[True][-1] / measured[False][-1])
    with_guard, without = (statistics.median(measured[guarded][1:]) for guarded in (True, False))
    print(f"CPU seconds a step: {with_guard:.4f} with, {without:.4f} without; ratio of the medians {with_guard / without:.4f}, "
          f"median of the ratios {statistics.median(ratios[1:]):.4f}")  # fmt: skip
    for name in ("flops", "bytes accessed"):
        both = [steps[guarded][0].cost_analysis()[name] for guarded in (True, False)]
        print(f"compiler, {name}: {both[0]:.4g} with, {both[1]:.4g} without, ratio {both[0] / both[1]:.5f}")


if __name__ == "__main__":
    main()
