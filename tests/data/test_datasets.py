"""Labeled images: checked, split by class, and described."""

import json

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.channels import channel_statistics
from gensupcon_jax.data.splits import Split, one_hot
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


def test_no_digit_is_lost_or_duplicated(digits):
    from sklearn.datasets import load_digits

    raw = np.round(load_digits().images * (255 / 16)).astype(np.uint8).reshape(1797, -1)
    cut = np.concatenate([split.images.reshape(-1, 64) for split in (digits.train, digits.validation, digits.test)])
    assert sorted(map(bytes, raw)) == sorted(map(bytes, cut))


def test_the_splits_are_stratified_by_class(digits):
    for split in (digits.train, digits.validation, digits.test):
        shares = split.labels.mean(axis=0)
        assert shares.min() > 0.09
        assert shares.max() < 0.11


def test_the_cut_is_the_same_every_time(digits):
    assert datasets.digits().description() == digits.description()


def test_mean_and_std_are_those_of_the_training_pixels(digits):
    mean, std = channel_statistics(digits.train.images)
    pixels = digits.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(std, [pixels.std()], rtol=1e-6)
    assert digits.description()["mean"] == [pytest.approx(pixels.mean())]


def test_statistics_by_channel():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[0, ..., 1] = 255
    images[..., 2] = 51
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, [0, 0.5, 0.2], atol=1e-6)
    np.testing.assert_allclose(std, [1, 0.5, 1], atol=1e-6)  # a constant channel is divided by 1, not by 0


def arrays(num=40, num_classes=4, size=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num, size, size, 3), np.uint8), np.arange(num) % num_classes


def test_arrays_with_class_numbers_become_a_dataset():
    dataset = datasets.from_arrays(*arrays())
    assert [len(split.images) for split in (dataset.train, dataset.validation, dataset.test)] == [28, 4, 8]
    assert (dataset.num_classes, dataset.image_size, dataset.num_channels) == (4, 6, 3)
    np.testing.assert_array_equal(dataset.test.labels.sum(axis=0), [2, 2, 2, 2])


def test_given_splits_are_kept():
    images, labels = arrays()
    dataset = datasets.from_arrays(images, labels, test=(images[:8], labels[:8]), validation=(images[:4], labels[:4]))
    assert len(dataset.train.images) == 40
    np.testing.assert_array_equal(dataset.test.images, images[:8])


def test_soft_labels_and_float_and_gray_images_are_accepted():
    images, _ = arrays()
    labels = np.tile([[0.4, 0.6], [0.9, 0.1]], (20, 1))
    dataset = datasets.from_arrays(images[..., 0] / 255.0, labels, class_names=("cat", "dog"))
    assert dataset.train.images.shape == (28, 6, 6, 1)
    assert dataset.train.labels.dtype == np.float32
    assert dataset.class_names == ("cat", "dog")


def test_a_changed_pixel_changes_the_fingerprint():
    images, labels = arrays()
    first = datasets.from_arrays(images, labels).description()["fingerprint"]
    images[0, 0, 0, 0] ^= 1
    assert datasets.from_arrays(images, labels).description()["fingerprint"] != first


def test_names_from_an_array_are_plain_strings_and_may_name_classes_without_images():
    names = np.array(["a", "b", "c", "d", "e"])
    dataset = datasets.from_arrays(*arrays(), class_names=names)
    assert dataset.class_names == ("a", "b", "c", "d", "e")
    assert {type(name) for name in dataset.class_names} == {str}
    assert json.loads(json.dumps(dataset.description()))["class_names"] == list("abcde")
    np.testing.assert_array_equal(dataset.train.labels.sum(axis=0), [7, 7, 7, 7, 0])


def test_class_numbers_become_one_hot_rows():
    np.testing.assert_array_equal(one_hot(np.array([2, 0], np.uint8), 3), np.array([[0, 0, 1], [1, 0, 0]], np.float32))


def test_many_class_names_take_no_quadratic_memory():
    images, labels = arrays()
    names = [str(index) for index in range(60_000)]
    dataset = datasets.from_arrays(images[..., :1], labels, class_names=names)  # an identity matrix would be 14 GB
    assert dataset.train.labels.shape == (28, 60_000)


def test_lists_and_splits_with_labels_of_another_kind_are_accepted():
    images, labels = arrays()
    distributions = np.eye(4)[labels]
    dataset = datasets.from_arrays(list(images), labels.tolist(), test=[images[:8], distributions[:8].tolist()])
    assert [len(split.images) for split in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 8]
    np.testing.assert_array_equal(dataset.test.labels, distributions[:8])


