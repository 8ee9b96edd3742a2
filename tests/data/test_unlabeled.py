"""Training images without a label: what they may be in arrays, and what cuts, sampling and long tails make of them."""

import dataclasses

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.encoded_sets import _check_class_range, _with_cuts
from gensupcon_jax.data.listing import Listing
from gensupcon_jax.data.long_tail import with_long_tail
from gensupcon_jax.data.sampling import sampled_order
from gensupcon_jax.data.splits import EncodedSplit, Headers
from gensupcon_jax.errors import UserError
from tests.tiny import tiny_dataset

IMAGES = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
CLASSES = np.where(np.arange(60) % 3 == 0, np.arange(60) % 2, -1)  # 20 labeled images of 60, 10 of each class


def numbers_of(split):
    return split.images[:, 0, 0, 0].tolist()


def test_cuts_take_labeled_images_and_fractions_are_of_those():
    dataset = datasets.from_arrays(IMAGES, CLASSES)
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [54, 2, 4]
    assert dataset.validation.is_labeled.all() and dataset.test.is_labeled.all()
    assert dataset.train.is_labeled.sum() == 14 and dataset.some_unlabeled
    assert dataset.train.class_shares.tolist() == [0.5, 0.5]
    assert dataset.class_names == ("0", "1")
    compared = dataset.only_labeled()
    assert compared.train.num_images == 14 and compared.test is dataset.test
    # The labeled ones are cut as if there were no others.
    alone = datasets.from_arrays(IMAGES[CLASSES >= 0], CLASSES[CLASSES >= 0])
    assert numbers_of(alone.test) == numbers_of(dataset.test)
    assert numbers_of(alone.train) == numbers_of(compared.train)


def test_rows_of_zeros_are_no_labels_either():
    rows = np.zeros((60, 2))
    rows[CLASSES >= 0, CLASSES[CLASSES >= 0]] = 1
    by_rows, by_numbers = datasets.from_arrays(IMAGES, rows), datasets.from_arrays(IMAGES, CLASSES)
    assert by_rows.train.classes.tolist() == by_numbers.train.classes.tolist()
    assert numbers_of(by_rows.test) == numbers_of(by_numbers.test)


@pytest.mark.parametrize("labels", [np.where(CLASSES < 0, -2, CLASSES), np.where(CLASSES < 0, np.nan, CLASSES)])
def test_other_marks_are_refused_with_the_one_that_is_allowed(labels):
    with pytest.raises(UserError, match=r"train labels (lie in -2|are float64 class numbers, 40 of 60 NaN)"):
        datasets.from_arrays(IMAGES, labels)


@pytest.mark.parametrize("where", ["validation", "test"])
def test_images_to_evaluate_on_need_labels(where):
    with pytest.raises(
        UserError, match=f"{where} labels lie in -1..1; .* train images without a label: class number -1"
    ):
        datasets.from_arrays(IMAGES, CLASSES, **{where: (IMAGES, CLASSES)})
    rows = np.eye(2)[np.maximum(CLASSES, 0)] * (CLASSES >= 0)[:, None]
    with pytest.raises(UserError, match=f"{where} labels are not a distribution in 40 of 60 rows"):
        datasets.from_arrays(IMAGES, CLASSES, **{where: (IMAGES, rows)})


def test_too_few_labels_to_cut_from_are_one_line():
    few = np.where(np.arange(60) < 4, np.arange(60) % 2, -1)
    with pytest.raises(UserError, match="test would be 1 of 4 labeled images, but both sides need at least as many"):
        datasets.from_arrays(IMAGES, few)
    with pytest.raises(UserError, match="train labels name class 0 as the most likely one in all 18 images"):
        datasets.from_arrays(
            IMAGES, np.where(CLASSES >= 0, 0, -1), test=(IMAGES, np.arange(60) % 2), validation_fraction=0.1
        )


def test_without_any_label_there_is_no_validation_split_and_the_test_images_are_drawn():
    dataset = datasets.from_arrays(IMAGES, np.full(60, -1))
    assert (dataset.train.num_images, dataset.validation, dataset.test.num_images) == (48, None, 12)
    assert dataset.class_names == ("no label",) and not dataset.has_labels and dataset.some_unlabeled
    assert dataset.train.labels.tolist() == [[0.0]] * 48 and set(dataset.test.classes) == {-1}
    assert not set(numbers_of(dataset.train)) & set(numbers_of(dataset.test))
    assert numbers_of(datasets.from_arrays(IMAGES, np.full(60, -1)).test) == numbers_of(dataset.test)
    splits = _with_cuts({"train": encoded(np.full(60, -1))}, datasets.Reading())
    assert {name: split.num_images for name, split in splits.items()} == {"train": 48, "test": 12}


