"""Class-balanced denominators: by hand, and in each mode against naive sums over all pairs, on 1, 2 and 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.method import objectives
from gensupcon_jax.method.denominators import class_balanced_weights
from gensupcon_jax.method.objectives import TeacherLabels
from tests.method.flat import (
    BATCH_SIZE,
    MODES,
    NUM_CLASSES,
    NUM_VIEWS,
    TEMPERATURE,
    assert_same,
    build,
    cosines,
    on_devices,
    problem,
    program,
    sides_of,
    soft,
)


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


@pytest.mark.parametrize(("mode", "symmetric"), MODES)
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
    balanced = program(build(mode, denominator="balanced"), mode)
    monkeypatch.setattr(objectives, "class_balanced_weights", lambda *arguments, **settings: 1 / 0)
    plain = program(build(mode), mode)
    assert plain == program(build(mode, denominator="plain"), mode)
    assert len(plain) < len(balanced)
