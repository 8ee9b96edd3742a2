"""Views match torchvision and the papers, for each policy, and depend only on the key of their image."""

import colorsys
import functools
import itertools
import math

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from PIL import Image

from gensupcon_jax.errors import UserError
from gensupcon_jax.views import augment
from gensupcon_jax.views.augment import BRIGHTNESS, CONTRAST, SATURATION, ColorChange

RNG = np.random.default_rng(0)
COLORED = RNG.random((5, 4, 3), np.float32)
GRAY = RNG.random((5, 4, 1), np.float32)
NUMBERED = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
KEYS = jax.random.split(jax.random.key(0), 4096)
IMAGES = RNG.integers(0, 256, (8, 8, 8, 3), np.uint8)
MEAN, STD = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
# Jitted: without it the tests took three times as long, nearly all of it compilation.
adjust_colors = jax.jit(augment.adjust_colors)
crop_and_resize = jax.jit(augment.crop_and_resize, static_argnames="size")
gaussian_blur = jax.jit(augment.gaussian_blur, static_argnames="radius")
color_jitter = jax.jit(augment.color_jitter, static_argnames=("brightness", "contrast", "saturation", "hue"))
SETTINGS = {
    "image_size": 8,
    "mean": MEAN,
    "std": STD,
    "num_views": 2,
    "policy": "simclr",
    "crop_scale": (0.2, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "flip_probability": 0.5,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "jitter_probability": 0.8,
    "gray_probability": 0.2,
    "blur_probability": 0.5,
    "blur_sigma": (5.0, 56.0),  # 0.2 to 2 pixels at size 8
    "auto_policy": "auto",
    "rand_num_operations": 2,
    "rand_magnitude": 9.0,
    "cutout_size": None,
}
OFF = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "flip_probability": 0.0,
    "jitter_probability": 0.0,
    "gray_probability": 0.0,
    "blur_probability": 0.0,
}


# Crop


@pytest.mark.parametrize("size", [1, 4, 7])
def test_the_whole_image_at_its_size_is_unchanged(size):
    image = RNG.random((size, size, 3), np.float32)
    np.testing.assert_array_equal(crop_and_resize(image, np.array([0, 0, size, size]), size=size), image)


def test_a_box_of_the_output_size_is_cut_out():
    quarter = crop_and_resize(NUMBERED, np.array([1, 2, 2, 2]), size=2)
    np.testing.assert_array_equal(quarter[..., 0], [[6, 7], [10, 11]])


def test_shrinking_is_antialiased():
    row = np.float32([[0, 0, 0, 7]] * 4)[..., None]
    shrunk = crop_and_resize(row, np.array([0, 0, 4, 4]), size=2)
    np.testing.assert_allclose(shrunk[0, :, 0], [0, 3], atol=1e-6)  # weights 3/7, 3/7, 1/7 from the nearer end


@pytest.mark.parametrize("box", [(0, 0, 5, 4), (1, 0, 3, 2), (2, 1, 1, 3), (0, 2, 5, 1)])
@pytest.mark.parametrize("size", [2, 6])
def test_resizing_matches_pil(box, size):
    top, left, height, width = box
    region = (left, top, left + width, top + height)
    expected = Image.fromarray(GRAY[..., 0]).resize((size, size), Image.Resampling.BILINEAR, box=region)
    actual = crop_and_resize(GRAY, np.array(box), size=size)
    np.testing.assert_allclose(actual[..., 0], np.asarray(expected), atol=1e-5)


def torchvision_box(rng, height, width, scale, ratio):
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
            return top, left, box_height, box_width
    raise AssertionError("these settings always fit in 10 attempts")


@functools.cache
def random_boxes(height, width, scale, ratio):
    box_fn = functools.partial(augment.random_box, height=height, width=width, scale=scale, ratio=ratio)
    return np.asarray(jax.jit(jax.vmap(box_fn))(KEYS))


