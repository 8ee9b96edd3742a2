"""The loss of a classifier of several labels: a sigmoid for each, against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.method.classification import binary_cross_entropy, classifier_loss_fn, softmax_cross_entropy

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
LABELS = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_binary_cross_entropy_agrees_with_its_definition():
    p = 1 / (1 + np.exp(-LOGITS))
    expected = -(LABELS * np.log(p) + (1 - LABELS) * np.log(1 - p)).sum(1).mean()
    loss, accuracy = binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.0, None)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert float(accuracy) == pytest.approx(5 / 6)


def test_smoothing_moves_each_label_towards_one_half():
    smooth, _ = binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.2, None)
    by_hand, _ = binary_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(0.8 * LABELS + 0.1), 0.0, None)
    assert float(smooth) == pytest.approx(float(by_hand))


def test_the_gradient_of_a_logit_is_its_probability_minus_its_label():
    gradient = jax.grad(lambda logits: binary_cross_entropy(logits, jnp.asarray(LABELS), 0.0, None)[0])(
        jnp.asarray(LOGITS)
    )
    np.testing.assert_allclose(gradient, (1 / (1 + np.exp(-LOGITS)) - LABELS) / 2, rtol=1e-5)


def test_the_kind_of_labels_chooses_the_loss():
    assert classifier_loss_fn("several") is binary_cross_entropy
    assert classifier_loss_fn("class") is softmax_cross_entropy
