"""BatchNorm, ReLU and max-pooling of the ImageNet stem in one module, which pools before it normalizes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gensupcon_jax.models.max_pool import max_pool

MOMENTUM = 0.9  # 1 - momentum of PyTorch (0.1).
EPSILON = 1e-5


class NormalizedMaxima(nn.Module):
    """max_pool(relu(batch_norm(inputs))), 3x3 with a stride, on the positions that are left: with stride 2 a quarter.

    BatchNorm is an increasing or decreasing line in each channel, by the sign of its scale, and ReLU never decreases. So the
    maximum of a window is that of its largest input, or of its smallest if the scale is negative: there the sign of the
    inputs is flipped first. The normalized map of 112 x 112 positions is neither written nor read again for the gradients. Values
    are the same; if the results of a window tie, for example by rounding, the gradient goes to the largest input
    instead of the first. Parameters and statistics have BatchNorm's names and meaning.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    stride: int = 2

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch new_height new_width channel"]:
        """Normalize with the batch's statistics (train) or the running ones; statistics and parameters are float32."""
        shape = inputs.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)

        sign = jax.lax.stop_gradient(jnp.where(scale < 0, -1.0, 1.0))
        inputs = inputs * sign.astype(inputs.dtype)
        mean, var = running_mean.value * sign, running_var.value
        if train:
            mean, var = self._batch_statistics(inputs)
            if not self.is_initializing():
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * (mean * sign)
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        maxima = max_pool(inputs, stride=self.stride)
        normalized = (maxima - mean) * (jax.lax.rsqrt(var + EPSILON) * (scale * sign)) + bias
        return nn.relu(normalized.astype(self.dtype))

    def _batch_statistics(self, inputs: Array) -> tuple[Array, Array]:
        inputs = inputs.astype(jnp.float32)
        moments = jnp.stack([inputs.mean((0, 1, 2)), (inputs * inputs).mean((0, 1, 2))])
        if self.axis_name is not None and not self.is_initializing():
            moments = jax.lax.pmean(moments, self.axis_name)
        mean, mean_of_squares = moments
        return mean, jnp.maximum(0.0, mean_of_squares - mean * mean)