def test_boxes_have_the_distribution_of_torchvision():
    settings = (32, 32, (0.2, 1.0), (3 / 4, 4 / 3))
    rng = np.random.default_rng(0)
    expected = np.array([torchvision_box(rng, *settings) for _ in range(len(KEYS))])
    actual = random_boxes(*settings)
    assert actual.dtype == np.int32
    for side in range(4):  # top, left, height, width
        deciles = [np.quantile(boxes[:, side], np.linspace(0.1, 0.9, 9)) for boxes in (actual, expected)]
        np.testing.assert_allclose(deciles[0], deciles[1], atol=1)
        assert abs(actual[:, side].mean() - expected[:, side].mean()) < 0.4
    shares = [boxes[:, 2] * boxes[:, 3] / 1024 for boxes in (actual, expected)]
    np.testing.assert_allclose(
        np.quantile(shares[0], [0.1, 0.5, 0.9]), np.quantile(shares[1], [0.1, 0.5, 0.9]), atol=0.03
    )


def test_boxes_respect_area_ratio_and_image():
    top, left, height, width = random_boxes(32, 32, (0.2, 1.0), (3 / 4, 4 / 3)).T
    assert (min(top), min(left), min(height), min(width)) >= (0, 0, 1, 1)
    assert max(top + height) == max(left + width) == 32
    shares, ratios = height * width / 1024, width / height
    assert 0.18 < min(shares) < 0.22 and max(shares) > 0.95
    assert 0.70 < min(ratios) < 0.76 and 1.31 < max(ratios) < 1.43


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(8, 32, (0, 10, 8, 11)), (32, 8, (10, 0, 11, 8)), (1, 1, (0, 0, 1, 1)), (8, 8, (0, 0, 8, 8))],
    ids=["wide", "tall", "one pixel", "square"],
)
def test_when_no_box_fits_the_largest_centered_box_is_used(height, width, box):
    # An area of 1 with a ratio of 3/4 or 4/3 fits none of these; the square allows its own ratio as fallback.
    assert augment._fallback_size(height, width, (3 / 4, 4 / 3)) == box[2:]
    scale = (1.0, 1.0) if height != width else (1e-4, 1e-4)
    drawn = augment.random_box(KEYS[0], height, width, scale=scale, ratio=(3 / 4, 4 / 3))
    assert tuple(drawn.tolist()) == box


