"""The state that a training step reads and replaces."""

from typing import Any

import flax.training.train_state
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from gensupcon_jax.cluster.sharding import QUEUE, REPLICATED

_FIELDS = (
    "step",
    "params",
    "opt_state",
    "batch_stats",
    "ema_params",
    "ema_batch_stats",
    "queue",
    "skipped_steps",
    "spikes",
)


class TrainState(flax.training.train_state.TrainState):
    """Flax's step, parameters and optimizer state, BatchNorm's running statistics, and the momentum encoder with its queue.

    `skipped_steps`: the number of steps that were skipped.  `spikes`: what tells a spike, see `spikes.py`; None where none are
    looked for.

    `apply_fn` is None: an Objective has the functions. The types of `step` and `params` are wider than Flax's, as trees of
    specs, shapes and numpy arrays have this form too.
    """

    step: Any
    apply_fn: Any = struct.field(pytree_node=False)
    params: Any = struct.field(pytree_node=True)
    batch_stats: Any = struct.field(pytree_node=True)
    skipped_steps: Any = 0
    ema_params: Any = None
    ema_batch_stats: Any = None
    queue: Any = None
    spikes: Any = None


def create_state(variables: dict, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step, from an objective's variables: `params` and other fields of the state."""
    state = TrainState.create(apply_fn=None, tx=tx, **{"batch_stats": {}, **variables})
    # An array, so that the first and the second call of a jitted step have the same signature.
    return state.replace(step=jnp.zeros((), jnp.int32), skipped_steps=jnp.zeros((), jnp.int32))


def saved_fields(state: TrainState) -> dict:
    """The arrays in a checkpoint: everything but functions and unused fields."""
    fields = {name: getattr(state, name) for name in _FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


def partition_specs(state: TrainState) -> TrainState:
    """The partition spec of each leaf: the queue is sharded along its batch axis, everything else is replicated."""
    specs = jax.tree.map(lambda _: REPLICATED, state)
    return specs.replace(queue=jax.tree.map(lambda _: QUEUE, state.queue))


def state_shardings(state: TrainState, mesh: Mesh | AbstractMesh) -> TrainState:
    """`partition_specs` on this mesh."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), partition_specs(state))


def abstract(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of placed arrays, for a restore."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)
