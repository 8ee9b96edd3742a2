"""The queue of the momentum encoder's keys and their labels: [slot, batch, ...], the batch axis sharded like the data."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gensupcon_jax.errors import UserError

# A queue is a dict of arrays [slot, batch, ...]: `embeddings`, `labels` and, with a teacher, its `probabilities`. Every
# step fills the next slots, so nothing crosses devices and a checkpoint fits any number of them. `filled` is 1 where a key was
# stored: the number of steps does not tell, as a skipped step leaves its slots as they were.
Queue = dict[str, Array]


def num_slots(queue_size: int, batch_size: int, num_key_views: int = 1) -> int:
    """Slots of a queue of this many keys; UserError with the nearest sizes if it is not a multiple of the batch size.

    A step fills `num_key_views` slots, so a nonempty queue has at least that many.
    """
    slots, rest = divmod(queue_size, batch_size)
    least = num_key_views * batch_size
    if rest or 0 < queue_size < least:
        lower = slots * batch_size if slots >= num_key_views else 0
        nearest = sorted({lower, max(lower + batch_size, least)})
        raise UserError(
            f"momentum_encoder.queue_size is {queue_size}; allowed: 0 or a multiple of batch_size ({batch_size}) from {least}; "
            f"nearest: {' or '.join(map(str, nearest))}"
        )
    return slots


def empty_queue(slots: int, batch_size: int, **sizes: int) -> Queue:
    """A queue without keys; sizes are the last axes of its arrays, such as embeddings=128, labels=10."""
    return {name: jnp.zeros((slots, batch_size, size)) for name, size in (sizes | {"filled": 1}).items()}


def enqueue(queue: Queue, keys: dict[str, Float[Array, "batch view dim"]], step: Int[Array, ""] | int) -> Queue:
    """The keys of step `step`, each view in place of the oldest slot (MoCo, arXiv 1911.05722; layout: ours)."""
    slots, num_views = len(queue["embeddings"]), keys["embeddings"].shape[1]
    keys = keys | {"filled": jnp.ones_like(keys["embeddings"][..., :1])}
    for view in range(num_views):
        slot = (step * num_views + view) % slots
        queue = {
            name: jax.lax.dynamic_update_index_in_dim(stored, keys[name][:, view].astype(stored.dtype), slot, axis=0)
            for name, stored in queue.items()
        }
    return queue


def queue_contents(queue: Queue) -> tuple[dict[str, Float[Array, "key dim"]], Bool[Array, " key"]]:
    """All keys [slot * batch, ...], and a mask of the places that hold one."""
    flat = {name: stored.reshape(-1, stored.shape[-1]) for name, stored in queue.items()}
    return flat, flat.pop("filled")[:, 0] > 0