def test_a_crop_of_everything_is_the_image():
    crop = augment.random_resized_crop(KEYS[0], NUMBERED, size=4, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(crop, NUMBERED)


# Flip and gray


def test_flip():
    np.testing.assert_array_equal(augment.random_flip(KEYS[0], COLORED, probability=1.0), COLORED[:, ::-1])
    np.testing.assert_array_equal(augment.random_flip(KEYS[0], COLORED, probability=0), COLORED)
    flipped = jax.vmap(lambda key: augment.random_flip(key, NUMBERED, probability=0.3)[0, 0, 0])(KEYS)
    assert set(flipped.tolist()) == {0.0, 3.0}
    assert np.mean(flipped == 3) == pytest.approx(0.3, abs=0.03)


def test_gray():
    gray = augment.random_gray(KEYS[0], np.float32([[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]), probability=1.0)
    np.testing.assert_allclose(gray, [[[0.2989] * 3, [0.587] * 3, [0.114] * 3]], rtol=1e-6)
    np.testing.assert_array_equal(augment.random_gray(KEYS[0], COLORED, probability=0.0), COLORED)
    np.testing.assert_array_equal(augment.random_gray(KEYS[0], GRAY, probability=1.0), GRAY)
    values = jax.vmap(lambda key: augment.random_gray(key, np.float32([[[1, 0, 0]]]), probability=0.2)[0, 0, 0])(KEYS)
    assert np.mean(values < 1) == pytest.approx(0.2, abs=0.03)


# Color


def change(order=(BRIGHTNESS, CONTRAST, SATURATION), factors=(1, 1, 1), hue_shift=None, hue_place=0):
    hue_shift = None if hue_shift is None else jnp.float32(hue_shift)
    return ColorChange(jnp.float32(factors), jnp.int32(order), hue_shift, jnp.int32(hue_place))


def test_brightness_multiplies_and_clips():
    image = np.float32([[[0.2, 0.4, 0.6]]])
    np.testing.assert_allclose(adjust_colors(image, change([BRIGHTNESS], (2, 9, 9))), [[[0.4, 0.8, 1.0]]], rtol=1e-6)


def test_contrast_blends_with_the_mean_gray_of_the_image():
    image = np.float32([[[0.2], [0.6]]])
    np.testing.assert_allclose(adjust_colors(image, change([CONTRAST], (9, 2, 9))), [[[0.0], [0.8]]], atol=1e-6)
    np.testing.assert_allclose(adjust_colors(image, change([CONTRAST], (9, 0, 9))), [[[0.4], [0.4]]], rtol=1e-6)
    red_and_green = np.float32([[[1, 0, 0], [0, 1, 0]]])
    flat = adjust_colors(red_and_green, change([CONTRAST], (9, 0, 9)))
    np.testing.assert_allclose(flat, np.full((1, 2, 3), (0.2989 + 0.587) / 2), rtol=1e-6)


def test_saturation_blends_with_the_gray_of_the_pixel():
    red = np.float32([[[0.5, 0, 0]]])
    np.testing.assert_allclose(
        adjust_colors(red, change([SATURATION], (9, 9, 0))), np.full((1, 1, 3), 0.14945), rtol=1e-6
    )
    more = adjust_colors(red, change([SATURATION], (9, 9, 1.5)))
    np.testing.assert_allclose(more, [[[0.675275, 0, 0]]], rtol=1e-5)


def test_a_hue_shift_of_a_third_turns_red_into_green():
    turned = adjust_colors(np.float32([[[1, 0, 0]]]), change([], hue_shift=1 / 3))
    np.testing.assert_allclose(turned, [[[0, 1, 0]]], atol=1e-6)


def naive_blend(image, other, factor):
    return np.clip(factor * image + (1 - factor) * other, 0, 1)


def naive_gray(image):
    return (image @ [0.2989, 0.587, 0.114])[..., None]


def naive_hue(image, shift):
    turned = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*image[place])
        turned[place] = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    return turned


NAIVE = {
    BRIGHTNESS: lambda image, factor: naive_blend(image, 0, factor),
    CONTRAST: lambda image, factor: naive_blend(image, naive_gray(image).mean(), factor),
    SATURATION: lambda image, factor: naive_blend(image, naive_gray(image), factor),
    "hue": naive_hue,
}


def test_all_24_orders_match_torchvision():
    amounts = {BRIGHTNESS: 1.35, CONTRAST: 1.4, SATURATION: 0.6, "hue": 0.1}
    orders = list(itertools.permutations(amounts))
    expected = []
    for order in orders:
        image = COLORED.astype(np.float64)
        for operation in order:
            image = NAIVE[operation](image, amounts[operation])
        expected.append(image)
    blends = jnp.int32([[operation for operation in order if operation != "hue"] for order in orders])
    places = jnp.int32([order.index("hue") for order in orders])
    changes = ColorChange(jnp.float32([1.35, 1.4, 0.6]), blends, jnp.float32(0.1), places)
    axes = ColorChange(factors=None, order=0, hue_shift=None, hue_place=0)
    actual = jax.vmap(adjust_colors, in_axes=(None, axes))(COLORED, changes)
    np.testing.assert_allclose(actual, expected, atol=2e-6)
    assert len({image.tobytes() for image in np.round(expected, 6)}) > 12  # the order matters


@functools.cache
def random_changes(brightness, contrast, saturation, hue, probability=1.0):
    change_fn = functools.partial(
        augment.random_color_change,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        probability=probability,
    )
    return jax.device_get(jax.jit(jax.vmap(change_fn))(KEYS))


def test_changes_have_the_distribution_of_torchvision():
    applied, drawn = random_changes(0.4, 1.5, 0.2, 0.1, probability=0.8)
    assert applied.mean() == pytest.approx(0.8, abs=0.03)
    for column, (low, high) in enumerate([(0.6, 1.4), (0, 2.5), (0.8, 1.2)]):
        factors = drawn.factors[:, column]
        assert low <= factors.min() < low + 0.01 and high - 0.01 < factors.max() <= high
        assert factors.mean() == pytest.approx((low + high) / 2, abs=0.05)
    assert -0.1 <= drawn.hue_shift.min() < -0.099 and 0.099 < drawn.hue_shift.max() <= 0.1
    orders, counts = np.unique(np.column_stack([drawn.order, drawn.hue_place]), axis=0, return_counts=True)
    assert len(orders) == 24
    assert counts.min() > 120 and counts.max() < 230  # 4096 / 24 = 171, standard deviation 13


def test_strength_0_disables_an_operation():
    _, drawn = random_changes(0.4, 0, 0.2, 0)
    assert drawn.hue_shift is None
    assert {tuple(order) for order in drawn.order.tolist()} == {(BRIGHTNESS, SATURATION), (SATURATION, BRIGHTNESS)}


def test_one_channel_has_no_saturation_and_no_hue():
    strengths = {"brightness": 0, "contrast": 0, "saturation": 0.9, "hue": 0.5}
    np.testing.assert_array_equal(color_jitter(KEYS[0], GRAY, **strengths), GRAY)
    assert np.abs(color_jitter(KEYS[0], COLORED, **strengths) - COLORED).max() > 0.05


def test_jitter_stays_in_range_and_may_leave_an_image_unchanged():
    strengths = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    jitter_fn = functools.partial(augment.color_jitter, image=COLORED, **strengths, probability=0.5)
    jittered = np.asarray(jax.jit(jax.vmap(jitter_fn))(KEYS[:256]))
    assert jittered.dtype == np.float32
    assert jittered.min() >= 0 and jittered.max() <= 1
    unchanged = (jittered == COLORED).all(axis=(1, 2, 3)).mean()
    assert unchanged == pytest.approx(0.5, abs=0.1)


# Blur


def high_frequencies(image):
    return np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()


def test_blur_removes_high_frequencies_and_keeps_the_mean():
    image = RNG.random((24, 20, 3), np.float32)
    roughness = [high_frequencies(image)]
    for sigma in (0.5, 1.0, 2.0):
        blurred = np.asarray(gaussian_blur(image, sigma, radius=6))
        assert blurred.shape == image.shape
        np.testing.assert_allclose(blurred.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=0.01)
        roughness.append(high_frequencies(blurred))
    assert roughness[1] < 0.75 * roughness[0] and roughness[2] < 0.6 * roughness[1] and roughness[3] < roughness[2]
    np.testing.assert_allclose(gaussian_blur(image, 1e-3, radius=2), image, atol=1e-6)
    np.testing.assert_allclose(gaussian_blur(np.full_like(image, 0.3), 1.5, radius=3), 0.3, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.4, 1.7])
