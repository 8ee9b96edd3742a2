"""Arrays that are nearly right: scaled twice, counted from 1, rounded, tied, or with classes that only the test has."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.data.unit_floats import gray_levels
from gensupcon_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), np.uint8)
LABELS = np.arange(40) % 4
ROWS = np.eye(4, dtype=np.float32)[LABELS]


def message_of(images, labels, **settings):
    with pytest.raises(UserError) as error:
        from_arrays(images, labels, **settings)
    return str(error.value)


# Images


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_images_divided_by_255_twice_are_an_error(dtype):
    twice = (IMAGES / 255 / 255).astype(dtype)
    found = message_of(twice, LABELS)
    assert f"train images are {np.dtype(dtype)} in 0..0.0039" in found
    assert "as where they were divided by 255 twice; allowed: uint8 in 0..255, or float in 0..1." in found
    once = (IMAGES / 255).astype(dtype)
    assert "test images are" in message_of(once, LABELS, test=(twice, LABELS))
    assert from_arrays(once, LABELS).train.images.max() == 255


def test_bytes_divided_by_255_are_an_error():
    ones = (IMAGES // 255).astype(np.uint8)
    assert ones.max() == 1
    assert "train images are uint8 in 0..1, all but black, as where they were divided by 255 twice" in message_of(
        ones, LABELS
    )
    assert from_arrays(ones * 255, LABELS).train.images.max() == 255


def test_images_that_are_dark_or_black_are_taken():
    assert from_arrays(IMAGES // 100, LABELS).train.images.max() == 2
    assert from_arrays(IMAGES * 0.0, LABELS).train.images.max() == 0
    assert from_arrays(IMAGES * 0, LABELS).train.images.max() == 0
    assert from_arrays(IMAGES / 255 / 100, LABELS).train.images.max() == 3


def test_what_rounding_leaves_outside_of_0_to_1_is_0_or_1():
    images = IMAGES / 255
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 1.0000001, -1e-7
    found = from_arrays(images, LABELS, test=(IMAGES, LABELS), validation_fraction=0).train.images
    assert found[0, 0, 0, :2].tolist() == [255, 0]
    np.testing.assert_array_equal(found[1:], IMAGES[1:])
    images[0, 0, 0, 0] = 1.01
    assert "train images lie in -1e-07..1.01; allowed for float images: 0..1" in message_of(images, LABELS)


@pytest.mark.parametrize("convert", [lambda x: x.astype(ml_dtypes.bfloat16), lambda x: jnp.asarray(x, jnp.bfloat16)])
def test_bfloat16_images_are_taken(convert):
    found = from_arrays(convert(IMAGES / 255), LABELS, test=(IMAGES, LABELS), validation_fraction=0).train.images
    np.testing.assert_array_equal(found, IMAGES)  # 8 bits of precision are enough
    assert gray_levels(np.array([0, 0.5, 1], ml_dtypes.bfloat16)).tolist() == [0, 128, 255]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 2.0, -1.0])
def test_bfloat16_images_out_of_range_are_an_error(wrong):
    images = (IMAGES / 255).astype(ml_dtypes.bfloat16)
    images[3, 0, 0, 0] = wrong
    assert "allowed for float images: 0..1" in message_of(images, LABELS)


# Labels


def test_class_numbers_from_1_are_an_error():
    found = message_of(IMAGES, LABELS + 1)
    assert found == (
        "labels lie in 1..4, and no image has the class 0; class numbers begin at 0: where they were counted from 1, pass "
        "labels - 1; where class 0 is meant to be without images, pass class_names with 5 names"
    )
    assert "class numbers begin at 0" in message_of(IMAGES, LABELS + 1, class_names=list("abcd"))
    assert "class numbers begin at 0" not in message_of(IMAGES, LABELS, class_names=list("abc"))
    assert from_arrays(IMAGES, LABELS + 1, class_names=list("abcde")).num_classes == 5
    assert from_arrays(IMAGES, LABELS).notes == ()
    unlabeled = np.where(np.arange(40) < 4, -1, LABELS + 1)
    assert "labels lie in 1..4, and no image has the class 0; class numbers begin at 0" in message_of(IMAGES, unlabeled)


def test_rows_made_of_class_numbers_from_1_are_noted():
    (note,) = from_arrays(IMAGES, np.eye(5)[LABELS + 1]).notes
    assert note.startswith(
        "no image has the first of 5 classes, and each of the others has images: where class numbers"
    )
    assert "labels[:, 1:]" in note
    assert from_arrays(IMAGES, ROWS).notes == ()


@pytest.mark.parametrize("as_rows", [False, True])
def test_classes_that_only_the_test_has_are_noted(as_rows):
    def labels(numbers):
        return np.eye(6)[numbers] if as_rows else numbers

    test = labels(np.array([0, 1, 4, 4, 5]))
    (note,) = from_arrays(IMAGES, labels(LABELS), test=(IMAGES[:5], test), class_names=list("abcdef")).notes
    assert note == (
        "no training image has 2 classes e, f of test: 3 images of test cannot be predicted right; add training images, or "
        "remove those from test"
    )
    test = labels(np.array([0, 1, 4, 1, 1]))
    notes = from_arrays(IMAGES, labels(LABELS), test=(IMAGES[:5], test), class_names=list("abcdef")).notes
    assert [note[:52] for note in notes] == ["no training image has the class e of test: 1 image o"]
    assert from_arrays(IMAGES, labels(LABELS), test=(IMAGES[:2], labels(np.array([0, 3])))).notes == ()


def test_tied_rows_are_noted():
    tied = ROWS.copy()
    tied[7], tied[9], tied[12] = [0, 0.5, 0.5, 0], [0.25] * 4, [0.4, 0.4, 0.2, 0]
    (note,) = from_arrays(IMAGES, ROWS, test=(IMAGES, tied), class_names=["ash", "birch", "cedar", "date"]).notes
    assert note == (
        "test labels: 3 of 40 rows have no single most likely class, first row 7 (0.5 for birch and cedar); where one class "
        "counts, in the evaluation and in stratified cuts, it is the first of them. To change that, remove these images, or "
        "raise one entry of each row"
    )
    (note,) = from_arrays(IMAGES, tied).notes
    assert note.startswith("train labels: 3 of 40 rows have no single most likely class")
    tied[7] = [0, 0.501, 0.499, 0]
    (note,) = from_arrays(IMAGES, tied).notes
    assert note.startswith("train labels: 2 of 40 rows") and "first row 9 (0.25 for 0 and 1 and others)" in note


def test_multi_hot_rows_are_an_error_that_names_the_field():
    rows = ROWS.copy()
    rows[3, 0] = 1
    assert "set dataset.label_kind to several" in message_of(IMAGES, rows)
    assert from_arrays(IMAGES, rows, label_kind="several").label_kind == "several"


def test_distributions_of_bfloat16_sum_to_1_again():
    thirds = np.array([[1 / 3, 1 / 3, 1 / 3 - 0.02, 0.02], [0.1, 0.2, 0.3, 0.4]])[np.arange(40) % 2]
    found = from_arrays(IMAGES, thirds.astype(ml_dtypes.bfloat16), test=(IMAGES, thirds), validation_fraction=0)
    np.testing.assert_allclose(found.train.labels, thirds, atol=2e-3)
    np.testing.assert_allclose(found.train.labels.sum(1), 1, atol=1e-6)
    assert "not a distribution" in message_of(IMAGES, (thirds * 1.5).astype(ml_dtypes.bfloat16))
    assert "float32 class numbers" in message_of(IMAGES, LABELS.astype(ml_dtypes.bfloat16))
