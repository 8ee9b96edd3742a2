"""Data sets whose labels are numbers: checks, cuts that keep the spread of the values, bins from the config."""

import numpy as np
import pytest

from gensupcon_jax.data.datasets import from_arrays, with_fewer_images
from gensupcon_jax.data.value_labels import cut_off_values, rebinned
from gensupcon_jax.errors import UserError
from gensupcon_jax.value_bins import ValueBins

VALUES = np.linspace(20.0, 70.0, 101)[np.random.default_rng(0).permutation(101)]  # years
IMAGES = np.arange(101, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)


def dataset(**settings):
    return from_arrays(IMAGES, VALUES, label_kind="value", **settings)


def test_values_come_with_their_images_and_with_distributions_over_bins():
    found = dataset()
    assert found.label_kind == "value" and found.num_classes == 64
    assert found.bins == ValueBins(20.0, 70.0, 64, 2.5)
    for split in (found.train, found.validation, found.test):
        np.testing.assert_array_equal(VALUES[split.images[:, 0, 0, 0]], split.values)
        np.testing.assert_array_equal(split.labels, found.bins.labels(split.values))
    assert (found.train.num_images, found.validation.num_images, found.test.num_images) == (71, 10, 20)
    assert found.description()["bins"] == {"low": 20.0, "high": 70.0, "num_bins": 64, "width": 2.5}


def test_a_cut_takes_small_and_large_values_alike():
    split = dataset().train
    rest, part = cut_off_values(split, split.values, 20, "test")
    assert (rest.num_images, part.num_images) == (51, 20)
    shares = [np.searchsorted(np.sort(split.values), value) / 71 for value in np.sort(part.values)]
    np.testing.assert_allclose(shares, (np.arange(20) + 0.5) / 20, atol=0.06)
    again = cut_off_values(split, split.values, 20, "test")[1]
    np.testing.assert_array_equal(part.values, again.values)
    assert np.all(np.isin(np.concatenate([rest.values, part.values]), split.values))


@pytest.mark.parametrize("size", [1, 3, 70])
def test_cuts_of_any_size_have_that_size(size):
    split = dataset().train
    rest, part = cut_off_values(split, split.values, size, "test")
    assert (rest.num_images, part.num_images) == (71 - size, size)


def test_fewer_training_images_keep_the_range():
    kept = with_fewer_images(dataset(), 10).train
    assert kept.num_images == 10 and kept.values.min() < 26 and kept.values.max() > 64


def test_the_fields_of_the_config_decide_the_bins():
    found = rebinned(dataset(), num_bins=10, width=10, value_range=(0, 100))
    assert found.bins == ValueBins(0.0, 100.0, 10, 10.0) and found.class_names[0] == "0 to 10"
    assert found.train.labels.shape == (71, 10)
    assert found.description()["fingerprint"] != dataset().description()["fingerprint"]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            VALUES[:, None],
            r"train labels have shape \(101, 1\); allowed with dataset.label_kind value: \[example\] finite",
        ),
        (VALUES.astype(str), "train labels are of type <U"),
        (
            np.where(np.arange(101) == 7, np.nan, VALUES),
            "train labels are nan in row 7, and not finite in 1 of 101 rows",
        ),
        (np.full(101, 3.0), "all 101 values are 3; allowed: different values"),
    ],
)
def test_labels_that_are_no_values_are_one_line(labels, text):
    with pytest.raises(UserError, match=text) as error:
        from_arrays(IMAGES, labels, label_kind="value")
    assert "\n" not in str(error.value)


def test_bins_that_do_not_cover_the_values_name_the_split_and_the_field():
    with pytest.raises(
        UserError, match=r"the values of train lie outside .* allowed: 30 to 70; change dataset\.value_range"
    ):
        rebinned(dataset(), num_bins=64, value_range=(30, 70))
