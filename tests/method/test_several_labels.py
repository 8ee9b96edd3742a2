"""The loss on several labels per image: against a loop over pairs of sets, with images of all labels and of none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.losses import generalized_contrastive_loss

SETS = [{0, 1}, {1}, set(), {0, 1, 2, 3}, {2}, {0, 1}, {3, 1}, {2, 3}]
ROWS = np.array([[label in labels for label in range(4)] for labels in SETS], np.float32)
UNITS = np.random.default_rng(0).standard_normal((8, 5))
UNITS = (UNITS / np.linalg.norm(UNITS, axis=1, keepdims=True)).astype(np.float32)


def cosine(a, b):
    return len(a & b) / np.sqrt(len(a) * len(b)) if a and b else 0.0


def jaccard(a, b):
    return len(a & b) / len(a | b) if a and b else 0.0


def naive_loss(units, similarity_fn, temperature):
    """The mean over the images that have a label in common with another one, of the weighted log-softmax of its pairs."""
    losses = []
    for i, anchor in enumerate(SETS):
        others = [j for j in range(len(SETS)) if j != i]
        logits = jnp.stack([units[i] @ units[j] / temperature for j in others])
        weights = np.array([similarity_fn(anchor, SETS[j]) for j in others])
        if weights.sum() > 0:
            losses.append(-jnp.sum(weights * jax.nn.log_softmax(logits)) / weights.sum())
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize(("name", "similarity_fn"), [("cosine", cosine), ("jaccard", jaccard)])
def test_loss_and_gradient_agree_with_a_loop_over_sets(name, similarity_fn):
    def ours(units):
        return generalized_contrastive_loss(units, ROWS, temperature=0.5, label_similarity=name).mean()

    def naive(units):
        return naive_loss(units, similarity_fn, 0.5)[0]

    value, gradient = jax.value_and_grad(ours)(jnp.asarray(UNITS))
    expected, expected_gradient = jax.value_and_grad(naive)(jnp.asarray(UNITS))
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_an_image_without_labels_attracts_none_and_is_a_contrast():
    anchors = generalized_contrastive_loss(jnp.asarray(UNITS), ROWS, temperature=0.5)
    assert anchors.valid.tolist() == [True, True, False, True, True, True, True, True]
    moved = UNITS.copy()
    moved[2] = -moved[2]
    others = generalized_contrastive_loss(jnp.asarray(moved), ROWS, temperature=0.5)
    assert (np.abs(np.asarray(others.loss) - np.asarray(anchors.loss))[np.asarray(anchors.valid)] > 1e-3).all()
