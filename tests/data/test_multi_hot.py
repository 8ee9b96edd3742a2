"""Several labels per image: rows of 0 and 1, what is refused instead of them, and stratified cuts."""

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.datasets import from_arrays, with_fewer_images
from gensupcon_jax.data.multi_hot import stratified
from gensupcon_jax.errors import UserError

ROWS = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]] * 10)


def images(num):
    return np.arange(num, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)


def several(rows=ROWS, **settings):
    return from_arrays(images(len(rows)), rows, label_kind="several", **settings)


def test_rows_of_zero_and_one_are_kept_as_they_are():
    dataset = several(class_names=["sea", "boat", "sun"])
    assert dataset.label_kind == "several"
    assert dataset.class_names == ("sea", "boat", "sun")
    for split in (dataset.train, dataset.validation, dataset.test):
        np.testing.assert_array_equal(split.labels, ROWS[split.images[:, 0, 0, 0]])
    assert [split.num_images for split in (dataset.train, dataset.validation, dataset.test)] == [28, 4, 8]
    assert dataset.description()["label_kind"] == "several"


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_any_type_of_zeros_and_ones_will_do(kind):
    assert several(ROWS.astype(kind)).train.labels.dtype == np.float32


def test_an_image_may_have_all_labels_or_none_and_there_may_be_one_label():
    assert several().train.labels.sum(1).tolist().count(3) == 7
    one = several(np.arange(20)[:, None] % 2)
    assert one.class_names == ("0",)
    assert one.train.labels.shape == (14, 1)


def test_a_label_that_nobody_has_is_kept():
    dataset = several(np.insert(ROWS, 1, 0, axis=1))
    assert dataset.num_classes == 4
    assert dataset.train.labels[:, 1].sum() == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([[0.5, 0.5], [1, 0]] * 10), "entries other than 0 and 1 in 10 of 20 rows, first in row 0 (0.5)"),
        (np.array([[0, 1], [2, 0]] * 10), "entries other than 0 and 1 in 10 of 20 rows, first in row 1 (2)"),
        (np.array([[0, 1], [np.nan, 0]] * 10), "in 10 of 20 rows, first in row 1 (nan)"),
        (np.arange(20) % 2, "train labels have shape (20,); allowed with dataset.label_kind several: [example, label]"),
        (np.array(["cat", "dog"] * 10), "train labels are of type <U3"),
        ([[0], [0, 1]] * 10, "MultiLabelBinarizer"),
        (np.ones((20, 2)), "train labels belong to all of its 14 images or to none of them, each of the 2"),
        (np.zeros((20, 2)), "train labels belong to all of its 14 images or to none"),
    ],
)
def test_anything_else_is_an_error_of_one_line(rows, message):
    with pytest.raises(UserError) as error:
        several(rows)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_several_labels_where_one_class_is_asked_for_name_the_field():
    with pytest.raises(UserError, match=r"rows of 0 and 1 with up to 3 ones.*set dataset.label_kind to several"):
        from_arrays(images(40), ROWS)


def test_distributions_where_several_are_asked_for_name_the_field():
    with pytest.raises(UserError, match=r"for distributions: dataset.label_kind class"):
        several(ROWS / 4 + 0.25)


def test_given_splits_are_checked_too():
    with pytest.raises(UserError, match="test labels have entries other than 0 and 1"):
        several(test=(images(4), np.full((4, 3), 0.5)))
    with pytest.raises(UserError, match=r"validation labels have shape \(4, 2\) for 3 classes"):
        several(validation=(images(4), np.eye(4, 2)))
    given = several(test=(images(4), ROWS[:4]), validation=(images(4), ROWS[:4]))
    assert (given.train.num_images, given.test.labels.tolist()) == (40, ROWS[:4].tolist())


def test_an_unknown_kind_is_an_error():
    with pytest.raises(UserError, match="label_kind is 'many'; allowed: class, several"):
        from_arrays(images(40), ROWS, label_kind="many")


@pytest.mark.parametrize("name", ["digits", "folder:/photos", "tfds:cifar10"])
def test_sources_with_one_class_per_image_refuse_several(name):
    with pytest.raises(UserError, match=r"dataset.label_kind.*several.*allowed: dataset.label_kind=class"):
        datasets.load(name, label_kind="several")


def test_a_cut_gives_each_label_its_share():
    rng = np.random.default_rng(0)
    rows = rng.random((400, 6)) < (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    in_part = stratified(rows, 100)
    assert in_part.sum() == 100
    shares = rows[in_part].sum(0) / rows.sum(0)
    assert np.abs(shares[:3] - 0.25).max() < 0.03
    assert (rows[in_part].sum(0)[rows.sum(0) > 1] >= 1).all()
    assert (rows[~in_part].sum(0)[rows.sum(0) > 1] >= 1).all()
    np.testing.assert_array_equal(in_part, stratified(rows, 100))


@pytest.mark.parametrize("size", [1, 3, 39])
def test_a_cut_has_exactly_the_asked_size(size):
    assert stratified(ROWS, size).sum() == size
    assert stratified(np.zeros((40, 2)), size).sum() == size


def test_a_label_of_one_image_stays_in_training():
    rows = ROWS.copy()
    rows[:, 1] = 0
    rows[5, 1] = 1
    assert several(rows).train.labels[:, 1].sum() == 1


def test_a_cut_of_everything_is_an_error():
    with pytest.raises(UserError, match="test would be 0 of 40 images, but both sides need 1 or more"):
        several(test_fraction=0.001)


def test_fewer_training_images_are_a_stratified_choice():
    fewer = with_fewer_images(several(), 14).train.labels
    np.testing.assert_array_equal(fewer.sum(0), several().train.labels.sum(0) / 2)
    with pytest.raises(UserError, match=r"dataset.train_images is 0; allowed: 1 to 28, or None"):
        with_fewer_images(several(), 0)
