"""Convolutions with small outputs: the values, gradients and programs of the usual convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.models.small_maps import convolve

USUAL = {"dimension_numbers": jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}
SMALL = [
    (1, 1, 1),
    (1, 2, 1),
    (2, 1, 1),
    (2, 2, 1),
    (1, 1, 2),
    (2, 2, 2),
    (1, 4, 2),
    (3, 2, 2),
    (3, 3, 2),
    (4, 4, 2),
    (4, 3, 2),
]


def arrays(height, width, kernel=3, dtype=jnp.float32):
    image_key, kernel_key = jax.random.split(jax.random.key(height * 10 + width))
    images = jax.random.normal(image_key, (5, height, width, 6))
    return images.astype(dtype), (jax.random.normal(kernel_key, (kernel, kernel, 6, 7)) / 8).astype(dtype)


def usual(images, kernel, stride, padding=1):
    return jax.lax.conv_general_dilated(images, kernel, (stride, stride), [(padding, padding)] * 2, **USUAL)


def ours(images, kernel, stride, padding=1):
    return convolve(images, kernel, (stride, stride), [(padding, padding)] * 2, **USUAL)


def has_convolution(function, *arguments, platform="cpu"):
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
    return "stablehlo.convolution" in lowered.as_text()


@pytest.mark.parametrize(("height", "width", "stride"), SMALL)
def test_values_and_gradients_are_those_of_the_convolution(height, width, stride):
    images, kernel = arrays(height, width)
    expected, expected_vjp = jax.vjp(lambda *given: usual(*given, stride), images, kernel)
    found, found_vjp = jax.vjp(lambda *given: ours(*given, stride), images, kernel)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    cotangent = jax.random.normal(jax.random.key(1), expected.shape)
    for mine, theirs in zip(found_vjp(cotangent), expected_vjp(cotangent), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=4e-6)


@pytest.mark.parametrize(("height", "width", "stride"), SMALL)
def test_on_a_cpu_no_convolution_is_left_where_the_output_is_small(height, width, stride):
    def gradients(*given):
        return jax.grad(lambda *each: (ours(*each, stride) ** 2).sum(), (0, 1))(*given)

    assert not has_convolution(gradients, *arrays(height, width))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_platforms_convolve_and_multiply_no_matrices(platform):
    def gradients(*given):
        return jax.grad(lambda *each: (ours(*each, 1) ** 2).sum(), (0, 1))(*given)

    lowered = jax.jit(gradients).trace(*arrays(2, 2)).lower(lowering_platforms=(platform,)).as_text()
    assert lowered.count("stablehlo.convolution") == 3  # the output and the two gradients
    assert "stablehlo.dot_general" not in lowered


@pytest.mark.parametrize(
    ("height", "width", "stride", "kernel"),
    [(3, 3, 1, 3), (2, 3, 1, 3), (5, 5, 2, 3), (4, 5, 2, 3), (2, 2, 1, 7), (4, 4, 2, 7)],
)
def test_other_convolutions_stay_as_they_are(height, width, stride, kernel):
    assert has_convolution(lambda *each: ours(*each, stride, kernel // 2), *arrays(height, width, kernel))


def test_another_padding_or_stride_is_a_convolution():
    images, kernel = arrays(2, 2)
    for strides, padding in (((1, 2), [(1, 1), (1, 1)]), ((1, 1), [(0, 1), (1, 1)]), ((1, 1), [(2, 2), (2, 2)])):
        expected = jax.lax.conv_general_dilated(images, kernel, strides, padding, **USUAL)
        np.testing.assert_allclose(convolve(images, kernel, strides, padding, **USUAL), expected, atol=1e-6)


def test_bfloat16_is_rounded_once():
    images, kernel = arrays(2, 2, dtype=jnp.bfloat16)
    exact = usual(images.astype(jnp.float32), kernel.astype(jnp.float32), 1)
    found = ours(images, kernel, 1)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-8, atol=2**-8)


def test_a_layer_of_flax_has_the_same_parameters_with_it():
    images, _ = arrays(2, 2)
    usual_layer, our_layer = nn.Conv(7, (3, 3), padding=1), nn.Conv(7, (3, 3), padding=1, conv_general_dilated=convolve)
    variables = usual_layer.init(jax.random.key(0), images)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, variables, our_layer.init(jax.random.key(0), images)))
    np.testing.assert_allclose(our_layer.apply(variables, images), usual_layer.apply(variables, images), atol=1e-6)


def test_the_number_of_images_may_be_a_symbol():
    (batch,) = jax.export.symbolic_shape("batch")
    for height, stride in ((2, 1), (4, 2)):
        images, kernel = arrays(height, height)
        abstract = jax.ShapeDtypeStruct((batch, *images.shape[1:]), images.dtype)
        exported = jax.export.export(jax.jit(lambda each, kernel=kernel, stride=stride: ours(each, kernel, stride)))(
            abstract
        )
        np.testing.assert_allclose(exported.call(images), usual(images, kernel, stride), atol=1e-6)
