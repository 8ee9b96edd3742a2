"""Operations match PIL, and AutoAugment and RandAugment draw them as in their papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_digits

from gensupcon_jax.views import policies
from gensupcon_jax.views.policies import Operation

RNG = np.random.default_rng(0)
DIGIT = np.uint8(np.kron(load_digits().images[3], np.ones((3, 3))) * 9 + 20)  # 24 x 24, few levels: 20 to 164
COLORED = np.uint8(RNG.normal([90, 130, 110], [25, 40, 15], (28, 20, 3)).clip(10, 250))
GRAY = RNG.integers(0, 256, (16, 24, 1), np.uint8)
FLAT = np.full((6, 6, 3), (7, 130, 255), np.uint8)
IMAGES = {"digit": DIGIT[..., None], "colored": COLORED, "gray": GRAY, "flat": FLAT}
KEYS = jax.random.split(jax.random.key(0), 4096)
GRAY_FILL = 128
TABLES = ("cifar10", "svhn", "imagenet")

every_image = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
apply_operation = jax.jit(policies.apply_operation)
auto_augment = jax.jit(policies.auto_augment, static_argnames="policy")
rand_augment = jax.jit(policies.rand_augment, static_argnames=("num_operations", "magnitude"))


def to_pil(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def from_pil(image):
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def applied(image, operation, strength=0.0):
    """The result of the operation on a uint8 image, in 0..255."""
    changed = apply_operation(np.float32(image / 255), jnp.int32(operation), jnp.float32(strength))
    assert changed.dtype == np.float32 and changed.min() >= 0 and changed.max() <= 1
    return np.asarray(changed) * 255


def levels(pixels):
    return np.uint8(np.round(pixels))


# Tones: equal to PIL, level by level


@every_image
def test_identity_changes_nothing(image):
    for strength in (-1, 0, 0.3, 1):
        np.testing.assert_array_equal(applied(image, Operation.IDENTITY, strength), np.float32(image / 255) * 255)


@every_image
@pytest.mark.parametrize(
    ("operation", "pil"), [(Operation.EQUALIZE, ImageOps.equalize), (Operation.INVERT, ImageOps.invert)]
)
def test_tones_match_pil(image, operation, pil):
    np.testing.assert_array_equal(levels(applied(image, operation)), from_pil(pil(to_pil(image))))


@pytest.mark.parametrize("size", [(4, 4), (16, 15), (16, 16), (17, 17), (32, 32)], ids=str)
@pytest.mark.parametrize("spread", [3, 60])
def test_equalize_matches_pil_for_any_number_of_pixels(size, spread):
    image = np.uint8(RNG.normal(120, spread, (*size, 1)).clip(0, 255))
    np.testing.assert_array_equal(
        levels(applied(image, Operation.EQUALIZE)), from_pil(ImageOps.equalize(to_pil(image)))
    )


@pytest.mark.parametrize(("low", "high"), [(0, 255), (100, 151), (30, 115), (7, 7)])
def test_auto_contrast_matches_pil(low, high):
    image = RNG.integers(low, high, (16, 24, 3), np.uint8, endpoint=True)
    expected = from_pil(ImageOps.autocontrast(to_pil(image)))
    np.testing.assert_array_equal(levels(applied(image, Operation.AUTO_CONTRAST)), expected)


def test_auto_contrast_is_at_most_one_level_from_pil():
    # PIL truncates level x scale + offset in float64: where that is whole, it may lose a level. Here integers are divided.
    differences = []
    for low, high in RNG.integers(0, 256, (40, 2)):
        image = np.uint8(np.linspace(low, high, 256).reshape(16, 16, 1))
        differences.append(
            levels(applied(image, Operation.AUTO_CONTRAST)) - np.int32(from_pil(ImageOps.autocontrast(to_pil(image))))
        )
    assert set(np.unique(differences)) <= {0, 1}
    assert np.mean(np.equal(differences, 0)) > 0.99


@every_image
def test_posterize_matches_pil(image):
    for strength, bits in ((0, 8), (0.25, 7), (-0.5, 6), (5 / 9, 6), (8 / 9, 4), (1, 4)):
        found = levels(applied(image, Operation.POSTERIZE, strength))
        np.testing.assert_array_equal(found, from_pil(ImageOps.posterize(to_pil(image), bits)), err_msg=f"{strength}")


@every_image
def test_solarize_matches_pil(image):
    for strength, threshold in ((0, 256), (0.5, 128), (-0.25, 192), (1, 0), (5 / 9, 114)):
        found = levels(applied(image, Operation.SOLARIZE, strength))
        np.testing.assert_array_equal(
            found, from_pil(ImageOps.solarize(to_pil(image), threshold)), err_msg=f"{strength}"
        )


# Enhancements: at most one level from PIL, which rounds intermediate images


@every_image
@pytest.mark.parametrize(
    ("operation", "pil"),
    [
        (Operation.CONTRAST, ImageEnhance.Contrast),
        (Operation.COLOR, ImageEnhance.Color),
        (Operation.BRIGHTNESS, ImageEnhance.Brightness),
        (Operation.SHARPNESS, ImageEnhance.Sharpness),
    ],
)
def test_enhancements_match_pil(image, operation, pil):
    for strength in (-1, -0.4, 0, 0.5, 1):
        expected = np.float32(from_pil(pil(to_pil(image)).enhance(1 + 0.9 * strength)))
        # PIL rounds the degenerate image (half a level x factor) and truncates the result (up to one level).
        found = applied(image, operation, strength)
        np.testing.assert_allclose(found, expected + 0.5, atol=1, err_msg=f"strength {strength}")


def test_color_does_not_change_one_channel():
    np.testing.assert_allclose(applied(GRAY, Operation.COLOR, -1), GRAY, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 1)], ids=str)
def test_tiny_images_work(shape):
    for operation in Operation:
        changed = applied(RNG.integers(0, 256, shape, np.uint8), operation, 0.7)
        assert changed.shape == shape and np.isfinite(changed).all(), operation


# Moves: the nearest pixel, as in PIL


def transformed(image, matrix):
    filled = (GRAY_FILL,) * image.shape[-1] if image.shape[-1] > 1 else GRAY_FILL
    pil = to_pil(image)
    return from_pil(pil.transform(pil.size, Image.Transform.AFFINE, matrix, fillcolor=filled))


def rotated(image, degrees):
    return from_pil(to_pil(image).rotate(degrees, fillcolor=(GRAY_FILL,) * 3 if image.shape[-1] == 3 else GRAY_FILL))


def assert_nearly_all_equal(actual, expected):
    assert np.mean(levels(actual) == expected) > 0.98


@every_image
@pytest.mark.parametrize("strength", [-1, -0.4, 0, 0.5, 1])
def test_moves_match_pil(image, strength):
    height, width, _ = image.shape
    right, down = int(150 / 331 * width * strength), int(150 / 331 * height * strength)
    shear = 0.3 * strength
    for operation, matrix in {
        Operation.SHEAR_X: (1, shear, 0, 0, 1, 0),
        Operation.SHEAR_Y: (1, 0, 0, shear, 1, 0),
        Operation.TRANSLATE_X: (1, 0, right, 0, 1, 0),
        Operation.TRANSLATE_Y: (1, 0, 0, 0, 1, down),
    }.items():
        assert_nearly_all_equal(applied(image, operation, strength), transformed(image, matrix))
    assert_nearly_all_equal(applied(image, Operation.ROTATE, strength), rotated(image, 30 * strength))


def test_translation_by_whole_pixels():
    row = np.uint8([[10, 20, 30, 40, 50]])[..., None]
    np.testing.assert_array_equal(
        levels(applied(row, Operation.TRANSLATE_X, 1.0))[0, :, 0], [30, 40, 50, GRAY_FILL, GRAY_FILL]
    )
    np.testing.assert_array_equal(
        levels(applied(row, Operation.TRANSLATE_X, -0.8))[0, :, 0], [GRAY_FILL, 10, 20, 30, 40]
    )


def test_operations_are_applied_in_order():
    steps = [(Operation.INVERT, 0.0), (Operation.SHEAR_X, 0.5), (Operation.BRIGHTNESS, -0.5)]
    expected = COLORED
    for operation, strength in steps:
        expected = applied(np.float32(expected), operation, strength)
    actual = policies.apply_in_turn(
        np.float32(COLORED / 255), *(jnp.array(column) for column in zip(*steps, strict=True))
    )
    np.testing.assert_allclose(actual * 255, expected, atol=1e-3)
    assert (levels(expected) != COLORED).mean() > 0.9


# AutoAugment


@functools.cache
def auto_draws(table):
    return jax.device_get(jax.jit(jax.vmap(functools.partial(policies.draw_auto, policy=table)))(KEYS))


@pytest.mark.parametrize("table", TABLES)
def test_tables_have_25_sub_policies_of_two_operations(table):
    operations, probabilities, numbers = np.moveaxis(np.array(policies.AUTO_TABLES[table]), -1, 0)
    assert operations.shape == (25, 2)
    assert set(operations.ravel()) <= set(Operation) - {Operation.IDENTITY}
    np.testing.assert_allclose(probabilities * 10 % 1, 0, atol=1e-9)
    assert probabilities.max() <= 1 and set(numbers.ravel()) <= set(range(10))


@pytest.mark.parametrize("table", TABLES)
def test_operations_are_drawn_with_the_frequencies_of_the_table(table):
    rows = np.array(policies.AUTO_TABLES[table])
    operations, strengths = auto_draws(table)
    for step in range(2):
        for operation in set(Operation) - {Operation.IDENTITY}:
            expected = (rows[:, step, 1] * (rows[:, step, 0] == operation)).sum() / 25
            assert np.mean(operations[:, step] == operation) == pytest.approx(expected, abs=0.02)
    assert np.abs(strengths).max() <= 1


def test_auto_augment_draws_the_levels_of_its_table():
    operations, strengths = (column.ravel() for column in auto_draws("cifar10"))

    def drawn(operation):
        return set(np.round(9 * strengths[operations == operation], 3))

    assert drawn(Operation.SHEAR_Y) == {-8, -7, 7, 8}
    assert drawn(Operation.ROTATE) == {-2, 2}
    assert drawn(Operation.CONTRAST) == {2 * 6 - 9, 2 * 7 - 9}  # factor 0.1 at level 0, 1.9 at level 9
    assert set(np.abs(9 * strengths[operations == Operation.SOLARIZE]).round(3)) == {2, 3, 5, 8}
    assert np.mean(strengths[operations == Operation.TRANSLATE_Y] > 0) == pytest.approx(0.5, abs=0.05)


def test_both_operations_are_of_one_sub_policy():
    operations, _ = auto_draws("svhn")
    allowed = {tuple(int(operation) for operation, _, _ in row) for row in policies.AUTO_TABLES["svhn"]}
    both = operations[(operations != Operation.IDENTITY).all(axis=1)]
    assert len(both) > 1000
    assert {tuple(row) for row in both.tolist()} <= allowed


# RandAugment


@functools.cache
def rand_draws(num_operations, magnitude):
    draw = functools.partial(policies.draw_rand, num_operations=num_operations, magnitude=magnitude)
    return jax.device_get(jax.jit(jax.vmap(draw))(KEYS))


@pytest.mark.parametrize("num_operations", [1, 2, 3])
def test_rand_augment_draws_14_operations_uniformly(num_operations):
    operations, strengths = rand_draws(num_operations, 9)
    assert operations.shape == strengths.shape == (4096, num_operations)
    drawn, counts = np.unique(operations, return_counts=True)
    assert list(drawn) == sorted(set(Operation) - {Operation.INVERT})
    np.testing.assert_allclose(counts / operations.size, 1 / 14, atol=0.015)
    assert set(np.round(strengths.ravel(), 6)) == {np.float32(-0.3), np.float32(0.3)}
    assert strengths.mean() == pytest.approx(0, abs=0.01)


def test_magnitude_30_is_full_strength_and_0_changes_only_auto_contrast_and_equalize():
    assert set(rand_draws(2, 30)[1].ravel()) == {-1.0, 1.0}
    image = np.float32(COLORED / 255)
    for operation in set(Operation) - {Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT}:
        np.testing.assert_allclose(apply_operation(image, jnp.int32(operation), jnp.float32(0)), image, atol=1e-6)


def test_zero_operations_leave_the_image_unchanged():
    image = np.float32(COLORED / 255)
    np.testing.assert_array_equal(policies.rand_augment(KEYS[0], image, num_operations=0, magnitude=9), image)


# Both


BOTH = {
    "auto": functools.partial(auto_augment, policy="cifar10"),
    "rand": functools.partial(rand_augment, num_operations=2, magnitude=9),
}


@pytest.mark.parametrize("augment_fn", BOTH.values(), ids=BOTH)
def test_policies_depend_only_on_the_key(augment_fn):
    image = np.float32(COLORED / 255)
    first = [np.asarray(augment_fn(key, image)) for key in KEYS[:12]]
    assert all(np.isfinite(changed).all() and changed.shape == image.shape for changed in first)
    assert len({changed.tobytes() for changed in first}) > 8
    np.testing.assert_array_equal(augment_fn(KEYS[0], image), first[0])
    np.testing.assert_allclose(jax.jit(jax.vmap(augment_fn, (0, None)))(KEYS[:12], image), first, atol=1e-6)