def test_labels_of_some_training_images_alone_are_kept_always_the_same_ones():
    whole = tiny_dataset(num=144)  # 24 training images per class
    dataset = datasets.with_fewer_labels(whole, 12)
    assert dataset.train.images is whole.train.images and dataset.test is whole.test
    assert np.bincount(dataset.train.classes[dataset.train.is_labeled]).tolist() == [3, 3, 3, 3]
    kept = dataset.train.is_labeled
    assert dataset.train.classes[kept].tolist() == whole.train.classes[kept].tolist()
    again = datasets.with_fewer_labels(tiny_dataset(num=144), 12)
    np.testing.assert_array_equal(again.train.labels, dataset.train.labels)
    assert dataset.notes == ("dataset.labeled_images is 12: 84 of 96 training images have no label",)
    assert dataset.description()["fingerprint"] != whole.description()["fingerprint"]
    assert dataset.description()["num_train"] == 96
    assert datasets.with_fewer_labels(whole, 96) is whole
    fewer = datasets.with_fewer_labels(dataset, 8)  # of those that still have one
    assert fewer.train.is_labeled.sum() == 8 and not (fewer.train.is_labeled & ~kept).any()


@pytest.mark.parametrize("num", [3, 93, 200])
def test_numbers_of_labels_that_cannot_be_kept_are_one_line(num):
    with pytest.raises(UserError, match=rf"dataset.labeled_images is {num}; allowed: 4 to 92 .*, 96, or None"):
        datasets.with_fewer_labels(tiny_dataset(num=144), num)


def test_fewer_training_images_keep_the_share_without_a_label():
    dataset = datasets.with_fewer_labels(tiny_dataset(num=144), 24)
    fewer = datasets.with_fewer_images(dataset, 48)
    assert fewer.train.num_images == 48 and fewer.train.is_labeled.sum() == 12


def test_a_long_tail_is_one_of_the_labeled_images():
    dataset = datasets.with_fewer_labels(tiny_dataset(num=720), 240)  # 60 of each class, and 240 without
    tailed = with_long_tail(dataset, 4)
    known = tailed.train.is_labeled
    assert (~known).sum() == 240 and np.bincount(tailed.train.classes[known]).tolist() == [60, 37, 23, 15]


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_an_epoch_has_each_image_without_a_label_once(sampling):
    classes = np.array([0] * 12 + [1] * 4 + [-1] * 20)[np.random.default_rng(0).permutation(36)]
    order = sampled_order(0, 0, classes, sampling)
    assert len(order) == 36 and np.bincount(order, minlength=36)[classes < 0].tolist() == [1] * 20
    labeled = classes[order][classes[order] >= 0]
    assert np.bincount(labeled).tolist() == {"balanced": [8, 8], "sqrt": [10, 6]}[sampling]
    assert sorted(sampled_order(3, 1, np.full(7, -1), sampling)) == list(range(7))


def encoded(classes):
    fields = {"sizes": np.full((len(classes), 2), 4), "orientations": np.ones(len(classes), int)}
    others = {
        name: np.zeros(len(classes), int if name == "formats" else bool)
        for name in Headers._fields
        if name not in fields
    }
    headers = Headers(**fields, **others)
    return EncodedSplit(
        lambda numbers: [b""] * len(numbers), str, False, np.arange(len(classes)), classes, headers, 2, image_size=4
    )


def test_encoded_images_may_have_no_label_in_training_alone():
    listing = Listing(None, str, False, CLASSES, None, (), "", "")
    _check_class_range(listing, "train", "tfds:stl10", 2)
    with pytest.raises(UserError, match=r"tfds:stl10: 40 labels of test lie outside 0..1, first -1"):
        _check_class_range(listing, "test", "tfds:stl10", 2)
    splits = _with_cuts({"train": encoded(CLASSES)}, datasets.Reading())
    assert [split.num_images for split in splits.values()] == [54, 4, 2]
    assert splits["test"].is_labeled.all() and splits["validation"].is_labeled.all()
    whole = encoded(np.arange(60) % 2)
    fewer = datasets.with_fewer_labels(
        dataclasses.replace(tiny_dataset(), train=whole, class_names=("a", "b"), statistics=(np.zeros(1), np.ones(1))),
        20,
    )
    assert np.bincount(fewer.train.classes + 1).tolist() == [40, 10, 10]
    assert fewer.train.labels_of(np.arange(60)).sum() == 20
