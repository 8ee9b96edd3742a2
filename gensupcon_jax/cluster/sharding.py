"""The mesh of all devices, and the shardings of arrays on it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from gensupcon_jax.errors import UserError

DATA_AXIS = "data"
REPLICATED = PartitionSpec()
BATCH = PartitionSpec(DATA_AXIS)
QUEUE = PartitionSpec(None, DATA_AXIS)  # [slot, batch, ...]


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """One axis, `data`, over the given devices or all devices of all processes, grouped by process."""
    devices = list(devices) if devices is not None else jax.devices()
    # Not jax.make_mesh, which may reorder: process p reads the p-th share of a batch, so its devices must hold that share.
    ordered = np.array(sorted(devices, key=lambda device: device.process_index), object)
    # jax 0.10 makes Explicit axes by default; here the code of the step determines the placement of arrays.
    return Mesh(ordered, (DATA_AXIS,), axis_types=(AxisType.Auto,))


def place(tree: Any, shardings: Any) -> Any:
    """Place arrays that are equal on every process on the devices of all processes.

    `jax.device_put` does not transfer to the devices of other processes.
    """
    return jax.jit(lambda arrays: arrays, out_shardings=shardings)(tree)


def abstract_mesh(num_devices: int) -> AbstractMesh:
    """The same axis over so many devices that are not here, to trace and lower for."""
    return AbstractMesh((num_devices,), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, REPLICATED)


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The first axis sharded over the devices."""
    return NamedSharding(mesh, BATCH)


def local_batch_size(batch_size: int, num_devices: int, field: str = "batch_size") -> int:
    """Images per device; UserError with the nearest valid sizes if the batch is not divisible."""
    if batch_size % num_devices or batch_size < 1:
        lower = batch_size // num_devices * num_devices
        nearest = " or ".join(str(size) for size in (lower, lower + num_devices) if size > 0)
        raise UserError(
            f"{field} is {batch_size}, not divisible by {num_devices} devices; set {field} to {nearest}, "
            "or use another number of devices"
        )
    return batch_size // num_devices


def make_replicated(tree, axis_name: str = DATA_AXIS):
    """Inside `shard_map`: the mean over devices of every leaf that may differ between them; other leaves are unchanged."""

    def mean(leaf):
        varying = jax.typeof(leaf).manual_axis_type.varying  # called `vma` before jax 0.10
        return jax.lax.pmean(leaf, axis_name) if axis_name in varying else leaf

    return jax.tree.map(mean, tree)
