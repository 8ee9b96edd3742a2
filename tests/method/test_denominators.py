"""Class-balanced denominators: by hand, and in each mode against naive sums over all pairs, on 1, 2 and 8 devices."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.cluster import sharding
from gensupcon_jax.method import objectives
from gensupcon_jax.method.denominators import class_balanced_weights
from gensupcon_jax.method.objectives import MixedBatch, Momentum, TeacherLabels
from gensupcon_jax.method.state import create_state, partition_specs
from gensupcon_jax.models.heads import EncoderOutput, unit_normalize

BATCH_SIZE, NUM_VIEWS, NUM_CLASSES, DIM, SLOTS = 16, 2, 5, 6, 3
TEMPERATURE = 0.5


def test_weights_by_hand():
    labels = np.float32([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(class_balanced_weights(labels), [1 / 3, 1 / 3, 1 / 3, 1, 0])
    allowed = np.array([True, False, True, True, True])
    np.testing.assert_allclose(class_balanced_weights(labels, allowed), [1 / 2, 0, 1 / 2, 1, 0])
    # Expected counts of mixed labels: 1.75 and 0.25; a row need not sum to 1.
    mixed = np.array([[2.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(class_balanced_weights(mixed), [1 / 1.75, 0.75 / 1.75 + 1.0], rtol=1e-6)


def test_the_weights_of_all_classes_that_are_present_add_up_to_their_number():
    labels = np.random.default_rng(0).dirichlet(np.full(7, 0.3), 50)
    assert float(class_balanced_weights(labels).sum()) == pytest.approx(7.0, rel=1e-5)
    assert not class_balanced_weights(np.zeros((4, 3))).any()


# ---- the objective


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


def naive_loss(params, mode, symmetric, state, batch, kind):
    """Sums over all pairs; each class counts once in the denominator."""
    total = 0.0
    sides = sides_of(mode, symmetric, state, params, batch, kind)
    for anchors, contrasts, anchor_labels, contrast_labels, allowed in sides:
        present = allowed.any(axis=0)
        weights = np.zeros(len(contrast_labels))
        for each in range(NUM_CLASSES):
            share = np.where(present, np.asarray(contrast_labels)[:, each], 0.0)
            weights += share / share.sum()
        similarity = cosines(np.asarray(anchor_labels), np.asarray(contrast_labels)) * allowed
        logits = anchors @ contrasts.T / TEMPERATURE
        log_sum = jnp.log(jnp.sum(allowed * weights * jnp.exp(logits), axis=1, keepdims=True))
        loss = -jnp.sum(similarity * (logits - log_sum), axis=1) / similarity.sum(axis=1)
        total += loss.mean() / len(sides)
    return total


def assert_same(first, second, tolerance=2e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=tolerance), first, second)


@pytest.mark.parametrize(
    ("mode", "symmetric"), [("all", False), ("one", False), ("momentum", False), ("momentum", True)]
)
def test_each_mode_is_the_naive_sum_on_1_2_and_8_devices(mode, symmetric):
    objective = build(mode, symmetric, denominator="balanced")
    state, batch = problem(objective, mode)
    value, gradient = jax.value_and_grad(naive_loss)(state.params, mode, symmetric, state, batch, batch.labels)
    for num_devices in (1, 2, 8):
        found, found_gradient = on_devices(num_devices, objective, state, batch)
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        assert_same(found_gradient, gradient)


def test_the_loss_of_a_teacher_is_balanced_by_its_own_classes():
    rng = np.random.default_rng(9)
    taught = soft(rng, BATCH_SIZE, NUM_VIEWS)
    teacher = TeacherLabels(lambda _, images: jnp.asarray(taught.reshape(-1, NUM_CLASSES)), 0.5)
    objective = build("momentum", denominator="balanced", teacher=teacher)
    state, batch = problem(objective, "momentum")
    found, _ = on_devices(1, objective, state, batch)
    expected = naive_loss(state.params, "momentum", False, state, batch, batch.labels)
    expected += 0.5 * naive_loss(state.params, "momentum", False, state, batch, jnp.asarray(taught))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_chance_level_is_the_log_of_the_number_of_classes():
    labels = jnp.eye(NUM_CLASSES)[jnp.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 4])]
    views = jnp.stack([labels, labels], axis=1)
    settings = {"temperature": 0.1, "denominator": "balanced"}
    one = objectives.contrastive_chance_loss(views, mode="one", **settings)
    assert one == pytest.approx(np.log(NUM_CLASSES), rel=1e-6)
    # Among themselves an anchor leaves itself out: of a class of 8, 4 or 2 views in all.
    expected = np.log([NUM_CLASSES - 1 / 8] * 8 + [NUM_CLASSES - 1 / 4] * 8 + [NUM_CLASSES - 1 / 2] * 4).mean()
    among = objectives.contrastive_chance_loss(views, mode="all", **settings)
    assert among == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_a_plain_denominator_costs_nothing(monkeypatch, mode):
    def program(**settings):
        objective = build(mode, **settings)
        state, batch = problem(objective, mode)
        settings = {"axis_env": [("data", 1)]}
        loss = functools.partial(objective.loss, state=state, frozen={}, batch=batch, rng=None)
        return str(jax.make_jaxpr(lambda params: loss(params)[0], **settings)(state.params))

    balanced = program(denominator="balanced")
    monkeypatch.setattr(objectives, "class_balanced_weights", lambda *arguments, **settings: 1 / 0)
    plain = program()
    assert plain == program(denominator="plain")
    assert len(plain) < len(balanced)