def test_fewer_training_images_keep_the_share_of_each_class(digits):
    few = datasets.with_fewer_images(digits, 100)
    assert len(few.train.images) == 100
    assert few.train.labels.sum(axis=0).min() >= 9
    assert few.test is digits.test
    assert datasets.with_fewer_images(digits, 1077) is digits


@pytest.mark.parametrize("num_images", [0, 9, 1068, 1076, 1078])
def test_a_number_of_training_images_that_cannot_be_cut_is_an_error(digits, num_images):
    with pytest.raises(UserError) as error:
        datasets.with_fewer_images(digits, num_images)
    assert str(error.value) == (
        f"dataset.train_images is {num_images}; allowed: 10 to 1067 "
        "(at least one image per class must be kept, and one left out), 1077, or None"
    )


def test_fewer_training_images_need_two_of_each_class_and_two_classes():
    images, labels = arrays()
    held_out = {"validation": (images, labels), "test": (images, labels)}
    one_rare = datasets.from_arrays(images[:5], labels[:5], **held_out)
    with pytest.raises(UserError, match=r"train_images is 4, but class 1 has 1 image and needs 2, as do 2 more; allo"):
        datasets.with_fewer_images(one_rare, 4)
    lopsided = datasets.from_arrays(images, (np.arange(40) >= 38).astype(int), **held_out)
    with pytest.raises(
        UserError, match=r"train_images is 2: the train labels name class 0 as the most likely one in all"
    ):
        datasets.with_fewer_images(lopsided, 2)


IMAGES, LABELS = arrays()
DISTRIBUTION = np.full((40, 4), 0.25)


RAGGED = [[0.5, 0.5], [1.0]] * 20
NAMES = np.array(["cat", "dog", "bee", "ant"])[LABELS]
WITH_NAN = np.where(np.arange(40) < 3, np.nan, LABELS)
KINDS = "allowed: [example] class numbers from 0, or [example, class] distributions"


