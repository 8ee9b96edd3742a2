"""One mesh axis over all devices; for a batch that is not divisible, the error names the nearest sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError


def test_the_batch_axis_is_sharded_and_other_axes_are_replicated():
    mesh = sharding.make_mesh()
    assert mesh.shape == {"data": 8}
    spread = jax.device_put(jnp.arange(16), sharding.batch_sharding(mesh))
    assert [shard.data.tolist() for shard in spread.addressable_shards][:2] == [[0, 1], [2, 3]]
    assert jax.device_put(jnp.arange(3), sharding.replicated(mesh)).is_fully_replicated


def test_a_batch_is_divided():
    assert sharding.local_batch_size(256, 8) == 32


@pytest.mark.parametrize(
    ("batch_size", "devices", "nearest"), [(100, 8, "96 or 104"), (3, 8, "8"), (7, 2, "6 or 8"), (0, 4, "4")]
)
def test_a_batch_that_is_not_divisible_is_an_error_with_the_nearest_sizes(batch_size, devices, nearest):
    with pytest.raises(
        UserError, match=f"batch_size is {batch_size}, .*{devices} devices; set batch_size to {nearest},"
    ):
        sharding.local_batch_size(batch_size, devices)


def test_leaves_that_differ_between_devices_become_their_mean():
    mesh = sharding.make_mesh(jax.devices()[:4])

    def local(spread, same):
        return sharding.make_replicated({"spread": spread.mean(), "same": same})

    out = jax.shard_map(
        local, mesh=mesh, in_specs=(sharding.BATCH, sharding.REPLICATED), out_specs=sharding.REPLICATED
    )(jnp.arange(8.0), jnp.float32(7))
    assert out == {"spread": np.float32(3.5), "same": np.float32(7)}
