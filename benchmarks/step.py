"""Images per second of the training step on this machine, on random images: nothing is loaded, saved or evaluated.

python -m benchmarks.step                                                   ResNet-18 on 32 x 32, GenSCL, as main runs it
python -m benchmarks.step --set model.name=resnet50 --set batch_size=32
XLA_FLAGS= python -m benchmarks.step                                        without the flags that main sets on a CPU
"""

import argparse
import ast
import importlib
import math
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from gensupcon_jax.cluster import cpu_flags, sharding
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.method.state import state_shardings
from gensupcon_jax.run import assemble


def build(config, image_size: int, num_channels: int, num_classes: int):
    """The compiled step, its state and a batch, all on this machine's devices."""
    middle = np.full(num_channels, 0.5, np.float32)
    data = DataShape(image_size, num_channels, num_classes, middle, middle / 2, "random")
    mesh = sharding.make_mesh()
    parts = assemble.build_parts(config, data, assemble.lengths(config, per_epoch=100), mesh)
    shardings = state_shardings(assemble.abstract_state(parts), mesh)
    state = jax.jit(parts.initial_state_fn, out_shardings=shardings)(jax.random.key(0))
    rng = np.random.default_rng(0)
    shapes = assemble.abstract_batch(config, data)
    labels = np.eye(num_classes, dtype=np.float32)[rng.integers(0, num_classes, config.batch_size)]
    batch = jax.device_put(
        type(shapes)(rng.integers(0, 256, shapes.images.shape, np.uint8), labels), sharding.batch_sharding(mesh)
    )
    key = jax.device_put(jax.random.key(1), sharding.replicated(mesh))
    return parts.train_step_fn, state, batch, key


def seconds_of_steps(step_fn, state, batch, key, *, num_steps: int) -> list[float]:
    """Each step waited for; the first, which compiles, is not among them."""
    seconds = []
    for _ in range(num_steps + 1):
        started = time.perf_counter()
        state, metrics = step_fn(state, {}, batch, key)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
    if not jnp.isfinite(metrics["loss"]):
        raise SystemExit(f"the loss is {metrics['loss']}: the timed steps are not training")
    return seconds[1:]


def main() -> None:
    """Print the median and the best of the steps, in images per second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="cifar10:genscl", help="recipe and variant of configs/")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the config")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--num_channels", type=int, default=3)
    parser.add_argument("--num_classes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    cpu_flags.set_for_this_machine(os.environ)  # as main does
    recipe, _, variant = arguments.config.partition(":")
    config = importlib.import_module(f"configs.{recipe}").get_config(*filter(None, [variant]))
    fields = dict(field.split("=", 1) for field in ["model.name=resnet18", "batch_size=64", *arguments.set])
    config.update_from_flattened_dict({name: _value(text) for name, text in fields.items()})
    if "mix.block" not in fields:  # partners are drawn among the images of one device
        config.mix.block = math.gcd(config.mix.block, config.batch_size // jax.device_count())
    step = build(config, arguments.image_size, arguments.num_channels, arguments.num_classes)
    seconds = seconds_of_steps(*step, num_steps=arguments.steps)
    median, best = (config.batch_size / value for value in (statistics.median(seconds), min(seconds)))
    print(
        f"{config.model.name}, {arguments.image_size} x {arguments.image_size}, batch {config.batch_size}, "
        f"{config.augment.num_views} views, {config.objective} {config.loss.mode}: {median:.1f} images/s (median of "
        f"{arguments.steps} steps), {best:.1f} (best); XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}"
    )


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    main()
