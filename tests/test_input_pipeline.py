"""Batch t is a function of (seed, t): every image once an epoch, a new order each epoch, no state."""

import jax
import numpy as np
import pytest

from gensupcon_jax import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.input_pipeline import epoch_order, padded_batches, steps_per_epoch, train_batches
from gensupcon_jax.splits import Split

NUM = 23
SPLIT = Split(
    np.arange(NUM, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8), np.eye(NUM, dtype=np.float32)
)


def image_numbers(start, end, seed=0, batch_size=8, devices=1):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    batches = train_batches(
        SPLIT,
        seed=seed,
        batch_size=batch_size,
        start_step=start,
        end_step=end,
        sharding=sharding.batch_sharding(mesh),
    )
    return [np.asarray(batch.images)[:, 0, 0, 0].tolist() for batch in batches]


def test_an_order_is_a_permutation_and_differs_by_epoch_and_seed():
    orders = [tuple(epoch_order(seed, epoch, 100)) for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(orders)) == 9


def test_the_order_is_written_down():
    assert epoch_order(0, 0, 8).tolist() == LITERAL_ORDER


LITERAL_ORDER = [0, 2, 1, 5, 4, 3, 6, 7]  # a change here would change every run that is under way


def test_no_image_twice_in_an_epoch():
    for epoch in range(3):
        seen = np.concatenate(image_numbers(2 * epoch, 2 * epoch + 2))
        assert len(set(seen)) == 16


def test_a_run_that_starts_later_sees_the_same_batches():
    whole = image_numbers(0, 9)
    for start in (1, 2, 3, 5, 8):
        assert image_numbers(start, 9) == whole[start:]
    assert image_numbers(0, 9, seed=1) != whole


def test_the_number_of_devices_changes_nothing():
    assert image_numbers(0, 5, devices=8) == image_numbers(0, 5)


def test_labels_belong_to_their_images():
    mesh = sharding.make_mesh(jax.devices()[:2])
    settings = {"seed": 3, "batch_size": 8, "start_step": 4, "end_step": 5}
    (batch,) = train_batches(SPLIT, **settings, sharding=sharding.batch_sharding(mesh))
    np.testing.assert_array_equal(np.asarray(batch.images)[:, 0, 0, 0], np.asarray(batch.labels).argmax(1))
    assert len(batch.images.sharding.device_set) == 2


def test_a_batch_larger_than_the_data_is_refused():
    assert steps_per_epoch(23, 8) == 2
    with pytest.raises(UserError, match="batch_size is 24; allowed: 1 to 23"):
        steps_per_epoch(23, 24)


@pytest.mark.parametrize("num", [1, 7, 8, 9, 23])
def test_evaluation_covers_every_image_once_in_order(num):
    mesh = sharding.make_mesh(jax.devices()[:4])
    batches = list(padded_batches(SPLIT.subset(np.arange(num)), 8, sharding.batch_sharding(mesh)))
    assert all(batch.shape == (8, 2, 2, 1) for batch, _ in batches)
    seen = np.concatenate([np.asarray(batch)[is_real, 0, 0, 0] for batch, is_real in batches])
    assert seen.tolist() == list(range(num))
