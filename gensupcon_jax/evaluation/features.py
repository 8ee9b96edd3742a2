"""Outputs of a network for every image of a split, on any number of devices, and raw pixels as a baseline."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.data.input_pipeline import padded_batches
from gensupcon_jax.data.splits import AnySplit, EncodedSplit

_PIXEL_SIDE = 32
_MOST_PIXELS = 2**29  # 2 GiB of float32
_MOST_PADDING = 1 / 8  # of the rows of all batches
_LEAST_PER_DEVICE = 16  # images of a batch: smaller ones are computed more slowly


class Features(NamedTuple):
    """The features of a split and the most likely class of each image.

    targets: what is predicted where that is not the class: rows of 0 and 1 of several labels, or values [example].
    """

    values: Float[np.ndarray, "example dim"]
    classes: Int[np.ndarray, "example"]
    targets: Shaped[np.ndarray, "example ..."] | None = None

    @property
    def numbers(self) -> Float[np.ndarray, "example"]:
        """The value of each image, of a data set whose labels are numbers."""
        assert self.targets is not None
        return self.targets

    @property
    def rows(self) -> Shaped[np.ndarray, "example label"]:
        """The several labels of each image, rows of 0 and 1."""
        assert self.targets is not None  # of a data set with several labels per image
        return self.targets


def features_of(values: Float[np.ndarray, "example dim"], split: AnySplit, label_kind: str) -> Features:
    """The features of a split with what is predicted from them."""
    targets = split.values if label_kind == "value" else None
    if label_kind == "several":
        targets = split.labels_of(np.arange(split.num_images))
    return Features(values, split.classes, targets)


def fitting_batch_size(limit: int, num_images: Sequence[int], num_devices: int) -> int:
    """The images per batch for splits of these sizes: one size for all of them, so that one program is compiled.

    limit: how many fit in memory.  The half of the limit, its quarter and so on are tried until at most an eighth of all rows
    is padding, down to 16 images per device; and the result is rounded up to a multiple of the devices.

    >>> fitting_batch_size(512, [180, 60, 60], 1), fitting_batch_size(512, [50_000, 10_000], 1)
    (64, 512)
    """

    def rounded(size: int) -> int:
        return -(-size // num_devices) * num_devices

    def is_much(size: int) -> bool:
        rows = sum(-(-num // size) * size for num in num_images)
        return rows - sum(num_images) > _MOST_PADDING * rows

    size = limit
    while size // 2 >= _LEAST_PER_DEVICE * num_devices and is_much(rounded(size)):
        size //= 2
    return rounded(size)


def extract(
    output_fn: Callable,
    split: AnySplit,
    *,
    batch_size: int,
    sharding: jax.sharding.Sharding,
) -> Float[np.ndarray, "example dim"]:
    """Apply output_fn (features or logits of a batch) to all images, each exactly once, in order.

    output_fn returns the rows of the whole batch on every device; each of several hosts gets all rows.
    """
    parts = []
    for batch, is_real in padded_batches(split, batch_size, sharding):
        # Fetched immediately: more than 32 unawaited calls on several CPU devices hang.
        parts.append(np.asarray(output_fn(batch), np.float32)[is_real])
    return np.concatenate(parts)


def dataset_features(
    feature_fn: Callable, dataset: Dataset, splits: tuple[str, ...], **settings
) -> dict[str, Features]:
    """Features of the named splits, without one that the data set does not have."""
    return {
        name: features_of(extract(feature_fn, split, **settings), split, dataset.label_kind)
        for name, split in dataset.splits.items()
        if name in splits
    }


def pixel_features(dataset: Dataset, **settings) -> dict[str, Features] | None:
    """The raw pixels as features, 0..1: the baseline for an encoder.

    Encoded images are resized to 32 x 32; None if there are still too many training images to compare with.
    """
    if not isinstance(dataset.train, EncodedSplit):
        return {
            name: features_of(split.images.reshape(split.num_images, -1) / np.float32(255), split, dataset.label_kind)
            for name, split in dataset.splits.items()
            if not isinstance(split, EncodedSplit)
        }
    side = min(dataset.image_size, _PIXEL_SIDE)
    if dataset.train.num_images * side * side * dataset.num_channels > _MOST_PIXELS:
        return None
    everywhere = jax.sharding.NamedSharding(settings["sharding"].mesh, jax.sharding.PartitionSpec())
    pixels_fn = jax.jit(functools.partial(_small_pixels, side=side), out_shardings=everywhere)
    return dataset_features(pixels_fn, dataset, ("train", "validation", "test"), **settings)


def _small_pixels(images: jax.Array, side: int) -> jax.Array:
    small = jax.image.resize(images / 255, (images.shape[0], side, side, images.shape[3]), "linear", antialias=True)
    return small.reshape(len(small), -1)
