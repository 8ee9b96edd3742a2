"""Anti-aliased strides against loops over pixels, and the networks that have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import ENCODERS, ResNet, build_backbone
from gensupcon_jax.models.blur_pool import blur
from gensupcon_jax.models.resnet import Bottleneck

FILTER = np.outer((1, 2, 1), (1, 2, 1)) / 16


def mirrored(place, length):
    """The pixel that stands for one outside the image: ... 2 1 | 0 1 2 ... n-1 | n-2 ..."""
    if length == 1:
        return 0
    return -place if place < 0 else 2 * (length - 1) - place if place >= length else place


def naive(images, stride):
    count, height, width, channels = images.shape
    found = np.zeros((count, -(-height // stride), -(-width // stride), channels))
    for row in range(found.shape[1]):
        for column in range(found.shape[2]):
            for down in range(3):
                for right in range(3):
                    y = mirrored(row * stride + down - 1, height)
                    x = mirrored(column * stride + right - 1, width)
                    found[:, row, column] += FILTER[down, right] * images[:, y, x]
    return found


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (2, 1), (1, 1)])
def test_each_pixel_is_the_weighted_mean_of_its_neighbors(size, stride):
    images = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    np.testing.assert_allclose(blur(jnp.asarray(images), stride=stride), naive(images, stride), atol=1e-6)


def test_a_constant_stays_and_the_finest_stripes_vanish():
    assert blur(jnp.full((1, 5, 5, 1), 3.0)).ravel().tolist() == [3.0] * 25
    stripes = jnp.tile(jnp.array([1.0, -1.0]), 4)[None, None, :, None]
    assert np.abs(blur(stripes)).max() == 0
    assert np.abs(stripes[:, :, ::2]).min() == 1  # without the blur a stride of 2 sees a constant


def network(blur_pool, **fields):
    return ResNet(block=Bottleneck, stage_sizes=(1, 1), width=2, blur_pool=blur_pool, **fields)


def inputs(size=16):
    return jnp.asarray(np.random.default_rng(1).standard_normal((2, size, size, 3)), jnp.float32)


def test_the_blur_adds_no_variables_and_changes_the_features():
    variables = network(False, stem="imagenet").init(jax.random.key(0), inputs(), train=False)
    blurred = network(True, stem="imagenet").init(jax.random.key(0), inputs(), train=False)
    jax.tree.map(np.testing.assert_array_equal, variables, blurred)
    plain, changed = (network(each, stem="imagenet").apply(variables, inputs(), train=False) for each in (False, True))
    assert plain.shape == changed.shape
    assert np.abs(plain - changed).max() > 1e-3


def test_what_is_blurred_are_the_inputs_of_strided_convolutions_and_the_maxima(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "gensupcon_jax.models.resnet.blur",
        lambda x, *, stride=1: seen.append((x.shape, stride)) or x[:, ::stride, ::stride],
    )
    jax.eval_shape(lambda: network(True, stem="imagenet").init(jax.random.key(0), inputs(32), train=False))
    # The maxima of the stem; in the second stage the 3x3 convolution and the shortcut. The image itself is not blurred.
    assert seen == [((2, 16, 16, 2), 2), ((2, 8, 8, 4), 1), ((2, 8, 8, 8), 1)]
    seen.clear()
    jax.eval_shape(lambda: network(True, stem="cifar").init(jax.random.key(0), inputs(32), train=False))
    assert seen == [((2, 32, 32, 4), 1), ((2, 32, 32, 8), 1)]


def test_shifted_images_have_more_similar_features():
    """The point of it: a shift by one pixel changes the features of the same random network less."""
    wide = jnp.asarray(np.random.default_rng(2).standard_normal((4, 34, 34, 3)), jnp.float32)

    def change(blur_pool):
        model = ResNet(block=Bottleneck, stage_sizes=(1, 1, 1), width=4, stem="imagenet", blur_pool=blur_pool)
        variables = model.init(jax.random.key(0), wide[:, :32, :32], train=False)
        first, second = (model.apply(variables, wide[:, shift : shift + 32, :32], train=False) for shift in (0, 1))
        return float(jnp.linalg.norm(first - second) / jnp.linalg.norm(first))

    assert change(True) < 0.9 * change(False)


def test_every_resnet_may_have_it_and_a_transformer_is_refused():
    for name in ENCODERS:
        if name.startswith("resnet"):
            assert build_backbone(name=name, image_size=64, blur_pool=True).blur_pool
    with pytest.raises(UserError, match=r"model\.blur_pool is True; allowed for a vision transformer"):
        build_backbone(name="vit_tiny_patch16", image_size=32, blur_pool=True)
