"""Long-tailed versions of a data set: the profile of the literature, always the same images, training only."""

import numpy as np
import pytest

from gensupcon_jax.data import datasets
from gensupcon_jax.data.long_tail import long_tail_sizes, with_long_tail
from gensupcon_jax.errors import UserError
from tests.tiny import tiny_dataset


@pytest.mark.parametrize(
    ("largest", "num_classes", "factor", "smallest", "total"),
    [
        (500, 100, 100, 5, 10_847),
        (500, 100, 50, 10, 12_608),
        (500, 100, 10, 50, 19_573),
        (5000, 10, 100, 50, 12_406),
        (5000, 10, 50, 100, 13_996),
    ],
)
def test_the_sizes_are_those_of_long_tailed_cifar(largest, num_classes, factor, smallest, total):
    sizes = long_tail_sizes(largest, num_classes, factor)
    assert (sizes[0], sizes[-1], sizes.sum()) == (largest, smallest, total)
    assert all(np.diff(sizes) <= 0)


def test_only_training_images_are_left_out_and_always_the_same():
    whole = tiny_dataset(num=720)  # 120 training images per class
    dataset = with_long_tail(whole, 8)
    assert np.bincount(dataset.train.classes).tolist() == [120, 60, 30, 15]
    assert dataset.validation is whole.validation and dataset.test is whole.test
    again = with_long_tail(tiny_dataset(num=720), 8)
    np.testing.assert_array_equal(dataset.train.images, again.train.images)
    places = [int(np.flatnonzero((whole.train.images == image).all((1, 2, 3)))[0]) for image in dataset.train.images]
    assert places == sorted(places) and len(set(places)) == 225  # in the order of the split, none twice
    assert dataset.notes == ("dataset.imbalance_factor is 8: 120 to 15 training images per class, 225 of 480 in all",)
    assert dataset.description()["num_train"] == 225


def test_a_class_with_fewer_images_than_the_profile_keeps_them_all():
    labels = np.repeat([0, 1, 2], [30, 3, 27])
    images = np.zeros((60, 4, 4, 1), np.uint8)
    dataset = datasets.from_arrays(images, labels, validation=(images, labels), test=(images, labels))
    assert np.bincount(with_long_tail(dataset, 4).train.classes).tolist() == [20, 3, 5]


def test_a_factor_that_empties_a_class_is_an_error():
    with pytest.raises(
        UserError, match=r"imbalance_factor is 30, but class 3 would keep none of its 24 images; allowed: abo"
    ):
        with_long_tail(tiny_dataset(), 30)
