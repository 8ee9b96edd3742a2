"""Labelled images: checked, split by class, and described."""

import numpy as np
import pytest

from gensupcon_jax import datasets
from gensupcon_jax.errors import UserError


@pytest.fixture(scope="module")
def digits():
    return datasets.digits()


def test_digits_are_cut_into_1077_180_and_540(digits):
    assert [len(split.images) for split in (digits.train, digits.validation, digits.test)] == [1077, 180, 540]
    assert digits.train.images.shape == (1077, 8, 8, 1)
    assert digits.train.images.dtype == np.uint8
    assert digits.num_classes == 10
    assert digits.class_names[3] == "3"


def test_no_digit_is_lost_or_doubled(digits):
    from sklearn.datasets import load_digits

    raw = np.round(load_digits().images * (255 / 16)).astype(np.uint8).reshape(1797, -1)
    cut = np.concatenate([split.images.reshape(-1, 64) for split in (digits.train, digits.validation, digits.test)])
    assert sorted(map(bytes, raw)) == sorted(map(bytes, cut))


def test_each_split_holds_each_class_in_its_share(digits):
    for split in (digits.train, digits.validation, digits.test):
        shares = split.labels.mean(axis=0)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_the_cut_is_the_same_every_time(digits):
    assert datasets.digits().description() == digits.description()


def test_mean_and_std_come_from_the_training_pixels(digits):
    mean, std = datasets.channel_statistics(digits.train.images)
    pixels = digits.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(std, [pixels.std()], rtol=1e-6)
    assert digits.description()["mean"] == [pytest.approx(pixels.mean())]


def test_statistics_by_channel():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[0, ..., 1] = 255
    images[..., 2] = 51
    mean, std = datasets.channel_statistics(images)
    np.testing.assert_allclose(mean, [0, 0.5, 0.2], atol=1e-6)
    np.testing.assert_allclose(std, [1, 0.5, 1], atol=1e-6)  # a flat channel is divided by 1, not by 0


def arrays(num=40, num_classes=4, size=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num, size, size, 3), np.uint8), np.arange(num) % num_classes


def test_arrays_with_class_numbers_become_a_dataset():
    dataset = datasets.from_arrays(*arrays())
    assert [len(split.images) for split in (dataset.train, dataset.validation, dataset.test)] == [28, 4, 8]
    assert (dataset.num_classes, dataset.image_size, dataset.num_channels) == (4, 6, 3)
    np.testing.assert_array_equal(dataset.test.labels.sum(axis=0), [2, 2, 2, 2])


def test_splits_that_are_given_are_kept():
    images, labels = arrays()
    dataset = datasets.from_arrays(images, labels, test=(images[:8], labels[:8]), validation=(images[:4], labels[:4]))
    assert len(dataset.train.images) == 40
    np.testing.assert_array_equal(dataset.test.images, images[:8])


def test_soft_labels_and_float_and_grey_images_are_taken():
    images, _ = arrays()
    labels = np.full((40, 2), 0.5)
    dataset = datasets.from_arrays(images[..., 0] / 255.0, labels, class_names=("cat", "dog"))
    assert dataset.train.images.shape == (28, 6, 6, 1)
    assert dataset.train.labels.dtype == np.float32
    assert dataset.class_names == ("cat", "dog")


def test_another_pixel_is_another_fingerprint():
    images, labels = arrays()
    first = datasets.from_arrays(images, labels).description()["fingerprint"]
    images[0, 0, 0, 0] ^= 1
    assert datasets.from_arrays(images, labels).description()["fingerprint"] != first


IMAGES, LABELS = arrays()
DISTRIBUTION = np.full((40, 4), 0.25)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:39], "train has 40 images and 39 labels; allowed: one label for each image"),
        (IMAGES, DISTRIBUTION * 2, "no distribution in 40 of 40 rows, first in row 0 (sum 2"),
        (IMAGES, DISTRIBUTION - [[1.0, -1.0, 0, 0]], "smallest -0.75"),
        (IMAGES, DISTRIBUTION * np.nan, "no distribution"),
        (IMAGES, DISTRIBUTION * 0, "no distribution"),
        (IMAGES, LABELS - 1, "labels lie in -1..2"),
        (IMAGES, LABELS + 0.5, "float64 class numbers"),
        (IMAGES[:0], LABELS[:0], "0 images"),
        (IMAGES[:, :4], LABELS, "images have shape (40, 4, 6, 3)"),
        (IMAGES[..., :2], LABELS, "1 or 3 channels"),
        (IMAGES.astype(np.int32), LABELS, "images are int32; allowed: uint8 in 0..255, or float in 0..1"),
        (IMAGES.astype(np.float32), LABELS, "float ones must lie in 0..1"),
        (IMAGES, LABELS * 0, "2 or more"),
        (IMAGES[:5], LABELS[:5], "hand over"),
    ],
)
def test_wrong_arrays_are_said_in_one_line(images, labels, message):
    with pytest.raises(UserError) as error:
        datasets.from_arrays(images, labels)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_say_what_is_allowed():
    with pytest.raises(UserError, match=r"dataset\.name is 'mnits'; allowed: digits"):
        datasets.load("mnits")
    with pytest.raises(UserError, match="from_arrays"):
        datasets.load("arrays")
