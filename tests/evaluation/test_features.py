"""Features of splits: the size of the batches, and the values whatever it is."""

import jax
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.evaluation.features import extract, fitting_batch_size


@pytest.mark.parametrize(
    ("limit", "sizes", "num_devices", "expected"),
    [
        (512, [50_000, 5_000, 10_000], 1, 512),  # 512 of 65,024 rows are padding
        (512, [1077, 180, 540], 1, 128),  # 251 of 2,048 (12.3 %); of batches of 256, 507 of 2,304
        (512, [180, 60, 60], 1, 64),
        (512, [60], 1, 64),
        (512, [5], 1, 16),
        (512, [5], 8, 128),  # 16 for each device
        (100, [60], 8, 104),  # not below 16 for each device
        (8, [5], 1, 8),  # the limit is below 16
        (500, [60], 1, 62),
        (1, [7], 4, 4),
        (512, [], 2, 512),
    ],
)
def test_the_batch_is_the_largest_half_quarter_and_so_on_with_little_padding(limit, sizes, num_devices, expected):
    assert fitting_batch_size(limit, sizes, num_devices) == expected


@pytest.mark.parametrize("limit", [1, 7, 31, 64, 512])
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_the_batch_is_a_multiple_of_the_devices_and_hardly_above_the_limit(limit, num_devices):
    for num in range(1, 300, 7):
        size = fitting_batch_size(limit, [num, 3], num_devices)
        assert size % num_devices == 0
        assert 0 < size < limit + num_devices


def test_rows_are_the_same_in_any_batch_size():
    images = np.random.default_rng(0).integers(0, 256, (23, 2, 2, 1)).astype(np.uint8)
    split = from_arrays(images, np.arange(23) % 2).train
    devices = sharding.batch_sharding(sharding.make_mesh(jax.devices()[:1]))
    flat_fn = jax.jit(lambda batch: batch.reshape(len(batch), -1) / 255)
    by_size = [extract(flat_fn, split, batch_size=size, sharding=devices) for size in (3, 8, 64)]
    for found in by_size:
        np.testing.assert_allclose(found, split.images.reshape(split.num_images, -1) / 255, atol=1e-6)
