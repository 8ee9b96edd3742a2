"""Batch t is a function of (seed, t): every image once per epoch, a new order each epoch, no state."""

import hashlib
import itertools
import threading

import jax
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data import crop_boxes, datasets, input_pipeline
from gensupcon_jax.data.crop_batches import crop_batches
from gensupcon_jax.data.headers import join_headers, read_header
from gensupcon_jax.data.input_pipeline import (
    EpochOrders,
    HostCrops,
    Order,
    Prefetched,
    epoch_order,
    local_rows,
    padded_batches,
    steps_per_epoch,
    train_batches,
)
from gensupcon_jax.data.shapes import LocalCrops
from gensupcon_jax.data.splits import Split
from gensupcon_jax.errors import UserError
from tests.encoded import encode, picture, write_folder

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
        steps=range(start, end),
        sharding=sharding.batch_sharding(mesh),
    )
    return [np.asarray(batch.images)[:, 0, 0, 0].tolist() for batch in batches]


def test_an_order_is_a_permutation_and_differs_by_epoch_and_seed():
    orders = [tuple(epoch_order(seed, epoch, 100)) for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(orders)) == 9


def test_the_order_has_literal_values():
    assert epoch_order(0, 0, 8).tolist() == LITERAL_ORDER


LITERAL_ORDER = [0, 2, 1, 5, 4, 3, 6, 7]  # another order would change every run that resumes


def test_no_image_twice_in_an_epoch():
    for epoch in range(3):
        seen = np.concatenate(image_numbers(2 * epoch, 2 * epoch + 2))
        assert len(set(seen)) == 16


def test_a_later_start_gives_the_same_batches():
    whole = image_numbers(0, 9)
    for start in (1, 2, 3, 5, 8):
        assert image_numbers(start, 9) == whole[start:]
    assert image_numbers(0, 9, seed=1) != whole


def test_the_number_of_devices_changes_nothing():
    assert image_numbers(0, 5, devices=8) == image_numbers(0, 5)


def test_labels_belong_to_their_images():
    mesh = sharding.make_mesh(jax.devices()[:2])
    settings = {"seed": 3, "batch_size": 8, "steps": range(4, 5)}
    (batch,) = train_batches(SPLIT, **settings, sharding=sharding.batch_sharding(mesh))
    np.testing.assert_array_equal(np.asarray(batch.images)[:, 0, 0, 0], np.asarray(batch.labels).argmax(1))
    assert len(batch.images.sharding.device_set) == 2


def test_a_batch_larger_than_the_data_is_an_error():
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


# ---- the remainder of an epoch


def test_a_remainder_is_dropped_or_carried():
    dropped = EpochOrders(seed=5, num_examples=23, batch_size=8)
    assert steps_per_epoch(23, 8) == 2
    assert np.concatenate([dropped.indices(step) for step in (2, 3)]).tolist() == epoch_order(5, 1, 23)[:16].tolist()
    carried = EpochOrders(seed=5, num_examples=23, batch_size=8, order=Order("carry"))
    assert steps_per_epoch(23, 8, "carry") == 3
    seen = np.concatenate([carried.indices(step) for step in range(23)])  # 8 epochs
    assert seen.tolist() == np.concatenate([epoch_order(5, epoch, 23) for epoch in range(8)]).tolist()
    assert (
        EpochOrders(seed=5, num_examples=23, batch_size=8, order=Order("carry")).indices(17).tolist()
        == seen[136:144].tolist()
    )


# ---- encoded images


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    folder = write_folder(
        tmp_path_factory.mktemp("pipeline") / "trees", splits={"train": 9, "validation": 2, "test": 3}
    )
    return datasets.load(f"folder:{folder}", image_size=16)


def hashes(split, start, end, *, seed=0, devices=1, batch_size=8, remainder="drop", scale=(0.2, 1.0)):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    batches = train_batches(
        split,
        seed=seed,
        batch_size=batch_size,
        steps=range(start, end),
        sharding=sharding.batch_sharding(mesh),
        order=Order(remainder),
        crops=HostCrops(2, scale, (3 / 4, 4 / 3)),
    )
    return [
        hashlib.sha256(np.asarray(batch.images).tobytes() + np.asarray(batch.labels).tobytes()).hexdigest()
        for batch in batches
    ]


def test_60_batches_interrupted_at_7_places_are_those_of_an_uninterrupted_run(trees):
    whole = hashes(trees.train, 0, 60, remainder="carry")
    assert len(set(whole)) == 60
    stops = [0, *sorted(np.random.default_rng(1).choice(np.arange(1, 60), 7, replace=False).tolist()), 60]
    parts = [hashes(trees.train, *span, remainder="carry") for span in itertools.pairwise(stops)]
    assert list(itertools.chain(*parts)) == whole
    assert hashes(trees.train, 0, 4, seed=1) != whole[:4]
    assert hashes(trees.train, 0, 4, devices=4) == hashes(trees.train, 0, 4)


LOCAL = LocalCrops(4, 6, (0.05, 0.25))


def batches_with_local(split, steps, *, devices=1, seed=0):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    crops = HostCrops(2, (0.2, 1.0), (3 / 4, 4 / 3), LOCAL)
    settings = {"seed": seed, "batch_size": 8, "steps": steps, "crops": crops}
    return [*train_batches(split, **settings, sharding=sharding.batch_sharding(mesh))]


