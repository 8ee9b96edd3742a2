"""The devices of all processes are connected when they have joined: no later computation has to meet within 30 seconds."""

import jax
import numpy as np

from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.sharding import BATCH, DATA_AXIS, batch_sharding, make_mesh
from tests.forking import Forked
from tests.running import ended, free_port


def join_and_compute(address, own):
    """One of two processes; prints when it has joined, and what collectives of all kinds that a step has give then."""
    processes.join(processes.Member(address, 2, own))
    print("joined", flush=True)
    mesh = make_mesh()

    def collectives(row):
        total, rows = jax.lax.psum(row, DATA_AXIS), jax.lax.all_gather(row, DATA_AXIS)
        return total + rows.sum() + jax.lax.ppermute(row, DATA_AXIS, [(0, 3), (3, 0)])

    compute_fn = jax.jit(jax.shard_map(collectives, mesh=mesh, in_specs=BATCH, out_specs=BATCH))
    numbers = np.arange(4, dtype=np.float32)
    rows = jax.make_array_from_callback((4,), batch_sharding(mesh), lambda index: numbers[index])
    found = compute_fn(rows)
    print([float(shard.data[0]) for shard in found.addressable_shards], flush=True)
    processes.finish()


def test_no_connection_is_made_after_the_processes_have_joined():
    address = f"127.0.0.1:{free_port()}"
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    both = [Forked(join_and_compute, address, own, environment=environment) for own in (0, 1)]
    outcomes = ended(both, timeout=60)
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    for (_, printed, _), expected in zip(outcomes, ("[15.0, 12.0]", "[12.0, 12.0]"), strict=True):
        *connections, joined, values = printed.splitlines()
        assert len(connections) == 2 and all("is connected to 3 peer ranks" in line for line in connections), printed
        assert (joined, values) == ("joined", expected)
