"""Channels of images: mean and standard deviation of each, from counts of the 256 values; gray from color and back."""

import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax.gray import PIL_GRAY

_TILE = 1024  # images, or rows of one image
Statistics = tuple[Float[np.ndarray, "channel"], Float[np.ndarray, "channel"]]


def channel_statistics(images: UInt8[np.ndarray, "example height width channel"]) -> Statistics:
    """Mean and standard deviation of each channel over all pixels, on the scale 0..1."""
    return statistics_of_moments(channel_moments(images))


def channel_moments(images: UInt8[np.ndarray, "... channel"]) -> Float[np.ndarray, "moment=2 channel"]:
    """Means of the values and of their squares over all pixels, on the scale 0..1.

    Sums over the 256 values are exact and need no float copy of the images.
    """
    values = np.arange(256) / 255
    counts = np.stack([_value_counts(images[..., c]) for c in range(images.shape[-1])])
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.stack([shares @ values, shares @ values**2])


def _value_counts(channel: np.ndarray) -> np.ndarray:
    tiles = (
        channel[start : start + _TILE].ravel() for start in range(0, len(channel), _TILE)
    )  # bincount copies as int64
    return sum((np.bincount(tile, minlength=256) for tile in tiles), np.zeros(256, np.int64))


def statistics_of_moments(moments: Float[np.ndarray, "moment=2 channel"]) -> Statistics:
    """Mean and standard deviation; the standard deviation of a constant channel is 1, to avoid a division by zero."""
    mean, square = moments
    variance = square - mean**2
    std = np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 0)), 1.0)
    return mean.astype(np.float32), std.astype(np.float32)


def to_gray(images: np.ndarray) -> np.ndarray:
    """Luma (ITU-R 601) in one channel; gray pixels keep their value."""
    return np.round(images.astype(np.float32) @ np.array(PIL_GRAY, np.float32))[..., None].astype(np.uint8)


def converted(
    images: UInt8[np.ndarray, "example height width channel"], num_channels: int
) -> UInt8[np.ndarray, "example height width {num_channels}"]:
    """Images in 1 channel, by `to_gray`, or in 3 equal ones; unchanged if they have this number."""
    if images.shape[-1] == num_channels:
        return images
    if num_channels == 3:
        return np.repeat(images, 3, axis=-1)
    gray = np.empty((*images.shape[:-1], 1), np.uint8)
    for start in range(0, len(images), _TILE):  # in tiles: a float32 copy of all would take four times their memory
        gray[start : start + _TILE] = to_gray(images[start : start + _TILE])
    return gray
