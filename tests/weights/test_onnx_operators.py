"""Operations of jax in ONNX: each gives in onnxruntime what it gives in jax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.weights.onnx_graph import Untranslated
from gensupcon_jax.weights.onnx_model import onnx_model
from tests.weights.onnx_runs import images_of, outputs_of

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 6, 6, 4), np.uint8)
MATRIX = RNG.standard_normal((4, 5)).astype(np.float32)
KERNEL = RNG.standard_normal((3, 3, 4, 5)).astype(np.float32)
MIDDLE = (RNG.random((6, 6, 4)) < 0.5).astype(np.float32)


def flat(values):
    return values.reshape(values.shape[0], -1).astype(jnp.float32)


def convolved(x, kernel=KERNEL, strides=(1, 1), padding="SAME", **settings):
    numbers = settings.pop("numbers", ("NHWC", "HWIO", "NHWC"))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **settings)


FUNCTIONS = {
    "arithmetic": lambda x: (x + 1) * 2 / (x + 3) - 4 * x**2 + x**3 - x,
    "powers": lambda x: jnp.sqrt(x) + jax.lax.rsqrt(x + 1) + x**1.5 + jnp.exp2(x) + jnp.square(x),
    "exponentials": lambda x: (
        jnp.exp(-x) + jnp.log(x + 1) + jnp.log1p(x) + jnp.expm1(-x) + jnp.tanh(x) + jax.nn.sigmoid(x)
    ),
    "activations": lambda x: jnp.concatenate(
        [f(x - 0.5) for f in (nn.relu, nn.silu, nn.elu, nn.softplus, nn.leaky_relu)], 3
    ),
    "gelu": lambda x: nn.gelu(4 * x - 2, approximate=False) + nn.gelu(4 * x - 2, approximate=True),
    "rounding": lambda x: (
        jnp.round(x * 255 / 2) + jnp.floor(3 * x) + jnp.ceil(3 * x) + jnp.sign(x - 0.5) + jnp.abs(x - 0.5)
    ),
    "trigonometry": lambda x: jnp.sin(x) + jnp.cos(x) + jax.lax.erf(x) + jax.lax.erfc(x),
    "comparisons": lambda x: jnp.where((x > 0.5) & (x != 1) | (x <= 0.1), x, -x) + (x >= 0.3) + (x < 0.2) + (x == 0),
    "extremes": lambda x: (
        jnp.clip(x, 0.2, 0.7) + jnp.maximum(x, 0.5) + jnp.minimum(x, MIDDLE) + jnp.maximum(x, -jnp.inf)
    ),
    "not": lambda x: jnp.where(~(x > 0.5), x, 0.0),
    "reductions": lambda x: (
        x.mean((1, 2)) + x.max((1, 2)) + x.min((1, 2)) + x.sum(3).prod((1, 2))[:, None] + x.std((1, 2))
    ),
    "softmax": lambda x: nn.softmax(x, axis=3) + nn.log_softmax(x, axis=1),
    "shapes": lambda x: (
        x.transpose(0, 2, 1, 3)[:, :, :, None, 0] + x.reshape(x.shape[0], 36, 2, 2).sum((2, 3)).reshape(-1, 6, 6, 1)
    ),
    "slices": lambda x: (
        x[:, 1:5:2, ::-1, 2:] - x[:, [4, 0], 1:2, :2] + x[:, 0][:, None, :, 1:3] - x[:, -1, 2, 3][:, None, None, None]
    ),
    "strided": lambda x: x[:, ::2, ::3],
    "split": lambda x: jnp.concatenate(jnp.split(x, 2, axis=3)[::-1], axis=3),
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=2.0),
    "broadcast": lambda x: (
        jnp.broadcast_to(MATRIX[0, :4], x.shape) + jnp.broadcast_to(x.mean((1, 2))[:, None, None], x.shape)
    ),
    "token": lambda x: jnp.concatenate(
        [jnp.broadcast_to(MATRIX[:1, :4], (x.shape[0], 1, 4)), x.reshape(x.shape[0], 36, 4)], axis=1
    ),
    "matrix": lambda x: x @ MATRIX,
    "matrix of pixels": lambda x: convolved(x, KERNEL[..., :4]) @ MATRIX,
    "other matrix": lambda x: jnp.einsum("bhwc,ohw->bco", x, np.stack([MIDDLE[..., 0], MIDDLE[..., 1]])),
    "attention": lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x[:, :, ::-1]) @ x,
    "gram": lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x),
    "convolution": convolved,
    "strided convolution": lambda x: convolved(x, strides=(2, 3), padding=((1, 0), (2, 1))),
    "dilated convolution": lambda x: convolved(x, rhs_dilation=(2, 1)),
    "grouped convolution": lambda x: convolved(x, KERNEL[:, :, :2, :4], feature_group_count=2),
    "channels first": lambda x: convolved(x.transpose(0, 3, 1, 2), numbers=("NCHW", "HWIO", "NCHW")),
    "max pool": lambda x: nn.max_pool(x, (3, 2), strides=(2, 1), padding=((1, 1), (0, 1))),
    "max pool of channels first": lambda x: nn.max_pool(convolved(x), (2, 2), strides=(2, 2)),
    "average pool": lambda x: nn.avg_pool(x, (2, 3), strides=(2, 1), padding="SAME"),
    "rematerialized": lambda x: jax.checkpoint(lambda y: nn.relu(y - 0.5))(x),
    "group norm": lambda x: nn.GroupNorm(2).apply({"params": {"scale": MATRIX[0, :4], "bias": MATRIX[1, :4]}}, x),
    "squeeze and excite": lambda x: convolved(x, KERNEL[..., :4]) * nn.sigmoid(x.mean((1, 2)))[:, None, None],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_onnxruntime_computes_what_jax_computes(name):
    def function(images):
        return flat(FUNCTIONS[name](images.astype(jnp.float32) / 255))

    expected = np.asarray(function(IMAGES))
    for count in (1, 3):
        found = outputs_of(onnx_model(function, images_of(6, 6, 4), {}), IMAGES[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "part"),
    [
        (lambda x: jnp.sort(x, axis=1), "the operation sort"),
        (lambda x: jnp.cumsum(x, axis=1), "the operation cumsum"),
        (lambda x: jax.lax.fori_loop(0, x.shape[1], lambda step, y: y + step, x), "the operation "),
        (lambda x: jax.lax.conv_transpose(x, KERNEL, (2, 2), "SAME"), "a transposed convolution"),
        (lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), axis=1), "the operation argmax"),
    ],
)
def test_what_has_no_translation_is_named(function, part):
    with pytest.raises(UserError) as error:
        onnx_model(lambda images: flat(function(images.astype(jnp.float32))), images_of(6, 6, 4), {})
    assert f"the network cannot be written as ONNX: it has {part}" in str(error.value)
    assert "--format stablehlo" in str(error.value)
    assert isinstance(error.value.__cause__, Untranslated)
