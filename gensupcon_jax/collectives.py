"""Sums, means and gathers over the devices of a mapped axis; without an axis, of the local arrays."""

from collections.abc import Iterable
from typing import Any

import jax
from jaxtyping import Array, Float


def num_devices(axis_name: str | None) -> int:
    """Number of devices of the axis; 1 without an axis."""
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)


def first_number(num_rows: int, axis_name: str | None) -> Any:
    """Index of this device's first row in the array of all devices, with num_rows per device."""
    return 0 if axis_name is None else jax.lax.axis_index(axis_name) * num_rows


def sum_over(tree: Any, axis_name: str | None) -> Any:
    """The sum over devices of every leaf."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def mean_over(values: Float[Array, " row"], axis_name: str | None) -> Float[Array, ""]:
    """The mean over the rows of all devices."""
    return sum_over(values.sum(), axis_name) / (len(values) * num_devices(axis_name))


def max_over(array: Any, axis_name: str | None) -> Any:
    """The entry-wise maximum over devices."""
    return array if axis_name is None else jax.lax.pmax(array, axis_name)


def gather(tree: Any, axis_name: str | None) -> Any:
    """The concatenated arrays of all devices."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def varying(tree: Any, axis_names: str | Iterable[str] | None) -> Any:
    """Inside `shard_map`, the tree marked as varying over these axes, as jax requires; elsewhere unchanged."""
    names = {axis_names} if isinstance(axis_names, str) else set(axis_names or ())
    names &= set(jax.sharding.get_abstract_mesh().manual_axes)

    def declared(array):
        missing = names - jax.typeof(array).manual_axis_type.varying
        return jax.lax.pcast(array, tuple(sorted(missing)), to="varying") if missing else array

    return jax.tree.map(declared, tree) if names else tree


def exchanged(rows: Float[Array, "batch ..."], axis_name: str | None) -> Float[Array, "batch ..."]:
    """Every device's rows cut into one part per device, part d sent to device d; the same again puts all rows back in place.

    The number of rows must be a multiple of the number of devices.
    """
    if axis_name is None:
        return rows
    return jax.lax.all_to_all(rows, axis_name, split_axis=0, concat_axis=0, tiled=True)
