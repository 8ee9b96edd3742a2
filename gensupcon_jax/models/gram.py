"""A 1x1 convolution and its BatchNorm in one module, whose output before normalization is never stored."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gensupcon_jax.collectives import sum_over, varying
from gensupcon_jax.models.stem import EPSILON, MOMENTUM


def _product(subscripts: str, *arrays: Any, precision: Any = None) -> Any:
    return jnp.einsum(subscripts, *arrays, preferred_element_type=jnp.float32, precision=precision)


def _exact(left: Any, right: Any) -> Any:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def _moments(inputs, axis_name: str | None):
    """Number of positions, mean [channel], and covariance [channel, channel] of all devices."""
    count = jnp.float32(inputs.size // inputs.shape[-1])
    total = inputs.astype(jnp.float32).sum((0, 1, 2))
    squares = _product("bhwc,bhwd->cd", inputs, inputs, precision=jax.lax.Precision.HIGHEST)
    num, mean, second = sum_over((count, total, squares), axis_name)
    mean = mean / num
    return num, mean, second / num - mean[:, None] * mean, total, squares


def statistics_of(mean_in, covariance, kernel):
    """Mean and variance of each feature of inputs @ kernel, from mean and covariance of the inputs."""
    exact = kernel.astype(jnp.float32)
    return _exact(mean_in, exact), jnp.maximum(0.0, (exact * _exact(covariance, exact)).sum(0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalized_product(inputs, kernel, scale, bias, axis_name: str | None):
    """BatchNorm of inputs @ kernel over batch and positions, and the moments of the inputs: mean and covariance.

    The statistics of the product follow from them: variance w' C w for a column w of the kernel.  So do those of the gradient,
    for which the product is not needed either.  Not differentiable in the moments.
    """
    return _forward(inputs, kernel, scale, bias, axis_name)[0]


def _forward(inputs, kernel, scale, bias, axis_name):
    num, mean_in, covariance, total, squares = _moments(inputs, axis_name)
    mean, var = statistics_of(mean_in, covariance, kernel)
    inverse = jax.lax.rsqrt(var + EPSILON)
    out = (_product("bhwc,cf->bhwf", inputs, kernel) - mean) * (inverse * scale) + bias
    return (out.astype(inputs.dtype), mean_in, covariance), (inputs, kernel, scale, num, mean, inverse, total, squares)


def _backward(axis_name, residuals, cotangents):
    inputs, kernel, scale, num, mean, inverse, total, squares = residuals
    gradient = cotangents[0]
    exact = kernel.astype(jnp.float32)
    sums = gradient.astype(jnp.float32).sum((0, 1, 2))
    cross = _product("bhwc,bhwf->cf", inputs, gradient)
    along = inverse * ((exact * cross).sum(0) - mean * sums)  # sum of gradient x normalized
    all_sums, all_along = sum_over((sums, along), axis_name)
    factor = inverse * scale
    centered = _exact(squares, exact) - total[:, None] * mean  # inputs' (inputs @ kernel - mean)
    of_kernel = factor * (cross - total[:, None] * (all_sums / num) - centered * (inverse * all_along / num))
    shared = factor * inverse * all_along / num
    back = _exact(exact * shared, exact.T)
    constant = _exact(exact, shared * mean - factor * all_sums / num)
    scaled = (gradient.astype(jnp.float32) * factor).astype(gradient.dtype)
    of_inputs = _product("bhwf,cf->bhwc", scaled, kernel) - _product("bhwc,cd->bhwd", inputs, back.astype(inputs.dtype))
    return (of_inputs + constant).astype(inputs.dtype), of_kernel.astype(kernel.dtype), along, sums


normalized_product.defvjp(_forward, _backward)


class Kernel(nn.Module):
    """The kernel of a 1x1 convolution, under the name that `nn.Dense` gives it."""

    features: int
    kernel_init: Any
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, num_inputs: int) -> Float[Array, "channel feature"]:
        """[channel, feature], in the compute dtype."""
        return jnp.asarray(self.param("kernel", self.kernel_init, (num_inputs, self.features)), self.dtype)


class NormalizedProduct(nn.Module):
    """BatchNorm(inputs @ kernel); parameters and statistics have BatchNorm's names and meaning."""

    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch height width channel"],
        kernel: Float[Array, "channel feature"],
        *,
        train: bool,
    ) -> Float[Array, "batch height width feature"]:
        """Normalize with the batch's statistics (train) or the running ones; statistics and parameters are float32."""
        shape = kernel.shape[1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        inputs = inputs.astype(self.dtype)
        if not train:
            factor = jax.lax.rsqrt(running_var.value + EPSILON) * scale
            return ((jnp.matmul(inputs, kernel) - running_mean.value) * factor + bias).astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        arguments = varying((inputs, kernel, scale, bias), axis_name)
        product: Any = normalized_product(*arguments, axis_name)
        out, mean_in, covariance = product
        if not self.is_initializing():
            # From the kernel that is the same on all devices, so that jax knows that these are too.
            mean, var = jax.lax.stop_gradient(statistics_of(mean_in, covariance, kernel))
            running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
            running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        return out