def test_blur_matches_dm_pix_with_reflected_borders(sigma):
    image = RNG.random((9, 7, 3), np.float32)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    expected = dm_pix.gaussian_blur(padded, sigma, 7, padding="VALID")
    np.testing.assert_allclose(gaussian_blur(image, sigma, radius=3), expected, atol=1e-6)


def test_a_blurred_line_is_a_gaussian():
    line = np.zeros((1, 7, 1), np.float32)
    line[0, 3] = 1
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 0.8) ** 2)
    blurred = gaussian_blur(line, 0.8, radius=2)[0, :, 0]
    np.testing.assert_allclose(blurred, [0, *weights / weights.sum(), 0], atol=1e-6)


def test_the_width_of_the_blur_scales_from_224_pixels():
    image = RNG.random((28, 28, 1), np.float32)
    blurred = augment.random_blur(KEYS[0], image, sigma=(8.0, 8.0), probability=1.0)
    np.testing.assert_allclose(blurred, gaussian_blur(image, 1.0, radius=3), atol=1e-6)


def test_blur_has_its_probability():
    image = RNG.random((4, 4, 1), np.float32)
    blur_fn = functools.partial(augment.random_blur, image=image, sigma=(50.0, 60.0), probability=0.3)
    blurred = np.asarray(jax.jit(jax.vmap(blur_fn))(KEYS))
    assert (blurred != image).any(axis=(1, 2, 3)).mean() == pytest.approx(0.3, abs=0.03)


