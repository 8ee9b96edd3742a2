"""Images and label distributions are mixed with the same weights, as in the authors' code, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.errors import UserError
from gensupcon_jax.views import mixing

KEY = jax.random.key(0)
NUM, SIZE, BLOCK = 32, 8, 8
SETTINGS = {"kind": "mixup_cutmix", "alpha": 1.0, "per": "batch", "views": "independent", "block": BLOCK}


def numbered(num=NUM, num_views=2, size=SIZE):
    """Image i has the value i + 1 everywhere and its own class, so that the result shows what was mixed."""
    images = np.broadcast_to(
        np.arange(1, num + 1, dtype=np.float32)[:, None, None, None, None], (num, num_views, size, size, 1)
    )
    return np.array(images), np.eye(num, dtype=np.float32)


@functools.cache
def mix_fn(**settings):
    # Jitted: without it the tests took three times as long, nearly all of it compilation.
    return jax.jit(mixing.build_mix_fn(**SETTINGS | settings))


@functools.cache
def mixed(key_number=0, **settings):
    results = mix_fn(**settings)(jax.random.key(key_number), *numbered(), first_index=0)
    return tuple(np.asarray(result) for result in results)


def own_and_other(labels):
    """Weight and partner of each view; the partner is the image itself where nothing was mixed in."""
    own = np.diagonal(labels, axis1=0, axis2=2).T
    others = labels.copy()
    others[np.arange(len(labels)), :, np.arange(len(labels))] = 0
    places = np.arange(len(labels))[:, None]
    return own, np.where(others.max(axis=2) > 0, others.argmax(axis=2), places)


# The box and lambda


def box_kept(mix_lambda, row, column, size):
    return mixing.cutmix_kept(jnp.float32(mix_lambda), jnp.int32(row), jnp.int32(column), size, size)


def test_the_sides_of_the_box_are_the_root_of_one_minus_lambda():
    kept = box_kept(0.75, 2, 1, 4)  # side 4 * sqrt(0.25) = 2
    np.testing.assert_array_equal(kept.pixels, [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert kept.share == np.float32(12 / 16)


def test_a_box_beyond_the_border_is_clipped_and_the_share_counted():
    kept = box_kept(0.75, 0, 0, 4)
    np.testing.assert_array_equal(kept.pixels, [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert kept.share == np.float32(15 / 16)


@pytest.mark.parametrize(("mix_lambda", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 1 - 16 / 64)])
def test_centered_boxes_of_8x8(mix_lambda, share):
    # lambda 0.5: side int(8 * 0.707) = 5, half 2: 4 x 4 pixels, as in the CutMix authors' code.
    kept = box_kept(mix_lambda, 4, 4, 8)
    assert kept.share == np.float32(share) == kept.pixels.mean()


def authors_box(mix_lambda, row, column, height, width):
    """rand_bbox of the CutMix authors, with their draws as arguments."""
    ratio = np.sqrt(1.0 - mix_lambda)
    cut_height, cut_width = int(height * ratio), int(width * ratio)
    top, bottom = np.clip([row - cut_height // 2, row + cut_height // 2], 0, height)
    left, right = np.clip([column - cut_width // 2, column + cut_width // 2], 0, width)
    return top, bottom, left, right


def test_boxes_match_the_authors_code():
    rng = np.random.default_rng(0)
    lambdas, rows, columns = rng.random(200, np.float32), rng.integers(0, 7, 200), rng.integers(0, 9, 200)
    kept = mixing.cutmix_kept(lambdas, rows, columns, 7, 9)
    for index in range(200):
        top, bottom, left, right = authors_box(lambdas[index], rows[index], columns[index], 7, 9)
        expected = np.ones((7, 9))
        expected[top:bottom, left:right] = 0
        np.testing.assert_array_equal(kept.pixels[index], expected)
        assert kept.share[index] == pytest.approx((63 - (bottom - top) * (right - left)) / 63, rel=2e-7)


def test_mixup_has_the_same_weight_for_every_pixel():
    kept = mixing.mixup_kept(np.float32([0.25, 1.0]), 1, 2)
    np.testing.assert_array_equal(kept.pixels, [[[0.25, 0.25]], [[1, 1]]])
    np.testing.assert_array_equal(kept.share, [0.25, 1])


@functools.cache
def lambdas(alpha):
    kept = mixing._draw_kept(KEY, shape=(2000,), kind="mixup", alpha=alpha, height=1, width=1)
    return np.asarray(kept.share)


@pytest.mark.parametrize("alpha", [1e-30, 0.01, 0.5, 1, 1e6])
def test_lambda_is_a_beta_draw(alpha):
    draws = lambdas(alpha)
    assert draws.dtype == np.float32
    assert np.isfinite(draws).all() and draws.min() >= 0 and draws.max() <= 1
    assert draws.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.1)


# Partners


def test_none_changes_no_image_and_repeats_the_labels_per_view():
    images, labels = mixed(kind="none", block=5)
    np.testing.assert_array_equal(images, numbered()[0])
    np.testing.assert_array_equal(labels, np.repeat(np.eye(NUM)[:, None], 2, axis=1))


ALL = pytest.mark.parametrize(
    ("kind", "per", "views"),
    [
        (kind, per, views)
        for kind in ("mixup", "cutmix", "mixup_cutmix")
        for per in mixing.PER
        for views in mixing.VIEWS
    ],
)


@ALL
def test_labels_are_mixed_like_the_pixels(kind, per, views):
    images, labels = mixed(kind=kind, per=per, views=views)
    assert (images.shape, labels.shape) == ((NUM, 2, SIZE, SIZE, 1), (NUM, 2, NUM))
    assert images.dtype == labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(images.mean(axis=(2, 3, 4)), labels @ np.arange(1, NUM + 1), rtol=1e-5)


@ALL
def test_partners_are_a_permutation_of_the_block(kind, per, views):
    _, labels = mixed(kind=kind, per="batch", views=views)
    own, partners = own_and_other(labels)
    for view in range(2):
        if own[:, view].min() == 1:  # the box may be empty
            continue
        for start in range(0, NUM, BLOCK):
            block = sorted(partners[start : start + BLOCK, view])
            assert block == list(range(start, start + BLOCK))


def test_blocks_and_steps_draw_their_own_permutations():
    orders = [own_and_other(mixed(key_number, kind="mixup", views="alike")[1])[1][:, 0] for key_number in (0, 1)]
    within = [order.reshape(-1, BLOCK) - np.arange(0, NUM, BLOCK)[:, None] for order in orders]
    assert len({tuple(block) for blocks in within for block in blocks.tolist()}) == 8


def test_per_batch_is_one_lambda_per_view_and_per_image_is_one_per_image():
    own, partners = own_and_other(mixed(kind="mixup")[1])
    for view in range(2):
        mixed_in = partners[:, view] != np.arange(NUM)
        assert len(np.unique(own[mixed_in, view])) == 1
    assert abs(own.min(axis=0)[0] - own.min(axis=0)[1]) > 1e-3
    own, partners = own_and_other(mixed(kind="mixup", per="image")[1])
    mixed_in = partners != np.arange(NUM)[:, None]
    assert len(np.unique(own[mixed_in])) == mixed_in.sum()


@pytest.mark.parametrize("per", mixing.PER)
def test_views_are_alike_or_not(per):
    images, labels = mixed(per=per, views="alike", kind="cutmix")
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    np.testing.assert_array_equal(labels[:, 0], labels[:, 1])
    images, _ = mixed(per=per, views="independent", kind="cutmix")
    assert (images[:, 0] != images[:, 1]).any()


def test_cutmix_replaces_whole_pixels_and_the_label_is_exactly_their_share():
    images, labels = mixed(kind="cutmix", per="image")
    own, partners = own_and_other(labels)
    numbers = np.arange(1, NUM + 1, dtype=np.float32)
    is_own = images[..., 0] == numbers[:, None, None, None]
    is_partner = images[..., 0] == numbers[partners][..., None, None]
    assert (is_own | is_partner).all()
    mixed_in = partners != np.arange(NUM)[:, None]
    np.testing.assert_array_equal(is_own.mean(axis=(2, 3))[mixed_in], own[mixed_in])
    # Per batch the box is at the same place in all images, per image it is not.
    assert len(np.unique(is_own[mixed_in], axis=0)) > NUM / 2
    images, labels = mixed(kind="cutmix", key_number=2)
    is_own = images[:, 0, ..., 0] == numbers[:, None, None]
    holes = is_own[own_and_other(labels)[1][:, 0] != np.arange(NUM)]
    assert len(np.unique(holes, axis=0)) == 1


def test_the_coin_is_fair():
    draw_fn = functools.partial(mixing._draw_kept, shape=(4000,), kind="mixup_cutmix", alpha=1.0, height=4, width=4)
    pixels = np.asarray(draw_fn(KEY).pixels)
    is_mixup = ((pixels > 0) & (pixels < 1)).any(axis=(1, 2))
    assert is_mixup.mean() == pytest.approx(0.5, abs=0.03)


def test_the_center_is_uniform():
    kept = mixing._draw_kept(KEY, shape=(8000,), kind="cutmix", alpha=1e6, height=4, width=4)  # side 2, lambda 0.5
    covered = 1 - np.asarray(kept.pixels).mean(axis=0)
    one_axis = np.array([2, 2, 2, 1]) / 4  # pixel i lies in [center - 1, center + 1) for the centers i and i + 1
    np.testing.assert_allclose(covered, np.outer(one_axis, one_axis), atol=0.03)


# The same on any number of devices


@ALL
def test_one_device_with_32_images_equals_four_with_8(kind, per, views):
    settings = {"kind": kind, "per": per, "views": views}
    images, labels = numbered()
    whole = mixed(**settings)
    for start in range(0, NUM, 8):
        local = slice(start, start + 8)
        part = mix_fn(**settings)(KEY, images[local], labels[local], first_index=start)
        for ours, expected in zip(part, whole, strict=True):
            np.testing.assert_allclose(ours, expected[local], rtol=1e-6)


@pytest.mark.parametrize(("per", "alpha"), [("batch", 1.0), ("image", 0.5)])
def test_shard_map_gives_the_same_as_one_device(per, alpha):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    local_mix_fn = mixing.build_mix_fn(**SETTINGS | {"per": per, "alpha": alpha})

    def local(key, images, labels):
        return local_mix_fn(key, images, labels, first_index=jax.lax.axis_index("data") * images.shape[0])

    spread, everywhere = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(everywhere, spread, spread), out_specs=spread)
    for ours, expected in zip(jax.jit(sharded)(KEY, *numbered()), mixed(per=per, alpha=alpha), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


# Degenerate inputs and errors


@pytest.mark.parametrize("kind", mixing.KINDS)
def test_two_equal_images_of_one_pixel_stay_what_they_are(kind):
    images, labels = np.full((2, 1, 1, 1, 1), 0.5, np.float32), np.float32([[0.25, 0.75]] * 2)
    mixed_images, mixed_labels = mix_fn(kind=kind, block=2)(KEY, images, labels, first_index=0)
    np.testing.assert_allclose(mixed_images, images, rtol=1e-6)
    np.testing.assert_allclose(mixed_labels, [[[0.25, 0.75]]] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "cutmx"}, "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix"),
        ({"per": "view"}, "mix.per is 'view'; allowed: batch, image"),
        ({"views": "same"}, "mix.views is 'same'; allowed: independent, alike"),
        ({"alpha": 0.0}, "mix.alpha is 0.0; allowed: a number above 0"),
        ({"alpha": float("nan")}, "mix.alpha is nan; allowed: a number above 0"),
        ({"block": 0}, "mix.block is 0; allowed: an integer from 2"),
        ({"block": 1}, "mix.block is 1; allowed: an integer from 2"),
    ],
)
def test_settings_that_are_not_allowed_are_an_error_of_the_builder(settings, message):
    with pytest.raises(UserError) as error:
        mixing.build_mix_fn(**SETTINGS | settings)
    assert str(error.value) == message


def test_a_block_that_does_not_divide_is_an_error_that_lists_the_divisors():
    images, labels = numbered(12)
    with pytest.raises(UserError, match=r"mix.block is 8, .* 12 images per device; allowed: 2, 3, 4, 6, 12$"):
        mixing.build_mix_fn(**SETTINGS)(KEY, images, labels, first_index=0)


def test_one_image_per_device_has_no_partner():
    images, labels = numbered(1)
    with pytest.raises(
        UserError, match=r"does not divide the 1 images per device; allowed: none, as an image per device"
    ):
        mixing.build_mix_fn(**SETTINGS)(KEY, images, labels, first_index=0)


def test_a_first_index_inside_a_block_is_an_error():
    images, labels = numbered(8)
    with pytest.raises(UserError, match=r"first_index is 4; allowed: multiples of mix.block \(8\)"):
        mixing.build_mix_fn(**SETTINGS)(KEY, images, labels, first_index=4)
