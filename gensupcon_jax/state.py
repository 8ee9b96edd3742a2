"""What one training step reads and replaces."""

from typing import Any

import flax.training.train_state
import jax
import jax.numpy as jnp
import optax
from flax import struct


class TrainState(flax.training.train_state.TrainState):
    """Flax's step, parameters and optimiser state, and BatchNorm's running statistics.

    `apply_fn` is None: an Objective holds the functions. Flax declares `step` and `params` more narrowly than jax fills
    them: specs, shapes and numpy arrays stand there too.
    """

    step: Any
    apply_fn: Any = struct.field(pytree_node=False)
    params: Any = struct.field(pytree_node=True)
    batch_stats: Any = struct.field(pytree_node=True)


def create_state(variables: dict, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step, from a network's `params` and `batch_stats` (ours)."""
    state = TrainState.create(
        apply_fn=None, params=variables["params"], tx=tx, batch_stats=variables.get("batch_stats", {})
    )
    # An array, so that the first and the second call of a jitted step have the same signature.
    return state.replace(step=jnp.zeros((), jnp.int32))


def saved_fields(state: TrainState) -> dict:
    """The arrays a checkpoint holds: everything but functions (ours)."""
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "batch_stats": state.batch_stats,
    }


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes, dtypes and sharding of a tree of arrays, for a restore (ours)."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