# Cutout


def test_a_square_is_cut_out_around_a_pixel_of_the_image():
    image, fill = np.zeros((6, 6, 2), np.float32), np.float32([0.25, 1.0])
    cut_fn = functools.partial(augment.random_cutout, image=image, size=0.5, fill=fill)
    cut = np.asarray(jax.jit(jax.vmap(cut_fn))(KEYS))
    hidden = cut[..., 1] == 1
    np.testing.assert_array_equal(cut, hidden[..., None] * fill)
    covered = {(image.any(axis=1).sum(), image.any(axis=0).sum()) for image in hidden}
    assert covered == {(height, width) for height in (2, 3) for width in (2, 3)}  # a side of 3, clipped by the border
    assert all(image.sum() == image.any(axis=0).sum() * image.any(axis=1).sum() for image in hidden)  # a rectangle
    assert len({image.tobytes() for image in hidden}) == 36


@pytest.mark.parametrize(("size", "image_size"), [(0.5, 32), (0.25, 8), (1.0, 8)])
def test_cutout_covers_the_expected_share(size, image_size):
    side = int(size * image_size)
    middles = np.arange(image_size)
    ends = np.minimum(middles - side // 2 + side, image_size), np.maximum(middles - side // 2, 0)
    expected = (np.mean(ends[0] - ends[1]) / image_size) ** 2
    image, fill = np.zeros((image_size, image_size, 1), np.float32), np.float32([1.0])
    cut_fn = functools.partial(augment.random_cutout, image=image, size=size, fill=fill)
    assert jax.jit(jax.vmap(cut_fn))(KEYS[:1024]).mean() == pytest.approx(expected, abs=0.02)


def test_no_cutout():
    np.testing.assert_array_equal(augment.random_cutout(KEYS[0], GRAY, size=0, fill=np.float32([1.0])), GRAY)


# The whole policy


def test_normalize():
    pixels = np.uint8([0, 51, 255]).reshape(1, 1, 1, 3)
    expected = np.float32([-2.5, (0.2 - 0.4) / 0.25, (1 - 0.3) / 0.3]).reshape(1, 1, 1, 3)
    normalized = augment.normalize(pixels, MEAN, STD)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, expected, rtol=1e-6)
    np.testing.assert_allclose(augment.normalize(np.float32(pixels / 255), MEAN, STD), expected, rtol=1e-6)


@functools.cache
def full_augment_fn(policy, channels=3):
    """The compiled augment_fn; for one channel, with the first mean only."""
    statistics = {"mean": MEAN[:channels], "std": STD[:channels]}
    return jax.jit(augment.build_augment_fn(**SETTINGS | statistics | {"policy": policy}))


every_policy = pytest.mark.parametrize("policy", augment.POLICIES)
random_policies = pytest.mark.parametrize("policy", [policy for policy in augment.POLICIES if policy != "none"])


