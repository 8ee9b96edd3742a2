"""Mean and standard deviation of each channel of images, from counts of the 256 values."""

import numpy as np
from jaxtyping import Float, UInt8

Statistics = tuple[Float[np.ndarray, "channel"], Float[np.ndarray, "channel"]]


def channel_statistics(images: UInt8[np.ndarray, "example height width channel"]) -> Statistics:
    """Mean and standard deviation of each channel over all pixels, on the scale 0..1."""
    return statistics_of_moments(channel_moments(images))


def channel_moments(images: UInt8[np.ndarray, "... channel"]) -> Float[np.ndarray, "moment=2 channel"]:
    """Means of the values and of their squares over all pixels, on the scale 0..1.

    Sums over the 256 values are exact and need no float copy of the images.
    """
    values = np.arange(256) / 255
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.stack([shares @ values, shares @ values**2])


def statistics_of_moments(moments: Float[np.ndarray, "moment=2 channel"]) -> Statistics:
    """Mean and standard deviation; the standard deviation of a constant channel is 1, to avoid a division by zero."""
    mean, square = moments
    variance = square - mean**2
    std = np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 0)), 1.0)
    return mean.astype(np.float32), std.astype(np.float32)
