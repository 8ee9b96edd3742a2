"""Draws of an epoch by class: exact shares, a function of seed and epoch, and unchanged where every image is drawn once."""

import itertools

import jax
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.input_pipeline import EpochOrders, Order, epoch_order, train_batches
from gensupcon_jax.data.sampling import drawn_shares, sampled_order
from gensupcon_jax.data.splits import Split

CLASSES = np.repeat([0, 1, 2], [64, 16, 4])[np.random.default_rng(0).permutation(84)]
SPLIT = Split(
    np.arange(84, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8),
    np.eye(3, dtype=np.float32)[CLASSES],
)


def test_shares_of_the_classes():
    counts = np.array([64, 16, 4, 0])
    assert drawn_shares(counts, "uniform").tolist() == [64 / 84, 16 / 84, 4 / 84, 0.0]
    assert drawn_shares(counts, "sqrt").tolist() == [8 / 14, 4 / 14, 2 / 14, 0.0]
    assert drawn_shares(counts, "balanced").tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


@pytest.mark.parametrize(("sampling", "draws"), [("balanced", [28, 28, 28]), ("sqrt", [48, 24, 12])])
def test_an_epoch_has_each_class_by_its_share(sampling, draws):
    for epoch in range(3):
        order = sampled_order(0, epoch, CLASSES, sampling)
        assert np.bincount(CLASSES[order]).tolist() == draws
        times = np.bincount(order, minlength=84)
        for kind, (draw, count) in enumerate(zip(draws, (64, 16, 4), strict=True)):
            # As often as all others of its class, or once more.
            assert set(times[kind == CLASSES]) <= {draw // count, -(-draw // count)}


def test_shares_are_rounded_by_the_largest_remainder():
    order = sampled_order(0, 0, np.array([0] * 7 + [1] * 2 + [2]), "balanced")
    assert np.bincount(np.array([0] * 7 + [1] * 2 + [2])[order]).tolist() == [4, 3, 3]
    assert sampled_order(0, 0, np.array([1, 1, 3]), "balanced").tolist().count(2) == 1  # classes 0 and 2 have no images


def test_an_order_has_literal_values_and_differs_by_seed_and_epoch():
    classes = np.array([0, 0, 0, 0, 0, 1])
    assert sampled_order(0, 0, classes, "balanced").tolist() == LITERAL_ORDER
    orders = {tuple(sampled_order(seed, epoch, CLASSES, "sqrt")) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    # A class with more images than draws shows others in the next epoch.
    seen = [
        set(sampled_order(0, epoch, CLASSES, "balanced")) & set(np.flatnonzero(CLASSES == 0)) for epoch in range(12)
    ]
    assert len(set.union(*seen)) == 64


LITERAL_ORDER = [5, 2, 0, 5, 5, 1]  # another order would change every run that resumes


def test_uniform_is_the_order_without_sampling_bit_for_bit():
    for remainder in ("drop", "carry"):
        orders = EpochOrders(seed=5, num_examples=84, batch_size=8, order=Order(remainder, "uniform"), classes=CLASSES)
        plain = EpochOrders(seed=5, num_examples=84, batch_size=8, order=Order(remainder))
        for step in range(25):
            np.testing.assert_array_equal(orders.indices(step), plain.indices(step))
    np.testing.assert_array_equal(plain.indices(0), epoch_order(5, 0, 84)[:8])


def images_of(start, end, order, devices=1):
    place = sharding.batch_sharding(sharding.make_mesh(jax.devices()[:devices]))
    batches = train_batches(SPLIT, seed=3, batch_size=8, steps=range(start, end), sharding=place, order=order)
    return [np.asarray(batch.images)[:, 0, 0, 0].tolist() for batch in batches]


@pytest.mark.parametrize("order", [Order("drop", "balanced"), Order("carry", "sqrt")], ids=["balanced", "sqrt"])
def test_batches_are_a_function_of_seed_and_step(order):
    whole = images_of(0, 23, order)
    stops = [0, 1, 10, 11, 17, 23]
    assert list(itertools.chain(*(images_of(*span, order) for span in itertools.pairwise(stops)))) == whole
    assert images_of(0, 5, order, devices=8) == whole[:5]
    if order.remainder == "carry":  # nothing is lost between epochs: 2 x 84 images in 21 steps
        numbers = np.concatenate(whole)[:168]
        expected = np.concatenate([sampled_order(3, epoch, CLASSES, "sqrt") for epoch in range(2)])
        np.testing.assert_array_equal(numbers, expected)


def test_sampling_by_class_without_classes_is_an_error():
    with pytest.raises(TypeError, match="needs the classes"):
        EpochOrders(seed=0, num_examples=8, batch_size=2, order=Order(sampling="balanced"))