@random_policies
def test_views_differ_by_view_and_image_and_are_reproducible_from_the_key(policy):
    keys = augment.per_image_keys(jax.random.key(3), 0, 8)
    images = np.repeat(IMAGES[:1], 8, axis=0)
    views = np.asarray(full_augment_fn(policy)(keys, images))
    assert views.shape == (8, 2, 8, 8, 3)
    assert views.dtype == np.float32
    assert np.isfinite(views).all()
    assert len({view.tobytes() for view in views.reshape(16, -1)}) == 16
    np.testing.assert_array_equal(views, full_augment_fn(policy)(keys, images))


@pytest.mark.parametrize("policy", ["simclr", "auto", "cutout"])
def test_one_channel(policy):
    views = full_augment_fn(policy, channels=1)(KEYS[:4], IMAGES[:4, ..., :1])
    assert views.shape == (4, 2, 8, 8, 1)
    pixels = views * STD[0] + MEAN[0]
    assert (pixels > -1e-5).all() and (pixels < 1 + 1e-5).all()


def test_a_key_depends_on_the_index_in_the_global_batch():
    keys = augment.per_image_keys(jax.random.key(3), 0, 8)
    assert (augment.per_image_keys(jax.random.key(3), 4, 4) == keys[4:]).all()
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 8


@every_policy
def test_views_are_the_same_on_one_and_on_eight_devices(policy):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    augment_fn = augment.build_augment_fn(**SETTINGS | {"policy": policy})

    def local(key, images):
        first_index = jax.lax.axis_index("data") * images.shape[0]
        return augment_fn(augment.per_image_keys(key, first_index, images.shape[0]), images)

    spread, everywhere = PartitionSpec("data"), PartitionSpec()
    sharded = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(everywhere, spread), out_specs=spread))
    key = jax.random.key(5)
    expected = full_augment_fn(policy)(augment.per_image_keys(key, 0, 8), IMAGES)
    np.testing.assert_allclose(sharded(key, IMAGES), expected, atol=1e-5)


@every_policy
def test_views_are_the_same_in_one_and_in_two_batches(policy):
    views = full_augment_fn(policy)(KEYS[:8], IMAGES)
    halves = [full_augment_fn(policy)(KEYS[:8][half], IMAGES[half]) for half in (slice(4), slice(4, 8))]
    np.testing.assert_allclose(np.concatenate(halves), views, atol=1e-5)


@pytest.mark.parametrize("num_views", [1, 3])
def test_policy_none_only_normalizes(num_views):
    augment_fn = augment.build_augment_fn(**SETTINGS | {"policy": "none", "num_views": num_views})
    views = jax.jit(augment_fn)(KEYS[:8], IMAGES)
    expected = augment.normalize(IMAGES, MEAN, STD)
    np.testing.assert_allclose(views, np.repeat(expected[:, None], num_views, axis=1), atol=1e-6)


def test_policy_none_resizes_to_the_image_size():
    augment_fn = augment.build_augment_fn(**SETTINGS | {"policy": "none", "image_size": 4})
    views = jax.jit(augment_fn)(KEYS[:8], IMAGES)
    assert views.shape == (8, 2, 4, 4, 3)
    halved = [np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BILINEAR)) for image in IMAGES]
    np.testing.assert_allclose(views[:, 0], augment.normalize(np.stack(halved), MEAN, STD), atol=0.02)


def test_cutout_fills_with_the_mean():
    augment_fn = augment.build_augment_fn(**SETTINGS | OFF | {"policy": "cutout", "num_views": 1})
    views = np.asarray(jax.jit(augment_fn)(KEYS[:8], IMAGES)[:, 0])
    is_hidden = np.isclose(views, augment.normalize(IMAGES, MEAN, STD), atol=1e-6).all(axis=-1) == 0
    np.testing.assert_allclose(views[is_hidden], 0, atol=1e-6)
    assert is_hidden.any(axis=(1, 2)).all()


