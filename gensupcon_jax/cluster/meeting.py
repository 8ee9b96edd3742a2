"""The first collective computation of all devices, at an instant at which all processes are there.

On CPUs, the first one that has these devices makes their connections, for which every process must come within 30 seconds of the
others. The training step would be too late: one process may compile it for longer, or read its data.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gensupcon_jax.cluster.sharding import batch_sharding, make_mesh, replicated


def meet(wait_fn: Callable[[], Any]) -> None:
    """Connect all devices; later computations keep the connections.

    wait_fn: returns when all processes have called it.
    """
    mesh = make_mesh()
    ones = jax.make_array_from_callback((mesh.size,), batch_sharding(mesh), lambda _: np.ones(1, np.float32))
    sum_fn = jax.jit(jnp.sum, out_shardings=replicated(mesh)).lower(ones).compile()
    wait_fn()
    num_devices = float(sum_fn(ones))
    assert num_devices == mesh.size, f"{num_devices:.0f} of {mesh.size} devices have met"