def message_of(images, labels, **settings):
    with pytest.raises(UserError) as error:
        datasets.from_arrays(images, labels, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:39], "train has 40 images and 39 labels; allowed: one label per image"),
        (IMAGES[:0], LABELS[:0], "train has 0 images; allowed: 1 or more"),
        (IMAGES, DISTRIBUTION * 2, "not a distribution in 40 of 40 rows, first in row 0 (sum 2"),
        (IMAGES, DISTRIBUTION - [[1.0, -1.0, 0, 0]], "smallest -0.75"),
        (IMAGES, DISTRIBUTION * np.nan, "not a distribution"),
        (IMAGES, np.full((40, 4), "cat"), "train labels are text, first 'cat'; " + KINDS),
        (IMAGES, NAMES, "train labels are text, first 'cat'; " + KINDS + " (class_names, labels = np.unique("),
        (IMAGES, NAMES.astype(bytes), "train labels are text"),
        (IMAGES, NAMES.astype(object), "train labels are of type object, first 'cat'; allowed:"),
        (IMAGES, LABELS.astype(complex), "train labels are of type complex128"),
        (IMAGES, [None] * 40, "train labels are of type object, first 'None'; allowed:"),
        (IMAGES, None, "train labels are 'None', not an array; " + KINDS),
        (IMAGES, 3, "train labels are '3', not an array; " + KINDS),
        (IMAGES, "cat", "train labels are 'cat', not an array; " + KINDS),
        (IMAGES, RAGGED, "train labels have entries of different lengths; " + KINDS),
        (IMAGES, LABELS[:, None], "train labels have shape (40, 1), one column; " + KINDS + " of 2 or more classes (lab"),
        (IMAGES, np.ones((40, 1)), "one column"),
        (IMAGES, np.ones((40, 0)), "train labels have shape (40, 0); " + KINDS),
        (IMAGES, DISTRIBUTION[..., None], "train labels have shape (40, 4, 1); " + KINDS),
        (IMAGES, LABELS - 2, "train labels lie in -2..1; allowed: class numbers from 0"),
        (IMAGES, LABELS - 9, "train labels lie in -9..-6; allowed: class numbers from 0"),
        (IMAGES, LABELS + 0.5, "train labels are float64 class numbers; allowed: integers from 0, or"),
        (IMAGES, WITH_NAN, "train labels are float64 class numbers, 3 of 40 NaN; allowed: integers from 0, or"),
        (IMAGES, LABELS > 1, "train labels are bool class numbers; allowed: integers from 0"),
        (IMAGES, LABELS * 20_000, "labels go up to 60000, which implies 60001 classes, but there are only 40 train images"),
        (IMAGES, LABELS + 5, "labels go up to 8, which implies 9 classes, but there are only 40 train images, of 4 cla"),
        (IMAGES, LABELS + 10**12, "labels go up to 1000000000003"),
        (IMAGES, np.arange(40), "test would be 8 of 40 images, but both sides need at least as many images as there are classes"),
        (IMAGES, np.arange(40) // 39, "test would be 8 of 40 images, but class 1 has 1 image and needs 2; pass test=(im"),
        (IMAGES[:5], LABELS[:5], "pass test=(images, labels), more images, or another test_fraction"),
        (IMAGES, LABELS * 0, "train labels name class 0 as the most likely one in all 28 images; allowed: 2 or more"),
        (IMAGES, np.full((40, 2), (0.6, 0.4)), "train labels name class 0 as the most likely one in all 28 images; allow"),
        (IMAGES[:, :4], LABELS, "images have shape (40, 4, 6, 3)"),
        (IMAGES[..., :2], LABELS, "1 or 3 channels"),
        (IMAGES[:, :0, :0], LABELS, "images have shape (40, 0, 0, 3); allowed: [example, size, size], or"),
        (IMAGES[:, :0, :0] / 255, LABELS, "images have shape (40, 0, 0, 3)"),
        (IMAGES[:, 0, 0, 0], LABELS, "images have shape (40,)"),
        ([*IMAGES[:39], IMAGES[39, :4]], LABELS, "train images have entries of different lengths; allowed: [exam"),
        (None, LABELS, "train images are 'None', not an array; allowed: [example, size, size, channel]"),
        (IMAGES.astype(np.int32), LABELS, "images are int32; allowed: uint8 in 0..255, or float in 0..1"),
        (IMAGES.astype(str), LABELS, "images are <U3; allowed: uint8"),
        (IMAGES.astype(np.float32), LABELS, "allowed for float images: 0..1"),
        (IMAGES / np.nan, LABELS, "train images lie in nan..nan; allowed for float images: 0..1"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_reported_in_one_line(images, labels, message):
    assert message in message_of(images, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": (IMAGES,)}, "validation is tuple of 1; allowed: a pair, validation=(images, labels)"),
        ({"test": [IMAGES, LABELS, 0]}, "test is list of 3; allowed: a pair, test=(images, labels)"),
        ({"test": IMAGES[:2]}, "test is ndarray; allowed: a pair, test=(images, labels)"),
        ({"validation": 5}, "validation is int; allowed: a pair"),
        ({"test": (IMAGES, None)}, "test labels are 'None', not an array"),
        ({"test": (IMAGES, LABELS[:3])}, "test has 40 images and 3 labels"),
        ({"test": (IMAGES[:0], LABELS[:0])}, "test has 0 images"),
        ({"test": (IMAGES, np.full((40, 3), 1 / 3))}, "train labels lie in 0..3; allowed: 0..2 (3 classes; see"),
        ({"test": (IMAGES[..., :1], LABELS)}, "the splits' images have shapes [(6, 6, 1), (6, 6, 3)]; allowed: one shape"),
        ({"validation_fraction": -0.1}, "validation_fraction is -0.1; allowed: a number from 0 and below 1, or pass valid"),
        ({"validation_fraction": False}, "validation_fraction is False; allowed: a number from 0 and below 1"),
        ({"test_fraction": 0}, "test_fraction is 0; allowed: a number above 0 and below 1, or pass test=(images, labels)"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0; allowed: a number above 0 and below 1, or pass test=(images, l"),
        ({"test_fraction": -0.1}, "test_fraction is -0.1; allowed:"),
        ({"test_fraction": float("nan")}, "test_fraction is nan; allowed:"),
        ({"test_fraction": None}, "test_fraction is None; allowed:"),
        ({"test_fraction": "0.2"}, "test_fraction is '0.2'; allowed:"),
        ({"test_fraction": True}, "test_fraction is True; allowed:"),
        ({"test_fraction": 0.5, "validation_fraction": 0.5}, "test_fraction 0.5 and validation_fraction 0.5 sum to 1; "
                                                              "allowed: a sum below 1; the rest is the training split"),
        ({"validation_fraction": 0.01}, "validation would be 0 of 32 images, but both sides need at least as many images as "
                                        "there are classes, 4; pass validation=(images, labels), more images, or another "
                                        "validation_fraction"),
        ({"class_names": ("cat", "dog")}, "train labels lie in 0..3; allowed: 0..1 (2 classes; see class_names)"),
        ({"class_names": ()}, "class_names is empty; allowed"),
        ({"class_names": ("cat", "dog", "bee", "cat")}, "class_names contains 'cat' 2 times; allowed: a different name for"),
        ({"class_names": "abcd"}, "class_names is 'abcd' (str); allowed: a list of names, one per class"),
        ({"class_names": 4}, "class_names is '4' (int); allowed: a list of names"),
        ({"class_names": {"cat", "dog"}}, "(set); allowed: a list of names"),
        ({"class_names": np.array("cat")}, "class_names is 'cat' (ndarray); allowed: a list of names"),
    ],
)  # fmt: skip
def test_wrong_settings_are_reported_in_one_line(settings, message):
    assert message in message_of(IMAGES, LABELS, **settings)


@pytest.mark.parametrize("class_names", [("cat", "dog", "bee"), ("cat", "dog", "bee", "ant", "elk")])
def test_a_wrong_number_of_class_names_is_an_error(class_names):
    message = message_of(IMAGES, DISTRIBUTION, class_names=class_names)
    number = len(class_names)
    assert message == (
        f"train labels have shape (40, 4) for {number} classes (see class_names); "
        f"allowed: [example] class numbers, or [example, {number}] distributions"
    )


def test_the_fraction_of_a_given_split_is_ignored():
    pair = (IMAGES, LABELS)
    dataset = datasets.from_arrays(*pair, validation=pair, test=pair, test_fraction=None, validation_fraction=2)
    assert len(dataset.train.images) == 40


def test_an_unknown_name_is_an_error_that_lists_what_is_allowed():
    with pytest.raises(UserError, match=r"dataset\.name is 'mnits'; allowed: digits"):
        datasets.load("mnits")
    with pytest.raises(UserError, match="from_arrays"):
        datasets.load("arrays")


@pytest.fixture(scope="module")
def small_tfds(tmp_path_factory):
    """A TFDS data set of 60 gray images, generated without a download."""
    import tensorflow_datasets as tfds

    class Shades(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(names=["dark", "light"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(40), "test": self._generate_examples(20)}

        def _generate_examples(self, num):
            for index in range(num):
                yield index, {"image": np.full((8, 8, 1), 200 * (index % 2) + index, np.uint8), "label": index % 2}

    folder = str(tmp_path_factory.mktemp("tfds"))
    Shades(data_dir=folder).download_and_prepare()
    return folder


def test_a_tfds_data_set_has_its_class_names_and_splits(small_tfds):
    dataset = datasets.load("tfds:shades", folder=small_tfds)
    assert dataset.class_names == ("dark", "light")
    assert [len(split.images) for split in (dataset.train, dataset.validation, dataset.test)] == [36, 4, 20]
    assert dataset.train.images.dtype == np.uint8
    assert ((dataset.test.images.max((1, 2, 3)) > 150) == dataset.test.labels.argmax(1)).all()


def test_fewer_images_keep_the_share_of_each_class(small_tfds):
    dataset = datasets.load("tfds:shades", folder=small_tfds)
    fewer = datasets.with_fewer_images(dataset, 10)
    assert fewer.train.labels.sum(0).tolist() == [5, 5]
    assert len(fewer.test.images) == 20


def test_an_unknown_tfds_data_set_is_an_error_of_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^dataset.name is 'tfds:no_such_set', which TFDS cannot load \([^\n]*$"):
        datasets.load("tfds:no_such_set", folder=str(tmp_path))


def test_a_manual_download_is_an_error_that_names_the_files(tmp_path):
    with pytest.raises(UserError, match=r"'tfds:imagenet2012', .*ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"):
        datasets.load("tfds:imagenet2012", folder=str(tmp_path))


def test_an_image_without_a_label_has_a_row_of_zeros_and_the_class_minus_one():
    labels = np.array([[0, 0, 1], [0, 0, 0], [0.5, 0.5, 0]], np.float32)
    split = Split(np.zeros((3, 2, 2, 1), np.uint8), labels)
    assert split.classes.tolist() == [2, -1, 0] and split.is_labeled.tolist() == [True, False, True]
    assert split.class_shares.tolist() == [0.25, 0.25, 0.5]
    assert one_hot(np.array([2, -1]), 3).tolist() == [[0, 0, 1], [0, 0, 0]]
    assert split.subset(np.array([1])).class_shares.tolist() == [0, 0, 0]
