"""Prototypes: PaCo's formula by hand, and in each mode against naive sums over all pairs, on 1, 2 and 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.method import objectives
from gensupcon_jax.method.denominators import class_balanced_weights, class_counts
from gensupcon_jax.method.diagnostics import batch_chance_loss
from gensupcon_jax.method.objectives import TeacherLabels
from gensupcon_jax.method.prototypes import Prototypes
from gensupcon_jax.models import Classifier
from tests.method.flat import (
    BATCH_SIZE,
    MODES,
    NUM_CLASSES,
    NUM_VIEWS,
    TEMPERATURE,
    Flat,
    assert_same,
    build,
    cosines,
    on_devices,
    problem,
    program,
    sides_of,
    soft,
)

SHARES = np.array([0.5, 0.25, 0.15, 0.1, 0.0])
PROTOTYPES = Prototypes(alpha=0.3, beta=0.8, label_smoothing=0.1, class_shares=SHARES)


def built(mode, symmetric=False, prototypes=PROTOTYPES, **settings):
    return build(mode, symmetric, classifier=Classifier(NUM_CLASSES), prototypes=prototypes, **settings)


def test_targets_and_prior_by_hand():
    prototypes = Prototypes(alpha=0.5, beta=2.0, label_smoothing=0.1, class_shares=np.array([0.75, 0.25, 0.0, 0.0]))
    labels = jnp.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]])
    centers = prototypes.centers(jnp.ones((3, 4)), labels)
    expected = [[1.85, 0.05, 0.05, 0.05], [0.95, 0.95, 0.05, 0.05], [0, 0, 0, 0]]
    np.testing.assert_allclose(centers.attraction, expected, rtol=1e-6)
    prior = 1 + np.log([0.75, 0.25, 1e-9, 1e-9])
    np.testing.assert_allclose(centers.logits, np.tile(prior, (3, 1)), rtol=1e-6)
    assert centers.contrast_attraction == 0.5 and centers.weights is None
    plain = Prototypes().centers(jnp.ones((3, 4)), labels)
    np.testing.assert_array_equal(plain.logits, 1.0)
    np.testing.assert_array_equal(plain.attraction, labels)


def naive_loss(params, mode, symmetric, state, batch, kind, balanced=False):
    """PaCo's loss: the centers are further columns of both matrices, and the log of the prior is a part of their logits."""
    total = 0.0
    sides = sides_of(mode, symmetric, state, params, batch, kind)
    images = batch.images.reshape(-1, *batch.images.shape[2:])
    features = Flat().apply({"params": params}, images, train=True).features.reshape(BATCH_SIZE, NUM_VIEWS, -1)
    for view, (anchors, contrasts, anchor_labels, contrast_labels, allowed) in enumerate(sides):
        of_anchors = features.reshape(-1, features.shape[-1]) if mode == "all" else features[:, view]
        output = params["classifier"]["output"]
        to_centers = of_anchors @ output["kernel"] + output["bias"] + np.log(np.maximum(SHARES, 1e-9))
        logits = jnp.concatenate([anchors @ contrasts.T / TEMPERATURE, to_centers], axis=1)
        of_contrasts = 0.3 * cosines(np.asarray(anchor_labels), np.asarray(contrast_labels)) * allowed
        of_centers = 0.8 * (0.9 * anchor_labels + 0.1 / NUM_CLASSES)
        attraction = jnp.concatenate([of_contrasts, of_centers], axis=1)
        weights = np.concatenate([allowed, np.ones((len(anchors), NUM_CLASSES))], axis=1).astype(float)
        if balanced:
            present = np.where(allowed.any(axis=0)[:, None], np.asarray(contrast_labels), 0.0)
            counts = present.sum(axis=0) + 1.0  # the center is one of its class
            weights *= np.concatenate([(present / counts).sum(axis=1), 1.0 / counts])
        log_sum = jnp.log(jnp.sum(weights * jnp.exp(logits), axis=1, keepdims=True))
        loss = -jnp.sum(attraction * (logits - log_sum), axis=1) / attraction.sum(axis=1)
        total += loss.mean() / len(sides)
    return total


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize(("mode", "symmetric"), MODES)
def test_each_mode_is_the_naive_sum_on_1_2_and_8_devices(mode, symmetric, balanced):
    objective = built(mode, symmetric, denominator="balanced" if balanced else "plain")
    state, batch = problem(objective, mode)
    arguments = (mode, symmetric, state, batch, batch.labels, balanced)
    value, gradient = jax.value_and_grad(naive_loss)(state.params, *arguments)
    assert np.abs(gradient["classifier"]["output"]["kernel"]).max() > 1e-3
    for num_devices in (1, 2, 8) if not balanced else (1, 8):
        found, found_gradient = on_devices(num_devices, objective, state, batch)
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        assert_same(found_gradient, gradient)


