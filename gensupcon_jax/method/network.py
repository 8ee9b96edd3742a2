"""Calls of a network by an objective: parameters and running statistics in, outputs and new statistics out.

A network keeps its variables in "params" and its running statistics, if any, in "batch_stats", which is otherwise an
empty dict.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gensupcon_jax.cluster.sharding import make_replicated
from gensupcon_jax.errors import UserError

COLLECTIONS = ("params", "batch_stats")


def fields_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """A network's variables as fields of the state; UserError for collections that the state does not keep."""
    others = sorted(set(variables) - set(COLLECTIONS))
    if others:
        raise UserError(
            f"model.name: the encoder has variables in {', '.join(map(repr, others))}; allowed: {' and '.join(COLLECTIONS)}; "
            "keep its running statistics in 'batch_stats', or choose another encoder"
        )
    return {name: variables.get(name, {}) for name in COLLECTIONS}


class Microbatches(NamedTuple):
    """The parts in which a network takes a device's images, one after the other.

    num_parts: a divisor of the images per device.  unrolled: without a loop and without recomputation, for a look inside.
    """

    num_parts: int = 1
    unrolled: bool = False


WHOLE = Microbatches()


class TrainingCall(NamedTuple):
    """How a network is called while training: the mesh axis, the method of the module (None: its call), and the parts."""

    axis_name: str | None
    method: str | None = None
    microbatches: Microbatches = WHOLE


def apply_training(
    model: nn.Module,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    images: Float[Array, "batch height width channel"],
    rng: jax.Array | None,
    *,
    settings: TrainingCall,
) -> tuple[Any, Any]:
    """The outputs of the network in training mode, and its new running statistics, the same on all devices.

    In several parts only the outputs are kept; the gradient computes each part again, so activations are those of one part
    (GradCache, arXiv 2101.06983). Each part has BatchNorm statistics of its own, as on a device of its own, and the running ones
    are the mean over the parts. A network may draw from the stream "dropout", with a different key per device and part: these
    draws, unlike all others, depend on the number of devices.
    """
    axis_name, method, (num_parts, unrolled) = settings
    variables = {"params": without_classifier(params), "batch_stats": batch_stats}
    if rng is not None and axis_name is not None:
        rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))

    def of_part(part: tuple[Any, Any]) -> tuple[Any, Any]:
        part_images, key = part
        rngs = None if key is None else {"dropout": key}
        output, changed = model.apply(
            variables, part_images, train=True, method=method, mutable=["batch_stats"], rngs=rngs
        )
        return output, changed.get("batch_stats", {})

    if num_parts == 1:
        output, changed = of_part((images, rng))
        return output, make_replicated(changed)
    parts = images.reshape(num_parts, -1, *images.shape[1:]), None if rng is None else jax.random.split(rng, num_parts)
    if unrolled:
        each = [of_part(jax.tree.map(lambda leaf, part=part: leaf[part], parts)) for part in range(num_parts)]
        outputs, changed = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    else:
        outputs, changed = jax.lax.map(jax.checkpoint(of_part), parts)
    output = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
    return output, make_replicated(jax.tree.map(lambda leaf: leaf.mean(axis=0), changed))


def variables_of(state: Any) -> dict[str, Any]:
    """The network of a state, without the classifier beside it, as `model.apply` takes it."""
    return {"params": without_classifier(state.params), "batch_stats": state.batch_stats}


def without_classifier(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the network itself."""
    return {name: part for name, part in params.items() if name != "classifier"}
