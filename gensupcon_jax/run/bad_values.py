"""Values that are not finite in the arrays of a step: how many, where the first is, and of which images of the batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gensupcon_jax.cluster.sharding import DATA_AXIS


class Watched(NamedTuple):
    """An array of a step, known while the step is traced.

    kind: "parameter", "images", "labels", "predictions", "output", "loss", "output gradient", "gradient", "update",
    "statistics" or "norm".  shape: on one device.  call: of a module that is called several times, from 0.  is_whole: the
    output of a module that consists of others, which is that of one of these.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    call: int = 0
    is_whole: bool = False


class Bad(NamedTuple):
    """The first value of an array that is not finite.

    device: that has it.  index: in the array of this device.  value: inf, -inf or nan.  count: of values on all devices that are
    not finite.  images: of the batch, from 0, which have one; empty where the array has no row per image.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    device: int
    index: tuple[int, ...]
    value: float
    count: int
    images: tuple[int, ...] = ()


def is_watched(leaf: Any) -> bool:
    """Whether an array can have values that are not finite."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) and jnp.size(leaf) > 0


def bad_summary(array: jax.Array) -> dict[str, jax.Array]:
    """Inside `shard_map`: of every device, the number of bad values, the first one and its place, and the rows that have any."""
    bad = ~jnp.isfinite(array)
    flat = bad.ravel()
    first = jnp.argmax(flat)
    rows = bad.reshape(array.shape[0] if array.ndim else 1, -1).any(axis=1)
    found = {"count": flat.sum(), "first": first, "value": array.ravel()[first].astype(jnp.float32), "rows": rows}
    return {name: _of_all_devices(leaf) for name, leaf in found.items()}


def _of_all_devices(leaf: jax.Array) -> jax.Array:
    leaf = leaf.astype(jnp.int32) if leaf.dtype == jnp.bool_ else leaf
    own = jnp.zeros((jax.lax.axis_size(DATA_AXIS), *leaf.shape), leaf.dtype)
    return jax.lax.psum(own.at[jax.lax.axis_index(DATA_AXIS)].set(leaf), DATA_AXIS)


class Layout(NamedTuple):
    """How the rows of activations follow from the images of the batch.

    local_batch: images per device.  num_parts: in which a network takes them.  are_exchanged: later calls than the first see
    images of other devices.
    """

    local_batch: int
    num_parts: int = 1
    are_exchanged: bool = False

    def images(self, watched: Watched, rows: np.ndarray, num_calls: int) -> tuple[int, ...]:
        """The images that these rows [device, row] are of; none where they are not rows of images."""
        if watched.kind not in ("images", "labels", "predictions", "output", "output gradient") or not watched.shape:
            return ()
        in_parts = watched.kind.startswith("output") and num_calls % self.num_parts == 0
        num_parts = self.num_parts if in_parts else 1
        per_image, rest = divmod(watched.shape[0] * num_parts, self.local_batch)
        if rest or not per_image or (self.are_exchanged and watched.call >= num_parts):
            return ()
        device, row = np.nonzero(rows)
        place = (watched.call % num_parts * watched.shape[0] + row) // per_image
        return tuple(np.unique(device * self.local_batch + place).tolist())


def first_bad(watched: Sequence[Watched], found: Sequence[dict[str, Any]], layout: Layout) -> Bad | None:
    """The first array with a value that is not finite, in this order; None if there is none."""
    calls: dict[tuple[str, str], int] = {}
    for each in watched:
        calls[each.kind, each.name] = max(calls.get((each.kind, each.name), 0), each.call + 1)
    for each, of_devices in zip(watched, found, strict=True):
        counts = np.asarray(of_devices["count"])
        if not counts.any():
            continue
        device = int(np.flatnonzero(counts)[0])
        index = tuple(int(place) for place in np.unravel_index(int(of_devices["first"][device]), each.shape))
        is_shared = each.kind in ("parameter", "gradient", "update", "statistics", "loss", "norm")
        return Bad(
            kind=each.kind,
            name=each.name,
            shape=each.shape,
            device=device,
            index=index,
            value=float(of_devices["value"][device]),
            count=int(counts[device] if is_shared else counts.sum()),
            images=layout.images(each, np.asarray(of_devices["rows"]), calls[each.kind, each.name]),
        )
    return None
