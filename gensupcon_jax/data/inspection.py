"""Inspection of images by decoding them: whether each is intact, and their mean and standard deviation."""

import concurrent.futures
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gensupcon_jax.data.channels import channel_moments, statistics_of_moments
from gensupcon_jax.data.decoding import decode_upright, read_encoded
from gensupcon_jax.data.listing import with_progress
from gensupcon_jax.data.splits import EncodedSplit
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.text import one_line


class Examined(NamedTuple):
    """Why each image cannot be decoded (None where it can), and the statistics of those that can, 0..1."""

    problems: list[str | None]
    mean: Float[np.ndarray, "channel"]
    std: Float[np.ndarray, "channel"]


def examine(split: EncodedSplit, indices: Int[np.ndarray, "some"], text: str) -> Examined:
    """Decode these images; each has the same weight in mean and standard deviation, whatever its size.

    text: label of the progress bar.
    """
    threads = split.num_threads or os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda index: _moments(split, int(index)), indices)
        rows = list(with_progress(found, len(indices), text))
    moments = [row for row in rows if not isinstance(row, str)]
    nothing = np.stack([np.zeros(split.num_channels), np.ones(split.num_channels)])
    mean, std = statistics_of_moments(np.mean(moments, axis=0) if moments else nothing)
    return Examined([row if isinstance(row, str) else None for row in rows], mean, std)


def _moments(split: EncodedSplit, index: int) -> np.ndarray | str:
    """Means of the values and of their squares, [2, channel], on the scale 0..1; or why the image cannot be decoded."""
    try:
        pixels = decode_upright(read_encoded(split, index), 1, split.num_channels)
    except (OSError, ValueError) as error:
        refuse_lost(error, split.where(index))
        return one_line(error)
    return channel_moments(pixels)
