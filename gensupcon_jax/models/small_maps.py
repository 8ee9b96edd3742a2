"""3x3 convolutions with outputs of at most 2 x 2 positions: on a CPU matrix products, which are up to 100 times faster there."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LARGEST = 2  # Positions of an output along each axis; from 3 on the convolution is faster (docs/performance.md).


def convolve(
    images: Float[Array, "batch height width channel"],
    kernel: Float[Array, "rows columns channel new_channel"],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **settings: Any,
) -> Float[Array, "batch new_height new_width new_channel"]:
    """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it; on a CPU in another form where the output is small.

    images [batch, height, width, channel] and kernel [3, 3, channel, new_channel], in the same float type.

    >>> import flax.linen as nn
    >>> layer = nn.Conv(64, (3, 3), padding=1, conv_general_dilated=convolve)
    """
    usual_fn = functools.partial(
        jax.lax.conv_general_dilated, window_strides=window_strides, padding=padding, **settings
    )
    stride, *others = window_strides
    is_usual = kernel.shape[:3] == (3, 3, images.shape[3]) and set(others) == {stride} and list(padding) == [(1, 1)] * 2
    if is_usual and all((length - 1) // stride < _LARGEST for length in images.shape[1:3]):
        small_fn = _over_whole_maps if max(images.shape[1:3]) <= _LARGEST else _over_patches
        # By the platform that the program is for: `gensupcon plan` compiles for TPUs on a machine with a CPU. On a TPU v5e the
        # matrices would cost a ResNet-18 at 64 pixels 24 % more cycles, by its compiler.
        return jax.lax.platform_dependent(
            images,
            kernel,
            cpu=functools.partial(small_fn, stride=stride, precision=settings.get("precision")),
            default=usual_fn,
        )
    return usual_fn(images, kernel)


def _over_whole_maps(images: Array, kernel: Array, stride: int, precision: Any) -> Array:
    """Every output position sees all of a map of at most 2 x 2, so one matrix leads from all inputs to all outputs."""
    height, width, channel = images.shape[1:]
    rows, columns = _outputs(height, stride), _outputs(width, stride)
    # The part of the kernel that lies over the map, with its center at each output position in turn.
    seen = [
        jax.lax.slice(kernel, (1 - row, 1 - column, 0, 0), (1 - row + height, 1 - column + width, *kernel.shape[2:]))
        for row in range(rows)
        for column in range(columns)
    ]
    matrix = jnp.concatenate([part.reshape(height * width * channel, -1) for part in seen], axis=1)
    product = jnp.matmul(images.reshape(images.shape[0], height * width * channel), matrix, precision=precision)
    return product.reshape(images.shape[0], rows, columns, kernel.shape[3])


def _over_patches(images: Array, kernel: Array, stride: int, precision: Any) -> Array:
    """The 3x3 inputs that each output position sees, in a row of a matrix."""
    rows, columns = _outputs(images.shape[1], stride), _outputs(images.shape[2], stride)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def seen_by(row: int, column: int) -> Array:
        down = jax.lax.slice_in_dim(padded, row, row + stride * (rows - 1) + 1, stride, axis=1)
        return jax.lax.slice_in_dim(down, column, column + stride * (columns - 1) + 1, stride, axis=2)

    patches = jnp.concatenate([seen_by(row, column) for row in range(3) for column in range(3)], axis=3)
    return jnp.matmul(patches, kernel.reshape(-1, kernel.shape[3]), precision=precision)


def _outputs(length: int, stride: int) -> int:
    """Output positions along an axis of this length."""
    return (length - 1) // stride + 1
