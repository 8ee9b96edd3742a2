"""What the diagnostics cost: their time and arithmetic as a share of a train step of the digits recipe.

python -m benchmarks.diagnostics                 40 steps and 40 times the diagnostics alone, in turns
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import digits
from gensupcon_jax.data import datasets
from gensupcon_jax.data.input_pipeline import train_batches
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.method.diagnostics import Labeled, batch_diagnostics
from gensupcon_jax.run import assemble


def compile_step() -> tuple[Callable, Callable]:
    """-> the compiled step of the recipe on one device, and a function without arguments that runs it once more."""
    config, dataset = digits.get_config(), datasets.load("digits")
    mesh = sharding.make_mesh(jax.devices()[:1])
    data = DataShape.of(dataset.description())
    parts = assemble.build_parts(config, data, assemble.lengths(config, per_epoch=4), mesh)
    everywhere = sharding.replicated(mesh)
    state = jax.jit(parts.initial_state_fn, out_shardings=everywhere)(jax.random.key(0))
    seed_key = jax.device_put(jax.random.key(1), everywhere)
    spread = sharding.batch_sharding(mesh)
    (batch,) = train_batches(dataset.train, seed=0, batch_size=config.batch_size, steps=range(1), sharding=spread)
    compiled = parts.train_step_fn.lower(state, {}, batch, seed_key).compile()
    states = [state]

    def run():
        states[0], metrics = compiled(states[0], {}, batch, seed_key)
        return metrics

    return compiled, run


def compile_diagnostics() -> tuple[Callable, Callable]:
    """-> the same for the diagnostics alone, on embeddings and labels of the recipe's shape."""
    config = digits.get_config()
    num_anchors = config.batch_size * config.augment.num_views
    embedding_key, label_key = jax.random.split(jax.random.key(0))
    embeddings = jax.random.normal(embedding_key, (num_anchors, config.model.embedding_dim))
    embeddings /= jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = jax.random.dirichlet(label_key, jnp.full(10, 0.5), (num_anchors,))
    compiled = jax.jit(batch_diagnostics).lower(Labeled(embeddings, labels)).compile()
    return compiled, functools.partial(compiled, Labeled(embeddings, labels))


def seconds_of(run: Callable) -> float:
    """The duration of one run."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def flops(compiled: Callable) -> float:
    """FLOPs by XLA's cost analysis."""
    return compiled.cost_analysis()["flops"]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    (step, run_step), (diagnostics, run_diagnostics) = compile_step(), compile_diagnostics()
    # In turns, so that other load on the machine meets both; the first round is not counted.
    times = [(seconds_of(run_step), seconds_of(run_diagnostics)) for _ in range(repeats + 1)][1:]
    of_step, of_diagnostics = zip(*times, strict=True)
    device = jax.devices()[0]
    print(f"machine: {os.cpu_count()} CPUs, {device.platform} ({device.device_kind}), jax {jax.__version__}")
    print(f"{'':<18}{'step':>12}{'diagnostics':>14}{'share':>10}")
    for name, pick in (("ms, best", min), ("ms, median", statistics.median)):
        whole, part = pick(of_step), pick(of_diagnostics)
        print(f"{name:<18}{1e3 * whole:>12.2f}{1e3 * part:>14.3f}{part / whole:>10.2%}")
    whole, part = flops(step), flops(diagnostics)
    print(f"{'MFLOP':<18}{whole / 1e6:>12.0f}{part / 1e6:>14.1f}{part / whole:>10.2%}")
    print("\nthe step holds the diagnostics already; alone they pay for their own call as well.")


if __name__ == "__main__":
    main()
