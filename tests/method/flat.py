"""The contrastive objective on a network of two small layers, and its anchors and contrasts in plain arrays."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from gensupcon_jax.cluster import sharding
from gensupcon_jax.method import objectives
from gensupcon_jax.method.objectives import MixedBatch, Momentum
from gensupcon_jax.method.state import create_state, partition_specs
from gensupcon_jax.models.heads import EncoderOutput, unit_normalize

BATCH_SIZE, NUM_VIEWS, NUM_CLASSES, DIM, SLOTS = 16, 2, 5, 6, 3
TEMPERATURE = 0.5
MODES = [("all", False), ("one", False), ("momentum", False), ("momentum", True)]  # mode, symmetric


class Flat(nn.Module):
    """Two small layers: features, then embeddings."""

    @property
    def head(self):
        return types.SimpleNamespace(embedding_dim=DIM)

    @nn.compact
    def __call__(self, images, *, train):
        features = jnp.tanh(nn.Dense(8, name="backbone")(images.reshape(len(images), -1)))
        return EncoderOutput(features, unit_normalize(nn.Dense(DIM, name="out")(features)))


def soft(rng, *shape):
    return rng.dirichlet(np.full(NUM_CLASSES, 0.3), shape).astype(np.float32)


def problem(objective, mode):
    """-> state and batch; the queue has some keys and one empty slot."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(BATCH_SIZE, NUM_VIEWS, 3, 3, 1)).astype(np.float32)
    batch = MixedBatch(jnp.asarray(images), jnp.asarray(soft(rng, BATCH_SIZE, NUM_VIEWS)))
    state = create_state(objective.init(jax.random.key(0), jnp.zeros((1, 3, 3, 1))), optax.sgd(0.1))
    if mode != "momentum":
        return state, batch
    queue = {name: soft(rng, SLOTS, BATCH_SIZE) for name in ("labels", "probabilities") if name in state.queue}
    queue["embeddings"] = unit_normalize(jnp.asarray(rng.normal(size=(SLOTS, BATCH_SIZE, DIM))))
    queue["filled"] = np.ones((SLOTS, BATCH_SIZE, 1), np.float32) * np.float32([1, 0, 1])[:, None, None]
    other = jax.tree.map(lambda leaf: leaf + 0.3, state.ema_params)
    return state.replace(queue=jax.tree.map(jnp.asarray, queue), ema_params=other), batch


def build(mode, symmetric=False, **settings):
    momentum = Momentum(1.0, queue_size=SLOTS * BATCH_SIZE, batch_size=BATCH_SIZE, symmetric=symmetric)
    return objectives.contrastive(
        Flat(), mode=mode, temperature=TEMPERATURE, num_classes=NUM_CLASSES, momentum=momentum, tile_size=5, **settings
    )


def on_devices(num_devices, objective, state, batch):
    """-> loss and gradients of the parameters."""
    everywhere, rows = PartitionSpec(), PartitionSpec("data")

    def value_and_gradient(state, batch):
        def loss(params):
            return objective.loss(params, state, {"teacher": None}, batch, None)[0]

        return jax.value_and_grad(loss)(state.params)

    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    specs = (partition_specs(state), rows)
    return jax.jit(jax.shard_map(value_and_gradient, mesh=mesh, in_specs=specs, out_specs=(everywhere, everywhere)))(
        state, batch
    )


def sides_of(mode, symmetric, state, params, batch, kind):
    """For each query view: anchors, contrasts, labels of both, and which pairs there are. All of it in plain arrays."""
    (embeddings, keys), labels = (encoded(each, batch.images) for each in (params, state.ema_params or params)), kind
    if mode == "all":
        anchors, labels = embeddings.reshape(-1, DIM), labels.reshape(-1, NUM_CLASSES)
        return [(anchors, anchors, labels, labels, ~np.eye(len(anchors), dtype=bool))]
    found = []
    for view in (0, 1) if symmetric else (0,):
        contrasts = (jax.lax.stop_gradient(keys) if mode == "momentum" else embeddings)[:, 1 - view]
        contrast_labels, allowed = labels[:, 1 - view], np.ones(BATCH_SIZE, bool)
        if mode == "momentum":
            name = "labels" if kind is batch.labels else "probabilities"
            contrasts = jnp.concatenate([contrasts, state.queue["embeddings"].reshape(-1, DIM)])
            contrast_labels = jnp.concatenate([contrast_labels, state.queue[name].reshape(-1, NUM_CLASSES)])
            allowed = np.append(allowed, np.asarray(state.queue["filled"]).ravel() > 0)
        found.append(
            (embeddings[:, view], contrasts, labels[:, view], contrast_labels, np.tile(allowed, (BATCH_SIZE, 1)))
        )
    return found


def encoded(params, images):
    output = Flat().apply({"params": params}, images.reshape(-1, *images.shape[2:]), train=True)
    return output.embeddings.reshape(BATCH_SIZE, NUM_VIEWS, DIM)


def cosines(left, right):
    return (left / np.linalg.norm(left, axis=1, keepdims=True)) @ (
        right / np.linalg.norm(right, axis=1, keepdims=True)
    ).T


def assert_same(first, second, tolerance=2e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=tolerance), first, second)


def program(objective, mode):
    """The jaxpr of the loss."""
    state, batch = problem(objective, mode)
    loss = functools.partial(objective.loss, state=state, frozen={}, batch=batch, rng=None)
    return str(jax.make_jaxpr(lambda params: loss(params)[0], axis_env=[("data", 1)])(state.params))
