"""One training step: augment, mix, loss, gradients, update. Pure, and the same on any number of devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, Float, UInt8

from gensupcon_jax.cluster.sharding import BATCH, DATA_AXIS, REPLICATED, make_replicated
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.instances import unlabeled_places
from gensupcon_jax.method.objectives import MixedBatch, Objective
from gensupcon_jax.method.spikes import SpikeRule
from gensupcon_jax.method.state import TrainState, partition_specs
from gensupcon_jax.views.augment import per_image_keys

_LOCAL_STREAM = 2  # after the two keys of augmentation and mixing, into which the step's key is split


def build_view_fn(
    augment_fn: Callable,
    mix_fn: Callable,
    places: int | None = None,
    local_augment_fn: Callable | None = None,
    *,
    use_labels: bool = True,
) -> Callable:
    """A function from stored images to views: view_fn(step_key, images, labels, first_index) -> MixedBatch.

    first_index is the position of the first image in the global batch: all draws depend on it, not on the device.
    places: the block of consecutive images that are mixed, where some have no label; 1 where none are mixed; None: all have one.
    local_augment_fn: makes the local views, of the same images, or of crops of the host, a fifth argument of view_fn. They are
    mixed like the views, in turn. The views are the same with local views and without.
    use_labels: False: no image has a label.
    """

    def view_fn(
        step_key: jax.Array,
        images: UInt8[Array, "batch height width channel"] | UInt8[Array, "batch view size size channel"],
        labels: Float[Array, "batch class"],
        first_index: Any,
        local_images: UInt8[Array, "batch local_view local_size local_size channel"] | None = None,
    ) -> MixedBatch:
        augment_key, mix_key = jax.random.split(step_key)
        num_images = images.shape[0]
        labels = labels if use_labels else jnp.zeros_like(labels)
        mixed_fn = functools.partial(
            _mixed_views, mix_fn, mix_key, labels=labels, first_index=first_index, places=places
        )
        # `plan` identifies the parts of the compiled step by the named scopes here and in objectives.py.
        with jax.named_scope("augment"):
            views = augment_fn(per_image_keys(augment_key, first_index, num_images), images)
        with jax.named_scope("mix"):
            mixed = mixed_fn(views)
        if local_augment_fn is None:
            return mixed
        with jax.named_scope("augment"):
            keys = per_image_keys(jax.random.fold_in(step_key, _LOCAL_STREAM), first_index, num_images)
            local_views = local_augment_fn(keys, images if local_images is None else local_images)
        with jax.named_scope("mix"):
            return mixed._replace(local=mixed_fn(local_views, like=views.shape[1]))

    return view_fn


def _mixed_views(
    mix_fn: Callable,
    key: jax.Array,
    views: Float[Array, "batch view size size channel"],
    *,
    labels: Float[Array, "batch class"],
    places: int | None,
    **settings: Any,
) -> MixedBatch:
    """The views and their labels, mixed."""
    if places is None:
        return MixedBatch(*mix_fn(key, views, labels, **settings))
    # Partners are of the same block, so the places of their images are mixed like further classes.
    rows = jnp.concatenate([labels, unlabeled_places(labels, places)], axis=1)
    mixed, rows = mix_fn(key, views, rows, **settings)
    return MixedBatch(mixed, rows[..., : labels.shape[1]], rows[..., labels.shape[1] :])


def step_inputs(
    view_fn: Callable, state: TrainState, batch: Batch, seed_key: jax.Array
) -> tuple[MixedBatch, jax.Array]:
    """Inside `shard_map`: the views and labels of this step, and the key for the loss."""
    step_key = jax.random.fold_in(seed_key, state.step)
    view_key, loss_key = jax.random.split(step_key)
    first_index = jax.lax.axis_index(DATA_AXIS) * batch.images.shape[0]
    local_images = () if batch.local_images is None else (batch.local_images,)
    return view_fn(view_key, batch.images, batch.labels, first_index, *local_images), loss_key


def build_train_step_fn(
    objective: Objective,
    view_fn: Callable,
    mesh: Mesh | AbstractMesh,
    max_skipped_steps: int = 0,
    average_fn: Callable | None = None,
    spike_rule: SpikeRule | None = None,
) -> Callable:
    """train_step_fn(state, frozen, batch, seed_key) -> (state, metrics), jitted, with the state donated.

    state, frozen and seed_key are replicated, the batch and the state's queue are sharded; metrics are scalars.
    A step in which the loss, a gradient, the update or BatchNorm's statistics are not finite is skipped: it changes only
    `step` and `skipped_steps`; so is one that `spike_rule` finds to be a spike, which is counted apart as well. After more than
    max_skipped_steps of them no step changes anything, not even `step`:
    metrics["diverged"] is 1, and the state stays the last good one however late this is noticed.
    average_fn: (state before, state after) -> fields of a moving average, see `averages.Average`; None: there is none.
    """

    def train_step(state: TrainState, frozen: Any, batch: Batch, seed_key: jax.Array) -> tuple[TrainState, dict]:
        mixed, loss_key = step_inputs(view_fn, state, batch, seed_key)

        def loss_fn(params):
            return objective.loss(params, state, frozen, mixed, loss_key)

        # The loss is a mean over all devices and the parameters are replicated, so shard_map itself
        # (check_vma) sums the gradients: a psum here would count them twice.
        (_, aux), gradients = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        with jax.named_scope("update"):
            with jax.named_scope("optimizer"):
                updates, opt_state = state.tx.update(gradients, state.opt_state, state.params)
            candidate = state.replace(
                step=state.step + 1,
                params=optax.apply_updates(state.params, updates),
                opt_state=opt_state,
                **aux.updates,
            )
            if average_fn is not None:
                candidate = candidate.replace(**average_fn(state, candidate))
            metrics = make_replicated(aux.metrics) | {"gradient_norm": optax.global_norm(gradients)}
            with jax.named_scope("guard"):
                return _guarded(state, candidate, updates, metrics, max_skipped_steps, spike_rule)

    def sharded(state, frozen, batch, seed_key):
        state_specs = partition_specs(state)
        return jax.shard_map(
            train_step,
            mesh=mesh,
            in_specs=(state_specs, REPLICATED, BATCH, REPLICATED),
            out_specs=(state_specs, REPLICATED),
        )(state, frozen, batch, seed_key)

    return jax.jit(sharded, donate_argnums=0)


def _guarded(
    state: TrainState,
    candidate: TrainState,
    updates: Any,
    metrics: dict[str, Float[Array, ""]],
    max_skipped_steps: int,
    spike_rule: SpikeRule | None = None,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """The candidate if everything in its step is finite and it is no spike, else the old state; and the metrics."""
    update_norm = optax.global_norm(updates)
    statistics = sum(map(jnp.sum, jax.tree.leaves(candidate.batch_stats)), jnp.zeros(()))
    is_accepted = jnp.isfinite(metrics["loss"] + metrics["gradient_norm"] + update_norm + statistics)
    had_diverged = state.skipped_steps > max_skipped_steps
    is_spike = None
    if spike_rule is not None:
        with jax.named_scope("spikes"):
            is_spike = spike_rule.is_spike(state.spikes, metrics) & is_accepted
            is_accepted &= ~is_spike
            candidate = candidate.replace(spikes=spike_rule.accepted(state.spikes, metrics))
    skipped_steps = state.skipped_steps + jnp.where(is_accepted | had_diverged, 0, 1)
    has_diverged = skipped_steps > max_skipped_steps
    kept = jax.tree.map(lambda new, old: jnp.where(is_accepted & ~had_diverged, new, old), candidate, state)
    kept = kept.replace(step=jnp.where(has_diverged, state.step, candidate.step), skipped_steps=skipped_steps)
    if is_spike is not None:
        num_spikes = state.spikes["num_spikes"] + jnp.where(is_spike & ~had_diverged, 1, 0)
        kept = kept.replace(spikes=kept.spikes | {"num_spikes": num_spikes})
        metrics |= {"spikes": num_spikes.astype(jnp.float32)}
    return kept, metrics | {
        "update_ratio": update_norm / jnp.maximum(optax.global_norm(state.params), 1e-12),
        "skipped_steps": skipped_steps.astype(jnp.float32),
        "diverged": has_diverged.astype(jnp.float32),
    }
