"""Calls of a network by an objective: parameters and running statistics in, outputs and new statistics out.

A network keeps its variables in "params" and its running statistics, if any, in "batch_stats", which is otherwise an
empty dict.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
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


def apply_training(
    model: nn.Module,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    images: Float[Array, "batch height width channel"],
    rng: jax.Array | None,
    *,
    axis_name: str | None,
    method: str | None = None,
) -> tuple[Any, Any]:
    """The outputs of the network in training mode, and its new running statistics, the same on all devices.

    A network may draw from the stream "dropout", with a different key per device: these draws, unlike all others,
    depend on the number of devices.
    """
    variables = {"params": without_classifier(params), "batch_stats": batch_stats}
    if rng is not None and axis_name is not None:
        rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
    rngs = None if rng is None else {"dropout": rng}
    output, changed = model.apply(variables, images, train=True, method=method, mutable=["batch_stats"], rngs=rngs)
    return output, make_replicated(changed.get("batch_stats", {}))


def variables_of(state: Any) -> dict[str, Any]:
    """The network of a state, without the classifier beside it, as `model.apply` takes it."""
    return {"params": without_classifier(state.params), "batch_stats": state.batch_stats}


def without_classifier(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the network itself."""
    return {name: part for name, part in params.items() if name != "classifier"}
