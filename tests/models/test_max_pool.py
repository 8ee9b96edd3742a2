"""Max-pooling whose gradient on a CPU is computed in another way: values, gradients, programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.cluster import sharding
from gensupcon_jax.models.max_pool import max_pool


def usual(images, stride=2):
    return nn.max_pool(images, (3, 3), strides=(stride, stride), padding=((1, 1), (1, 1)))


def images_of(height, width, *, dtype=jnp.float32):
    """Random whole numbers of a small range, so that many windows have several maxima."""
    return jax.random.randint(jax.random.key(height * 10 + width), (4, height, width, 3), -3, 4).astype(dtype)


@jax.jit
def both_gradients(images, cotangent):
    return [jax.vjp(function, images)[1](cotangent)[0] for function in (lambda each: max_pool(each, stride=2), usual)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (4, 4), (5, 8), (8, 7)])
def test_values_and_gradients_are_those_of_flax_also_where_values_tie(height, width):
    images = images_of(height, width)
    expected = usual(images)
    np.testing.assert_array_equal(max_pool(images, stride=2), expected)
    # Small whole numbers: sums are exact in any order.
    cotangent = jax.random.randint(jax.random.key(1), expected.shape, -50, 50).astype(jnp.float32)
    np.testing.assert_array_equal(*both_gradients(images, cotangent))


def test_the_gradient_of_bfloat16_is_bfloat16():
    images = images_of(6, 6, dtype=jnp.bfloat16)
    found, expected = both_gradients(images, jnp.ones_like(usual(images)))
    assert found.dtype == expected.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(jnp.float32), expected.astype(jnp.float32))


def test_with_stride_1_it_is_that_of_flax():
    images = images_of(5, 6)
    np.testing.assert_array_equal(max_pool(images, stride=1), usual(images, 1))


def gradient(images):
    return jax.grad(lambda images: (max_pool(images, stride=2) ** 2).sum())(images)


@pytest.mark.parametrize(("platform", "expected"), [("cpu", 0), ("tpu", 1), ("cuda", 1)])
def test_only_a_cpu_does_without_the_operation_of_xla(platform, expected):
    lowered = jax.jit(gradient).trace(images_of(4, 4)).lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count("stablehlo.select_and_scatter") == expected


def test_several_devices_and_a_symbolic_number_of_images_give_the_same():
    images = jnp.concatenate([images_of(5, 4)] * 2)
    expected = gradient(images)
    part = PartitionSpec("data")
    spread = jax.shard_map(gradient, mesh=sharding.make_mesh(jax.devices()[:8]), in_specs=part, out_specs=part)
    np.testing.assert_array_equal(spread(images), expected)
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(gradient))(jax.ShapeDtypeStruct((batch, 5, 4, 3), jnp.float32))
    np.testing.assert_array_equal(exported.call(images), expected)