@every_policy
def test_cutout_is_added_to_any_policy(policy):
    augment_fn = augment.build_augment_fn(**SETTINGS | OFF | {"policy": policy, "cutout_size": 1.0, "num_views": 1})
    views = np.asarray(jax.jit(augment_fn)(KEYS[:8], IMAGES)[:, 0])
    is_hidden = np.isclose(views, 0, atol=1e-6).all(axis=-1)
    assert (
        is_hidden.mean(axis=(1, 2)) >= 0.25
    ).all()  # of a square as large as the image, a quarter at least is inside


@pytest.mark.parametrize(
    ("auto_policy", "dataset_name", "image_size", "chosen"),
    [
        ("auto", "", 32, "cifar10"),
        ("auto", "tfds:fashion_mnist", 28, "cifar10"),
        ("auto", "tfds:stl10", 64, "cifar10"),
        ("auto", "tfds:imagenette", 65, "imagenet"),
        ("auto", "tfds:SVHN_cropped", 32, "svhn"),
        ("imagenet", "tfds:svhn_cropped", 32, "imagenet"),
    ],
)
def test_the_auto_policy_fits_the_data_set(auto_policy, dataset_name, image_size, chosen):
    assert augment.choose_auto_policy(auto_policy, dataset_name, image_size) == chosen


def test_the_name_of_the_data_set_reaches_auto_augment():
    settings = SETTINGS | {"policy": "auto", "dataset_name": "tfds:svhn_cropped"}
    views = jax.jit(augment.build_augment_fn(**settings))(KEYS[:8], IMAGES)
    assert not np.allclose(views, full_augment_fn("auto")(KEYS[:8], IMAGES))


def test_all_transforms_disabled_give_the_normalized_image():
    augment_fn = augment.build_augment_fn(**SETTINGS | OFF | {"num_views": 1})
    views = jax.jit(augment_fn)(KEYS[:8], IMAGES)
    np.testing.assert_allclose(views[:, 0], augment.normalize(IMAGES, MEAN, STD), atol=1e-6)


def test_a_single_pixel_of_one_channel():
    settings = SETTINGS | {"image_size": 1, "mean": np.float32([0.0]), "std": np.float32([1.0])}
    views = jax.jit(augment.build_augment_fn(**settings))(KEYS[:1], np.full((1, 1, 1, 1), 102, np.uint8))
    assert views.shape == (1, 2, 1, 1, 1)
    assert (views >= 0.4 * 0.6 - 1e-6).all() and (views <= 0.4 * 1.4 + 1e-6).all()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("num_views", 0, "a number from 1"),
        ("flip_probability", 1.5, "a number from 0 to 1"),
        ("jitter_probability", -0.1, "a number from 0 to 1"),
        ("gray_probability", float("nan"), "a number from 0 to 1"),
        ("brightness", -1, "a number from 0"),
        ("hue", 0.6, "a number from 0 to 0.5"),
        ("policy", "autoaugment", "simclr, auto, rand, cutout, none"),
        ("auto_policy", "cifar100", "auto, cifar10, svhn, imagenet"),
        ("blur_probability", 2, "a number from 0 to 1"),
        ("blur_sigma", (0.0, 2.0), "two numbers above 0, the smaller first"),
        ("rand_num_operations", -1, "a number from 0"),
        ("rand_magnitude", 31, "a number from 0 to 30"),
        ("cutout_size", 1.1, "a number from 0 to 1"),
        ("crop_scale", (0.0, 1.0), "two numbers above 0, the smaller first, up to 1"),
        ("crop_scale", (0.5, 1.1), "two numbers above 0, the smaller first, up to 1"),
        ("crop_ratio", (2.0, 1.0), "two numbers above 0, the smaller first"),
        ("crop_ratio", (1.0,), "two numbers above 0, the smaller first"),
    ],
)
def test_settings_out_of_range_are_an_error(field, value, allowed):
    with pytest.raises(UserError) as error:
        augment.build_augment_fn(**SETTINGS | {field: value})
    assert str(error.value) == f"augment.{field} is {value!r}; allowed: {allowed}"