def test_a_teacher_attracts_to_the_centers_too_but_not_alone():
    taught = jnp.asarray(soft(np.random.default_rng(9), BATCH_SIZE, NUM_VIEWS))
    teacher = TeacherLabels(lambda _, images: taught.reshape(-1, NUM_CLASSES), 0.5)
    objective = built("momentum", teacher=teacher)
    state, batch = problem(objective, "momentum")
    found, _ = on_devices(1, objective, state, batch)
    sides = ("momentum", False, state, batch)
    expected = naive_loss(state.params, *sides, batch.labels) + 0.5 * naive_loss(state.params, *sides, taught)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(UserError, match=r"teacher\.weight is inf: without the labels no prototype"):
        built("all", teacher=teacher._replace(weight=float("inf")))
    with pytest.raises(UserError, match="prototypes are given without a classifier"):
        build("all", prototypes=PROTOTYPES)


def test_without_attraction_to_images_hard_labels_give_cross_entropy_with_distractors():
    objective = built("one", prototypes=Prototypes(alpha=0.0))
    state, batch = problem(objective, "one")
    hard = batch._replace(labels=jax.nn.one_hot(batch.labels.argmax(-1), NUM_CLASSES))
    found, _ = on_devices(1, objective, state, hard)
    prediction = objective.predict(state, None, batch.images[:, 0])
    ((anchors, contrasts, labels, _, _),) = sides_of("one", False, state, state.params, hard, hard.labels)
    logits = jnp.concatenate([prediction.logits, anchors @ contrasts.T / TEMPERATURE], axis=1)
    targets = jnp.pad(labels, ((0, 0), (0, BATCH_SIZE)))
    expected = optax.softmax_cross_entropy(logits, targets).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_they_classify_without_the_prior_and_are_parameters_outside_the_moving_average():
    objective = built("momentum")
    state, batch = problem(objective, "momentum")
    prediction = objective.predict(state, None, batch.images[:, 0])
    output = state.params["classifier"]["output"]
    expected = prediction.features @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(prediction.logits, expected, rtol=1e-5, atol=1e-6)
    assert "classifier" not in state.ema_params


@pytest.mark.parametrize(("mode", "num_contrasts"), [("all", 2 * BATCH_SIZE - 1), ("one", BATCH_SIZE)])
def test_chance_level_has_the_centers_among_the_contrasts(mode, num_contrasts):
    labels = jnp.eye(NUM_CLASSES)[jnp.arange(BATCH_SIZE) % NUM_CLASSES]
    views = jnp.stack([labels, labels], axis=1)
    found = objectives.contrastive_chance_loss(views, mode=mode, temperature=0.1, prototypes=Prototypes())
    assert found == pytest.approx(np.log(num_contrasts + NUM_CLASSES), rel=1e-6)


@pytest.mark.parametrize("normalizer", ["similarity", "count"])
@pytest.mark.parametrize("denominator", ["plain", "balanced"])
def test_the_diagnosed_chance_level_is_the_loss_of_equal_embeddings(denominator, normalizer):
    views = jnp.asarray(soft(np.random.default_rng(1), BATCH_SIZE, NUM_VIEWS))
    settings = {"mode": "all", "temperature": 0.1, "denominator": denominator, "normalizer": normalizer}
    expected = objectives.contrastive_chance_loss(views, **settings, prototypes=PROTOTYPES)
    labels = views.reshape(-1, NUM_CLASSES)
    weights = class_balanced_weights(labels, num_centers=1) if denominator == "balanced" else None
    of_centers = None if weights is None else 1.0 / (class_counts(labels) + 1.0)
    centers = PROTOTYPES.centers(jnp.zeros(labels.shape), labels, of_centers)
    found = batch_chance_loss(labels, contrast_weights=weights, normalizer=normalizer, centers=centers)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_without_prototypes_the_program_is_the_same(monkeypatch, mode):
    with_prototypes = program(built(mode), mode)
    monkeypatch.setattr(Prototypes, "centers", lambda *arguments: 1 / 0)
    plain = program(build(mode), mode)
    assert plain == program(build(mode, prototypes=None), mode)
    assert len(plain) < len(with_prototypes)
