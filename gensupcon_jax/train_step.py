"""One training step: augment, mix, loss, gradients, update. Pure, and the same on any number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Float, UInt8

from gensupcon_jax.augment import per_image_keys
from gensupcon_jax.input_pipeline import Batch
from gensupcon_jax.objectives import MixedBatch, Objective
from gensupcon_jax.sharding import BATCH, DATA_AXIS, REPLICATED, make_replicated
from gensupcon_jax.state import TrainState, partition_specs


def build_view_fn(augment_fn: Callable, mix_fn: Callable) -> Callable:
    """Stored images -> what the network sees: view_fn(step_key, images, labels, first_index) -> MixedBatch (ours).

    first_index is the position of the first image in the global batch: all draws follow from it, none from the device.
    """

    def view_fn(
        step_key: jax.Array,
        images: UInt8[Array, "batch height width channel"] | UInt8[Array, "batch view size size channel"],
        labels: Float[Array, "batch class"],
        first_index: Any,
    ) -> MixedBatch:
        augment_key, mix_key = jax.random.split(step_key)
        # The named scopes here and in objectives.py are how `plan` tells the parts of the compiled step apart.
        with jax.named_scope("augment"):
            views = augment_fn(per_image_keys(augment_key, first_index, images.shape[0]), images)
        with jax.named_scope("mix"):
            return MixedBatch(*mix_fn(mix_key, views, labels, first_index=first_index))

    return view_fn


def build_train_step_fn(objective: Objective, view_fn: Callable, mesh: Mesh | AbstractMesh) -> Callable:
    """train_step_fn(state, frozen, batch, seed_key) -> (state, metrics), jitted, the state donated (ours).

    state, frozen and seed_key lie on every device, the batch and the state's queue are spread; metrics are scalars.
    """

    def train_step(state: TrainState, frozen: Any, batch: Batch, seed_key: jax.Array) -> tuple[TrainState, dict]:
        step_key = jax.random.fold_in(seed_key, state.step)
        view_key, loss_key = jax.random.split(step_key)
        first_index = jax.lax.axis_index(DATA_AXIS) * batch.images.shape[0]
        mixed = view_fn(view_key, batch.images, batch.labels, first_index)

        def loss_fn(params):
            return objective.loss(params, state, frozen, mixed, loss_key)

        # The loss is a mean over all devices and the parameters lie on all of them, so shard_map's own
        # bookkeeping (check_vma) sums the gradients: a psum here would count them twice.
        (_, aux), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        with jax.named_scope("update"):
            metrics = make_replicated(aux.metrics) | {"gradient_norm": optax.global_norm(gradients)}
            return state.apply_gradients(grads=gradients, **aux.updates), metrics

    def sharded(state, frozen, batch, seed_key):
        state_specs = partition_specs(state)
        return jax.shard_map(
            train_step,
            mesh=mesh,
            in_specs=(state_specs, REPLICATED, BATCH, REPLICATED),
            out_specs=(state_specs, REPLICATED),
        )(state, frozen, batch, seed_key)

    return jax.jit(sharded, donate_argnums=0)
