"""Which images make up step t, and their way to the devices: a pure function of seed and step."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int64, UInt8

from gensupcon_jax.datasets import Split
from gensupcon_jax.errors import UserError


class Batch(NamedTuple):
    """One step's images and label distributions, the batch axis spread over the devices."""

    images: UInt8[Array, "batch height width channel"]
    labels: Float[Array, "batch class"]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Full batches in one pass; UserError when there is none (ours).

    The remainder of an epoch is left out. Which images that is changes with every epoch's order.
    """
    if not 1 <= batch_size <= num_examples:
        raise UserError(f"batch_size is {batch_size}; allowed: 1 to {num_examples}, the number of training images")
    return num_examples // batch_size


def epoch_order(seed: int, epoch: int, num_examples: int) -> Int64[np.ndarray, "example"]:
    """A fresh permutation for each (seed, epoch), the same on every host (ours).

    Raw Philox streams stay the same across NumPy versions; `Generator.permutation` may not.
    """
    random_bits = np.random.Philox(key=[seed, epoch]).random_raw(num_examples)
    return np.argsort(random_bits, kind="stable")


def train_batches(
    split: Split, *, seed: int, batch_size: int, start_step: int, end_step: int, sharding: jax.sharding.Sharding
) -> Iterator[Batch]:
    """The batches of steps start_step .. end_step - 1; each host reads only its share (ours)."""
    per_epoch = steps_per_epoch(len(split.images), batch_size)
    share = batch_size // jax.process_count()
    first = jax.process_index() * share
    epoch, order = -1, None
    for step in range(start_step, end_step):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(seed, epoch, len(split.images))
        start = (step % per_epoch) * batch_size + first
        local = order[start : start + share]
        yield Batch(
            jax.make_array_from_process_local_data(sharding, split.images[local]),
            jax.make_array_from_process_local_data(sharding, split.labels[local]),
        )


def padded_batches(
    images: UInt8[np.ndarray, "example height width channel"], batch_size: int, sharding: jax.sharding.Sharding
) -> Iterator[tuple[Array, int]]:
    """Every image once, in order, in batches of one size: (batch, how many of it are real) (ours).

    The last batch repeats its first image to keep one compiled shape; the caller drops those rows.
    """
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        num_real = len(part)
        if num_real < batch_size:
            part = np.concatenate([part, np.repeat(part[:1], batch_size - num_real, axis=0)])
        yield jax.device_put(part, sharding), num_real