def test_local_crops_come_as_a_second_array_and_are_a_function_of_seed_and_step(trees):
    whole = batches_with_local(trees.train, range(6))
    assert {(batch.local_images.shape, batch.local_images.dtype) for batch in whole} == {
        ((8, 4, 6, 6, 3), np.dtype(np.uint8))
    }
    parts = [*batches_with_local(trees.train, range(2)), *batches_with_local(trees.train, range(2, 6), devices=4)]
    for one, other in zip(whole, parts, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    (other,) = batches_with_local(trees.train, range(1), seed=1)
    assert not np.array_equal(other.local_images, whole[0].local_images)
    assert len({np.asarray(batch.local_images[:, view]).tobytes() for batch in whole for view in range(4)}) == 24


def test_the_boxes_of_views_are_the_same_with_local_crops_whose_boxes_have_their_own_range(trees):
    place, indices = (0, 5, slice(2, 6), 8), np.arange(4)
    plain = HostCrops(2, (0.2, 1.0), (3 / 4, 4 / 3))
    before = input_pipeline.plan_batch(trees.train, indices, plain, place)
    after = input_pipeline.plan_batch(trees.train, indices, plain._replace(local=LOCAL), place)
    np.testing.assert_array_equal(after.boxes[:, :2], before.boxes)
    assert after.boxes.shape == (4, 6, 4)
    areas = trees.train.headers.subset(indices).sizes.prod(1)[:, None]
    shares = after.boxes[:, 2:, 2:].prod(-1) / areas
    assert 0.03 < shares.min() < shares.max() < 0.32  # whole pixels of images of some 20 x 24
    others = crop_boxes.crop_draws(0, 5, slice(0, 8), 2, 8, are_local=True)
    assert not np.isin(others, crop_boxes.crop_draws(0, 5, slice(0, 8), 2, 8)).any()


def test_a_jpeg_is_decoded_at_a_smaller_scale_only_if_that_has_enough_detail_for_every_crop():
    picture_of_64 = encode(picture(0, 0, (64, 64)))
    header, _ = join_headers([read_header(picture_of_64)])
    boxes = np.array([[[0, 0, 64, 64], [0, 0, 32, 32]]])
    scales = [
        crop_boxes.plan_crops(header, boxes, np.array(sizes)).scales.item() for sizes in ((16, 16), (16, 8), (16, 32))
    ]
    assert scales == [2, 4, 1]


def test_crops_are_uint8_one_per_view_and_labels_match_the_images(trees):
    settings = {"seed": 0, "batch_size": 12, "steps": range(3), "crops": HostCrops(3, None, (1, 1))}
    place = sharding.batch_sharding(sharding.make_mesh(jax.devices()[:2]))
    batches = list(train_batches(trees.train, sharding=place, **settings))
    assert {(batch.images.shape, batch.images.dtype) for batch in batches} == {((12, 3, 16, 16, 3), np.dtype(np.uint8))}
    for batch in batches:  # the class is the bright quarter
        quarters = np.asarray(batch.images)[:, 0].reshape(12, 2, 8, 2, 8, 3).mean((2, 4, 5)).reshape(12, 4)
        assert quarters.argmax(1).tolist() == np.asarray(batch.labels).argmax(1).tolist()
    numbers = np.concatenate([np.asarray(batch.labels).argmax(1) for batch in batches])
    assert np.bincount(numbers).tolist() == [9] * 4  # every image once


@pytest.mark.parametrize(("batch_size", "devices"), [(8, 1), (8, 8), (5, 1), (12, 4)])
def test_evaluation_covers_every_encoded_image_once_in_order(trees, batch_size, devices):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    batches = list(padded_batches(trees.test, batch_size, sharding.batch_sharding(mesh)))
    rows = np.concatenate([np.asarray(batch)[is_real] for batch, is_real in batches])
    assert rows.shape == (12, 16, 16, 3)
    quarters = rows.reshape(12, 2, 8, 2, 8, 3).mean((2, 4, 5)).reshape(12, 4).argmax(1)
    assert quarters.tolist() == trees.test.classes.tolist()


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_the_shares_of_several_hosts_form_the_batch_of_one_host(trees, num_hosts):
    orders = EpochOrders(seed=3, num_examples=trees.train.num_images, batch_size=8)

    def crops_of(share, step):
        indices = orders.indices(step)[share]
        plan = input_pipeline.plan_batch(
            trees.train, indices, HostCrops(2, (0.2, 1.0), (3 / 4, 4 / 3)), (3, step, share, 8)
        )
        ((_, crops),) = crop_batches(trees.train, [(indices, plan)])
        return crops

    for step in (0, 7):
        shares = [slice(start, start + 8 // num_hosts) for start in range(0, 8, 8 // num_hosts)]
        parts = np.concatenate([crops_of(share, step) for share in shares])
        np.testing.assert_array_equal(parts, crops_of(slice(0, 8), step))


def test_local_rows_are_those_of_this_process():
    place = sharding.batch_sharding(sharding.make_mesh(jax.devices()[:4]))
    assert local_rows(12, place) == slice(0, 12)
    assert local_rows(12, jax.sharding.SingleDeviceSharding(jax.devices()[0])) == slice(0, 12)


# ---- the thread between the images and the loop


def test_a_thread_makes_batches_ahead_and_its_error_is_raised_in_place_of_its_batch():
    def broken():
        yield from (1, 2)
        raise UserError("image 3 is broken")

    with Prefetched(broken()) as batches:
        iterator = iter(batches)
        assert [next(iterator), next(iterator)] == [1, 2]
        with pytest.raises(UserError, match="image 3 is broken"):
            next(iterator)


def test_waiting_time_is_measured_and_leaving_stops_the_thread():
    gate = threading.Event()

    def slow():
        yield 0
        gate.wait()
        while True:
            yield 1

    before = threading.active_count()
    with Prefetched(slow()) as batches:
        iterator = iter(batches)
        next(iterator)
        threading.Timer(0.2, gate.set).start()
        next(iterator)
        assert batches.waited_seconds > 0.1
    assert threading.active_count() <= before + 1  # the timer may still be ending
