"""dataset.validation_fraction=0: every image that is not a test image is trained on, whatever the source."""

import dataclasses

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.input_pipeline import EpochOrders, Order, steps_per_epoch
from gensupcon_jax.plan.known import data_sizes
from gensupcon_jax.prepare.contents import read_contents
from gensupcon_jax.prepare.contents_table import remarks
from tests.encoded import write_folder

ALL = {"validation_fraction": 0}


def arrays(num):
    """Images that tell their number."""
    images = np.zeros((num, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(num)
    return images, np.arange(num) % 4


def numbers(split):
    return split.images[:, 0, 0, 0].tolist()


def sizes(dataset):
    return {name: split.num_images for name, split in dataset.splits.items()}


def test_arrays_with_their_own_test_split_are_trained_on_whole_and_in_order():
    dataset = datasets.from_arrays(*arrays(40), test=arrays(8), validation_fraction=0)
    assert (sizes(dataset), dataset.validation, dataset.num_validation) == ({"train": 40, "test": 8}, None, 0)
    assert numbers(dataset.train) == list(range(40))
    assert dataset.description()["num_validation"] == 0


def test_the_test_images_are_those_of_a_run_with_validation():
    whole, cut = (datasets.from_arrays(*arrays(40), validation_fraction=share) for share in (0, 0.1))
    assert numbers(whole.test) == numbers(cut.test)
    assert sorted(numbers(whole.train)) == sorted(numbers(cut.train) + numbers(cut.validation))
    assert whole.description()["fingerprint"] != cut.description()["fingerprint"]


def test_a_validation_split_that_is_given_stays():
    dataset = datasets.from_arrays(*arrays(40), validation=arrays(8), test=arrays(8), validation_fraction=0)
    assert sizes(dataset) == {"train": 40, "validation": 8, "test": 8}


def test_the_digits():
    assert sizes(datasets.load("digits", **ALL)) == {"train": 1257, "test": 540}
    assert data_sizes("digits").num_train_images(0, None) == 1257
    assert data_sizes("digits").num_train_images(0.1, None) == 1077
    assert data_sizes("tfds:cifar10").num_train_images(0, None) == 50_000
    assert data_sizes("tfds:cifar10").num_train_images(0.1, None) == 45_000


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": 6, "validation": 2, "test": 3}, {"train": 24, "validation": 8, "test": 12}),
        ({"train": 6, "test": 3}, {"train": 24, "test": 12}),
        ({"train": 6, "validation": 3}, {"train": 24, "test": 12}),  # the only other split is the test split
        ({"train": 5}, {"train": 16, "test": 4}),
    ],
)
def test_folders(tmp_path, splits, expected):
    root = write_folder(tmp_path / "trees", splits=splits)
    dataset = datasets.load(f"folder:{root}", **ALL)
    assert sizes(dataset) == expected
    said = " ".join(remarks(read_contents(f"folder:{root}", datasets.Reading(**ALL))))
    assert ("there is no validation split (dataset.validation_fraction is 0)" in said) == ("validation" not in expected)


def test_a_class_of_two_images_is_enough_where_only_a_test_image_is_cut(tmp_path):
    root = write_folder(tmp_path / "trees", splits={"train": 2})
    assert sizes(datasets.load(f"folder:{root}", **ALL)) == {"train": 4, "test": 4}


def test_long_tails_fewer_images_and_channels_need_no_validation_split():
    from gensupcon_jax.data.long_tail import with_long_tail

    dataset = datasets.from_arrays(*arrays(40), test=arrays(8), validation_fraction=0)
    assert sizes(datasets.with_fewer_images(dataset, 20)) == {"train": 20, "test": 8}
    assert sizes(with_long_tail(dataset, 10.0)) == {"train": 10 + 4 + 2 + 1, "test": 8}
    colored = datasets.in_channels(dataset, 3)
    assert (sizes(colored), colored.num_channels) == ({"train": 40, "test": 8}, 3)
    assert dataclasses.replace(colored, resized=8).image_size == 8


@pytest.mark.parametrize(("remainder", "per_epoch"), [("drop", 6), ("carry", 7)])
def test_an_epoch_covers_all_images(remainder, per_epoch):
    """40 images in batches of 6: 36 of them, others in each epoch, or all of them over 20 steps, three times each."""
    assert steps_per_epoch(40, 6, remainder) == per_epoch
    orders = EpochOrders(seed=0, num_examples=40, batch_size=6, order=Order(remainder))
    if remainder == "drop":
        assert len({*np.concatenate([orders.indices(step) for step in range(6)])}) == 36
    else:
        drawn = np.concatenate([orders.indices(step) for step in range(20)])
        assert np.bincount(drawn, minlength=40).tolist() == [3] * 40
