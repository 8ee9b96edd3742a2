"""The loss: by hand, against a float64 loop, the authors' numbers, its dense definition, and on 1, 2 and 8 devices."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gensupcon_jax.errors import UserError
from gensupcon_jax.losses import (
    LABEL_SIMILARITIES,
    AnchorLoss,
    ClassCenters,
    dense_contrastive_loss,
    flatten_views,
    generalized_contrastive_loss,
    label_similarity,
    latent_similarity,
)
from gensupcon_jax.similarities import of_classes, of_two_rows
from tests import REFERENCE

GOLDEN = np.load(REFERENCE / "authors_loss.npz")
NORMALIZERS = ("similarity", "count")
KINDS = ("hard", "mixed", "smoothed", "teacher", "peaked", "with_zero_rows")
TEMPERATURE = 0.1
NUM_CLASSES, DIM = 7, 16
# 24 anchors are 3 for each of 8 devices; 5 divides neither 24 nor 40.
NUM_ANCHORS, NUM_CONTRASTS, TILE = 24, 40, 5


# ---- inputs


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def embeddings(rng, num_rows, dim=DIM):
    """Clustered a little, so that some pairs are alike."""
    centers = rng.normal(size=(4, dim))
    return unit(centers[rng.integers(0, 4, num_rows)] + rng.normal(size=(num_rows, dim)))


def labels_of(kind, rng, num_rows, num_classes=NUM_CLASSES):
    hard = np.eye(num_classes)[rng.integers(0, num_classes, num_rows)]
    if kind == "mixed":
        # Every third row keeps almost nothing of its second image.
        share = np.where(np.arange(num_rows) % 3 == 0, 1e-6, rng.beta(1.0, 1.0, num_rows))[:, None]
        labels = (1.0 - share) * hard + share * hard[rng.permutation(num_rows)]
    elif kind == "smoothed":
        labels = 0.9 * hard + 0.1 / num_classes
    elif kind in ("teacher", "peaked"):
        # Peaked: the largest probability is 1 and the others go down to 1e-20.
        logits = rng.normal(size=(num_rows, num_classes)) * (2.0 if kind == "teacher" else 12.0)
        labels = np.exp(logits - logits.max(axis=1, keepdims=True))
        labels /= labels.sum(axis=1, keepdims=True)
    elif kind == "with_zero_rows":
        # The first anchor is also alone in its class.
        labels = np.where((hard[:, :1] > 0) | (np.arange(num_rows) % 5 == 4)[:, None], 0.0, hard)
        labels[0] = np.eye(num_classes)[0]
    else:
        labels = hard
    return labels.astype(np.float32)


def problem(kind, seed, *, num_anchors=NUM_ANCHORS, num_contrasts=None):
    """-> anchors, labels, contrasts, labels, mask; num_contrasts=None: every other anchor is a contrast."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    anchors, anchor_labels = embeddings(rng, num_anchors), labels_of(kind, rng, num_anchors)
    mask = rng.random(num_contrasts or num_anchors) < 0.7
    if num_contrasts is None:
        return anchors, anchor_labels, None, None, mask
    return anchors, anchor_labels, embeddings(rng, num_contrasts), labels_of(kind, rng, num_contrasts), mask


def weights_from(mask, seed=0):
    """Weights from 0.001 to 30 in place of True."""
    spread = np.exp(np.random.default_rng([seed, 99]).uniform(np.log(0.001), np.log(30.0), len(mask)))
    return np.where(mask, spread, 0.0).astype(np.float32)


# ---- the reference, in float64


def loop_loss(anchors, anchor_labels, contrasts, contrast_labels, weights, normalizer, temperature=TEMPERATURE):
    """The formula of the paper, one pair at a time, with weights in the sum. -> loss [anchor], valid [anchor]."""
    itself = contrasts is None
    if itself:
        contrasts, contrast_labels = anchors, anchor_labels
    anchors, contrasts = np.float64(anchors), np.float64(contrasts)
    losses, valid = np.zeros(len(anchors)), np.zeros(len(anchors), bool)
    for i, (anchor, anchor_label) in enumerate(zip(anchors, np.float64(anchor_labels), strict=True)):
        allowed = [j for j in range(len(contrasts)) if (weights is None or weights[j]) and not (itself and i == j)]
        logits = {j: anchor @ contrasts[j] / temperature for j in allowed}
        similarities = {j: cosine(anchor_label, np.float64(contrast_labels[j])) for j in allowed}
        if sum(similarities.values()) > 0.0:
            largest = max(logits.values())
            of_each = dict.fromkeys(allowed, 1.0) if weights is None else np.float64(weights)
            log_sum_exp = largest + np.log(sum(of_each[j] * np.exp(logit - largest) for j, logit in logits.items()))
            count = sum(similarities.values()) if normalizer == "similarity" else len(allowed)
            losses[i] = -sum(similarities[j] * (logits[j] - log_sum_exp) for j in allowed) / count
            valid[i] = True
    return losses, valid


def cosine(left, right):
    length = np.linalg.norm(left) * np.linalg.norm(right)
    return left @ right / length if length > 0.0 else 0.0


def true_gradients(anchors, anchor_labels, contrasts, contrast_labels, weights, normalizer, temperature=TEMPERATURE):
    """Gradients of the mean over valid anchors, in float64, by the derivative of the formula. -> anchors, contrasts."""
    itself = contrasts is None
    if itself:
        contrasts, contrast_labels = anchors, anchor_labels
    anchors, contrasts = np.float64(anchors), np.float64(contrasts)
    weights = np.tile(np.ones(len(contrasts)) if weights is None else np.float64(weights), (len(anchors), 1))
    allowed = weights > 0.0
    if itself:
        allowed = allowed & ~np.eye(len(anchors), dtype=bool)
    pairs = [[cosine(a, c) for c in np.float64(contrast_labels)] for a in np.float64(anchor_labels)]
    similarities = np.where(allowed, np.array(pairs), 0.0)
    logits = np.where(allowed, anchors @ contrasts.T / temperature, -np.inf)
    largest = logits.max(axis=1, keepdims=True)
    powers = weights * np.exp(logits - np.where(np.isfinite(largest), largest, 0.0))
    probabilities = powers / np.maximum(powers.sum(axis=1, keepdims=True), 1e-300)
    total = similarities.sum(axis=1, keepdims=True)
    valid = total > 0.0
    count = total if normalizer == "similarity" else allowed.sum(axis=1, keepdims=True)
    of_logits = (total * probabilities - similarities) * np.where(valid, 1.0 / np.where(valid, count, 1.0), 0.0)
    of_logits /= max(valid.sum(), 1) * temperature
    of_anchors, of_contrasts = of_logits @ contrasts, of_logits.T @ anchors
    return (of_anchors + of_contrasts, None) if itself else (of_anchors, of_contrasts)


# ---- the tested functions, compiled once per shape


def dense_anchor_loss(anchors, anchor_labels, contrasts, contrast_labels, mask, normalizer, temperature, scale=1.0):
    itself = contrasts is None
    if itself:
        contrasts, contrast_labels = anchors, anchor_labels
    weights = jnp.broadcast_to(True if mask is None else mask, (len(anchors), len(contrasts)))
    return dense_contrastive_loss(
        label_similarity(anchor_labels, contrast_labels),
        latent_similarity(anchors, contrasts, temperature=temperature),
        contrast_weights=jnp.where(jnp.eye(len(anchors), dtype=bool), False, weights) if itself else weights,
        normalizer=normalizer,
        scale=scale,
    )


def factored_anchor_loss(anchors, anchor_labels, contrasts, contrast_labels, mask, normalizer, temperature, tile=TILE):
    return generalized_contrastive_loss(
        anchors,
        anchor_labels,
        contrasts,
        contrast_labels,
        temperature=temperature,
        normalizer=normalizer,
        contrast_weights=mask,
        tile_size=tile,
    )


def mean_and_gradients(anchor_loss_fn, anchors, anchor_labels, contrasts, contrast_labels, mask, *settings):
    """-> AnchorLoss, and gradients of its mean for anchors and contrasts."""

    def mean(points):
        result = anchor_loss_fn(points[0], anchor_labels, points[1], contrast_labels, mask, *settings)
        return result.mean(), result

    (_, result), gradients = jax.value_and_grad(mean, has_aux=True)((anchors, contrasts))
    return result, gradients


dense = jax.jit(functools.partial(mean_and_gradients, dense_anchor_loss), static_argnums=(5,))
factored = jax.jit(functools.partial(mean_and_gradients, factored_anchor_loss), static_argnums=(5, 7))


def assert_values_equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def assert_gradients_equal(actual, expected):
    if expected is None:
        assert actual is None
        return
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=5e-5 * max(np.abs(expected).max(), 1e-30))


# ---- by hand


def test_label_similarity_is_the_cosine_and_zero_rows_stay_zero():
    labels = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [3e-30, 4e-30]])
    expected = [[1.0, 0.6, 0.0, 0.6], [0.6, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.6, 1.0, 0.0, 1.0]]
    np.testing.assert_allclose(label_similarity(labels, labels), expected, rtol=1e-6)
    np.testing.assert_allclose(label_similarity(np.array([[2, 0]]), np.array([[True, True]])), [[0.5**0.5]], rtol=1e-6)


def test_latent_similarity_is_the_inner_product_over_the_temperature():
    similarity = latent_similarity(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [0.0, 1.0]]), temperature=0.5)
    np.testing.assert_allclose(similarity, [[22.0, 4.0]])


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("anchor_loss_fn", [dense_anchor_loss, factored_anchor_loss])
def test_three_anchors_by_hand(anchor_loss_fn, normalizer):
    anchors = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    labels = np.array([[1, 0], [1, 0], [0, 1]])  # the third is alone in its class
    result = anchor_loss_fn(anchors, labels, None, None, None, normalizer, 1.0)  # not jitted
    loss, valid = result
    first, second = np.log(1.0 + np.exp(-1.0)), np.log(2.0)
    share = 1.0 if normalizer == "similarity" else 0.5
    np.testing.assert_allclose(loss, [share * first, share * second, 0.0], rtol=1e-6)
    assert valid.tolist() == [True, True, False]
    np.testing.assert_allclose(result.mean(), share * (first + second) / 2.0, rtol=1e-6)


@pytest.mark.parametrize("run", [dense, factored])
def test_one_query_by_hand_with_gradients(run):
    query, keys = np.array([[1.0, 0.0]], np.float32), np.eye(2, dtype=np.float32)
    query_label, key_labels = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.0, 1.0]])
    arguments = (query, query_label, keys, key_labels, None)
    result, (of_query, of_keys) = run(*arguments, "similarity", 0.5)
    other = 1.0 / (np.exp(2.0) + 1.0)  # the softmax's share of the second key
    np.testing.assert_allclose(result.loss, [np.log(np.exp(2.0) + 1.0) - 2.0], rtol=1e-5)
    np.testing.assert_allclose(of_query, [[-other / 0.5, other / 0.5]], rtol=1e-5)
    np.testing.assert_allclose(of_keys, [[-other / 0.5, 0.0], [other / 0.5, 0.0]], rtol=1e-5, atol=1e-7)


# ---- similarities of labels


def test_bhattacharyya_by_hand():
    labels = np.float32([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [2.0, 2.0, 0.0], [0.0, 0.64, 0.36], [0.0, 0.0, 0.0]])
    similarity = label_similarity(labels, labels, name="bhattacharyya")
    half = np.sqrt(0.5)
    np.testing.assert_allclose(similarity[0], [1.0, half, half, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(similarity[1], [half, 1.0, 1.0, np.sqrt(0.32), 0.0], rtol=1e-6)
    np.testing.assert_allclose(similarity[3:], [[0.0, np.sqrt(0.32), np.sqrt(0.32), 1.0, 0.0], [0.0] * 5], rtol=1e-6)


def with_features(labels):
    """An entry from outside the package, with more features than classes: overlap of labels, plus half that of pairs."""
    pairs = (labels[:, :, None] * labels[:, None, :]).reshape(len(labels), -1)
    return jnp.concatenate([labels, jnp.sqrt(0.5) * pairs], axis=1)


THIRDS = np.arange(NUM_CLASSES) // 3
CLASS_SIMILARITY = np.float32(0.5 * np.eye(NUM_CLASSES) + 0.5 * (THIRDS[:, None] == THIRDS))
MATRIX = of_classes(CLASS_SIMILARITY)
OVERLAP_OF_ROWS = of_two_rows(lambda left, right: jnp.minimum(left, right).sum())


def test_jaccard_of_sets_is_the_share_of_classes_in_common():
    labels = np.float32([[1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    similarity = label_similarity(labels, labels, name="jaccard")
    np.testing.assert_allclose(similarity[0], [1, 1 / 4, 1, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(similarity[1], [1 / 4, 1, 1 / 4, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(similarity[4], 0)


def test_dot_is_the_probability_of_the_same_class():
    assert label_similarity(np.float32([[0.5, 0.5]]), np.float32([[0.5, 0.5]]), name="dot").tolist() == [[0.5]]


def test_a_similarity_of_classes_by_hand():
    close = of_classes(np.float32([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]))
    labels = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 3], [0.5, 0.5, 0], [0, 0, 0]])
    half = 0.75 / np.sqrt(0.75)  # (1 + 0.5) / 2 over the root of (1 + 0.5 + 0.5 + 1) / 4
    expected = [[1, 0.5, 0, half, 0], [0.5, 1, 0, half, 0], [0, 0, 1, 0, 0], [half, half, 0, 1, 0], [0] * 5]
    np.testing.assert_allclose(label_similarity(labels, labels, name=close), expected, rtol=1e-5, atol=1e-7)
    rng = np.random.default_rng(0)
    mixed = labels_of("mixed", rng, 9)
    identity = label_similarity(mixed, mixed, name=of_classes(np.eye(NUM_CLASSES, dtype=np.float32)))
    np.testing.assert_allclose(identity, label_similarity(mixed, mixed), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("num_devices", [2, 8])
@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
@pytest.mark.parametrize("similarity", ["jaccard", MATRIX], ids=["jaccard", "matrix"])
def test_other_similarities_are_the_same_on_several_devices(similarity, num_contrasts, num_devices):
    anchors, anchor_labels, contrasts, contrast_labels, _ = problem("mixed", 5, num_contrasts=num_contrasts)

    def total(anchors, anchor_labels, contrasts, contrast_labels, axis_name=None):
        sides = (anchors, anchor_labels, contrasts, contrast_labels)
        settings = {"label_similarity": similarity, "tile_size": TILE, "axis_name": axis_name}
        return generalized_contrastive_loss(*sides, temperature=TEMPERATURE, **settings).mean()

    arguments = (anchors, anchor_labels, contrasts, contrast_labels)
    argnums = 0 if contrasts is None else (0, 2)
    expected, expected_gradients = jax.value_and_grad(total, argnums)(*arguments)
    mesh = jax.make_mesh((num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:num_devices])
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(functools.partial(total, axis_name="data"), mesh=mesh, in_specs=rows, out_specs=everywhere)
    value, gradients = jax.jit(jax.value_and_grad(lambda *inputs: mapped(*inputs), argnums))(*arguments)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    jax.tree.map(assert_gradients_equal, gradients, expected_gradients)


def test_an_anchor_without_a_similar_contrast_is_not_valid_for_any_similarity():
    anchors, labels = (
        unit(np.random.default_rng(0).normal(size=(5, DIM))),
        np.eye(NUM_CLASSES, dtype=np.float32)[[0, 0, 1, 1, 6]],
    )
    for similarity in ("dot", "jaccard", MATRIX, OVERLAP_OF_ROWS):
        loss = generalized_contrastive_loss(anchors, labels, temperature=TEMPERATURE, label_similarity=similarity)
        assert loss.valid.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
@pytest.mark.parametrize("normalizer", ["similarity", "count"])
@pytest.mark.parametrize(
    "name",
    ["overlap", "bhattacharyya", "dot", "jaccard", MATRIX, OVERLAP_OF_ROWS],
    ids=["overlap", "bhattacharyya", "dot", "jaccard", "matrix", "two rows"],
)
def test_both_forms_use_the_similarity_of_the_table(monkeypatch, name, normalizer, num_contrasts):
    monkeypatch.setitem(LABEL_SIMILARITIES, "overlap", with_features)
    anchors, anchor_labels, contrasts, contrast_labels, mask = problem("mixed", 5, num_contrasts=num_contrasts)
    others, other_labels = (anchors, anchor_labels) if contrasts is None else (contrasts, contrast_labels)
    similarity = label_similarity(anchor_labels, other_labels, name=name)
    if name == "overlap":
        overlap = np.float64(anchor_labels) @ np.float64(other_labels).T
        np.testing.assert_allclose(similarity, overlap + overlap**2 / 2, rtol=1e-5, atol=1e-7)
    allowed = jnp.broadcast_to(mask, (len(anchors), len(others)))
    if contrasts is None:
        allowed &= ~jnp.eye(len(anchors), dtype=bool)

    def dense_mean(anchors, contrasts):
        logits = latent_similarity(anchors, anchors if contrasts is None else contrasts, temperature=TEMPERATURE)
        result = dense_contrastive_loss(similarity, logits, contrast_weights=allowed, normalizer=normalizer)
        return result.mean(), result

    def factored_mean(anchors, contrasts):
        settings = {"normalizer": normalizer, "label_similarity": name, "contrast_weights": mask, "tile_size": TILE}
        sides = (anchors, anchor_labels, contrasts, contrast_labels)
        result = generalized_contrastive_loss(*sides, temperature=TEMPERATURE, **settings)
        return result.mean(), result

    argnums = 0 if contrasts is None else (0, 1)
    (expected, of_each), expected_gradients = jax.value_and_grad(dense_mean, argnums, has_aux=True)(anchors, contrasts)
    (value, result), gradients = jax.value_and_grad(factored_mean, argnums, has_aux=True)(anchors, contrasts)
    np.testing.assert_allclose(result.loss, of_each.loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.valid, of_each.valid)
    assert float(value) == pytest.approx(float(expected), abs=1e-6)
    jax.tree.map(assert_gradients_equal, gradients, expected_gradients)


def test_a_similarity_is_constant_and_must_return_features(monkeypatch):
    monkeypatch.setitem(LABEL_SIMILARITIES, "total", lambda labels: labels.sum(axis=1))
    words = r"LABEL_SIMILARITIES\['total'\] returns shape \[4\] for labels \[4, 2\]; allowed: \[row, feature\]"
    with pytest.raises(UserError, match=words):
        label_similarity(np.ones((4, 2)), np.ones((4, 2)), name="total")
    gradient = jax.grad(lambda labels: label_similarity(labels, labels, name="bhattacharyya").sum())(jnp.ones((2, 2)))
    np.testing.assert_array_equal(gradient, 0.0)


# ---- against the reference in float64


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
@pytest.mark.parametrize(
    ("normalizer", "weighted", "run"),
    [
        ("similarity", "no", factored),
        ("similarity", "0 or 1", factored),
        ("similarity", "yes", factored),
        ("count", "yes", factored),
        ("similarity", "0 or 1", dense),
        ("similarity", "yes", dense),
        ("count", "yes", dense),
    ],
    ids=[
        "factored-similarity",
        "factored-similarity-masked",
        "factored-similarity-weighted",
        "factored-count-weighted",
        "dense-similarity-masked",
        "dense-similarity-weighted",
        "dense-count-weighted",
    ],
)
def test_both_forms_match_the_formula(normalizer, weighted, run, num_contrasts):
    for seed, kind in enumerate(KINDS):
        *sides, mask = problem(kind, seed, num_contrasts=num_contrasts)
        weights = {"no": None, "0 or 1": mask, "yes": weights_from(mask, seed)}[weighted]
        arguments = (*sides, weights, normalizer)
        expected, valid = loop_loss(*arguments)
        of_anchors, of_contrasts = true_gradients(*arguments)
        result, gradients = run(*arguments, TEMPERATURE)
        assert result.valid.tolist() == valid.tolist(), kind
        assert_values_equal(result.loss, expected)
        assert_values_equal(result.mean(), expected[valid].mean())
        assert_gradients_equal(gradients[0], of_anchors)
        assert_gradients_equal(gradients[1], of_contrasts)


def test_the_reference_gradient_is_the_slope_of_the_reference():
    anchors, anchor_labels, contrasts, contrast_labels, mask = problem("mixed", 3, num_anchors=4, num_contrasts=5)
    weights = weights_from(mask)

    def mean(anchors, contrasts):
        loss, valid = loop_loss(anchors, anchor_labels, contrasts, contrast_labels, weights, "count")
        return loss.sum() / valid.sum()

    of_anchors, of_contrasts = true_gradients(anchors, anchor_labels, contrasts, contrast_labels, weights, "count")
    rng = np.random.default_rng(0)
    step_a, step_c = rng.normal(size=anchors.shape) * 1e-6, rng.normal(size=contrasts.shape) * 1e-6
    slope = mean(anchors + step_a, contrasts + step_c) - mean(anchors - step_a, contrasts - step_c)
    np.testing.assert_allclose(slope, 2.0 * (np.sum(of_anchors * step_a) + np.sum(of_contrasts * step_c)), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_more_seeds_factored_against_dense(kind):
    for seed in range(10, 14):
        arguments = (*problem(kind, seed), "similarity", TEMPERATURE)
        (expected, (of_anchors, _)), (result, gradients) = dense(*arguments), factored(*arguments)
        assert result.valid.tolist() == expected.valid.tolist()
        assert_values_equal(result.loss, expected.loss)
        assert_gradients_equal(gradients[0], of_anchors)


@pytest.mark.parametrize("tile", [1, 24, 1000])
def test_the_tile_size_does_not_change_the_value(tile):
    arguments = (*problem("teacher", 1), "similarity", TEMPERATURE)
    (expected, (of_anchors, _)), (result, gradients) = factored(*arguments), factored(*arguments, tile)
    np.testing.assert_allclose(result.loss, expected.loss, rtol=1e-6)
    assert_gradients_equal(gradients[0], of_anchors)


def test_tiny_similarities_keep_their_precision():
    # Alone in its class but for 1e-12 of others: "sum of all, minus oneself" would give noise or 0.
    rng = np.random.default_rng(5)
    anchors = embeddings(rng, NUM_ANCHORS)
    labels = np.full((NUM_ANCHORS, NUM_CLASSES), 1e-12) * rng.uniform(0.1, 1.0, (NUM_ANCHORS, NUM_CLASSES))
    labels[np.arange(NUM_ANCHORS), np.minimum(np.arange(NUM_ANCHORS), NUM_CLASSES - 1)] = 1.0
    arguments = (anchors, labels.astype(np.float32), None, None, None, "similarity")
    result, gradients = factored(*arguments, TEMPERATURE)
    assert result.valid.all()
    assert_values_equal(result.loss, loop_loss(*arguments)[0])
    assert_gradients_equal(gradients[0], true_gradients(*arguments)[0])


# ---- weights of contrasts


@pytest.mark.parametrize("run", [dense, factored])
def test_a_weight_by_hand(run):
    query, keys = np.array([[1.0, 0.0]], np.float32), np.float32([[1, 0], [0, 1], [-1, 0]])
    labels = np.array([[1.0, 0.0]]), np.array([[1, 0], [0, 1], [0, 1]])
    result, (of_query, _) = run(query, labels[0], keys, labels[1], np.float32([0.5, 3, 0]), "similarity", 1.0)
    total = 0.5 * np.e + 3.0  # exp(1) at weight 0.5, exp(0) at weight 3, and exp(-1) left out
    np.testing.assert_allclose(result.loss, [np.log(total) - 1.0], rtol=1e-6)
    np.testing.assert_allclose(of_query, [[0.5 * np.e / total - 1.0, 3.0 / total]], rtol=1e-5)


@pytest.mark.parametrize("run", [dense, factored])
def test_a_weight_of_2_is_two_copies_of_a_contrast_that_does_not_attract(run):
    anchors, labels, contrasts, contrast_labels, _ = problem("hard", 2, num_contrasts=NUM_CONTRASTS)
    labels[:, 0], contrast_labels[7] = 0.0, np.eye(NUM_CLASSES)[0]  # no anchor is similar to the contrast 7
    weights = np.ones(NUM_CONTRASTS, np.float32)
    weights[7] = 2.0
    found, (of_anchors, of_contrasts) = run(
        anchors, labels, contrasts, contrast_labels, weights, "similarity", TEMPERATURE
    )
    copied = [np.append(each, each[7:8], axis=0) for each in (contrasts, contrast_labels)]
    expected, gradients = run(anchors, labels, *copied, None, "similarity", TEMPERATURE)
    assert_values_equal(found.loss, expected.loss)
    assert_gradients_equal(of_anchors, gradients[0])
    assert_gradients_equal(of_contrasts[7], gradients[1][7] + gradients[1][-1])


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
def test_a_weight_of_0_leaves_out_exactly(num_contrasts):
    anchors, labels, contrasts, contrast_labels, mask = problem("teacher", 5, num_contrasts=num_contrasts)
    sides = (anchors, labels, contrasts, contrast_labels)
    settings = ("similarity", TEMPERATURE)
    by_mask, gradients_by_mask = factored(*sides, mask, *settings)
    by_number, gradients_by_number = factored(*sides, mask.astype(np.float32), *settings)
    np.testing.assert_array_equal(by_mask.loss, by_number.loss)
    jax.tree.map(np.testing.assert_array_equal, gradients_by_mask, gradients_by_number)
    if contrasts is not None:
        fewer, (_, of_fewer) = factored(anchors, labels, contrasts[mask], contrast_labels[mask], None, *settings)
        assert_values_equal(by_mask.loss, fewer.loss)
        assert_gradients_equal(gradients_by_mask[1][mask], of_fewer)
        assert not gradients_by_mask[1][~mask].any()


@pytest.mark.parametrize("temperature", [0.1, 0.005])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_a_common_factor_of_all_weights_is_a_constant_however_large(size, temperature):
    anchors, labels, *_ = problem("mixed", 6)
    plain, (expected, _) = factored(anchors, labels, None, None, None, "similarity", temperature)
    weights = np.full(NUM_ANCHORS, size, np.float32)
    result, (gradient, _) = factored(anchors, labels, None, None, weights, "similarity", temperature)
    np.testing.assert_allclose(result.loss[plain.valid], plain.loss[plain.valid] + np.log(size), rtol=1e-5)
    assert_gradients_equal(gradient, expected)


@pytest.mark.parametrize("tile", [1, 1000])
def test_the_tile_size_does_not_change_a_weighted_value(tile):
    *sides, mask = problem("teacher", 1)
    arguments = (*sides, weights_from(mask), "similarity", TEMPERATURE)
    (expected, (of_anchors, _)), (result, gradients) = factored(*arguments), factored(*arguments, tile)
    np.testing.assert_allclose(result.loss, expected.loss, rtol=1e-5, atol=1e-6)
    assert_gradients_equal(gradients[0], of_anchors)


@pytest.mark.parametrize("run", [dense, factored])
def test_weights_are_constants_and_nan_is_propagated(run):
    anchors, labels, *_, mask = problem("hard", 7)

    def mean(weights):
        form = dense_anchor_loss if run is dense else factored_anchor_loss
        return form(anchors, labels, None, None, weights, "similarity", TEMPERATURE).mean()

    assert not jax.grad(mean)(jnp.asarray(weights_from(mask))).any()
    weights = weights_from(mask)
    weights[3] = np.nan
    assert np.isnan(run(anchors, labels, None, None, weights, "similarity", TEMPERATURE)[0].mean())


# ---- centers of the classes


def with_centers(num_contrasts, seed=4):
    """-> arguments of the factored form, and the centers' logits, attraction and weights."""
    *sides, mask = problem("mixed", seed, num_contrasts=num_contrasts)
    rng = np.random.default_rng([seed, 7])
    logits = rng.normal(size=(NUM_ANCHORS, NUM_CLASSES), scale=3.0).astype(np.float32)
    attraction = 0.8 * np.float32(sides[1])
    attraction[3] = 0.0  # similar to other images only
    return (*sides, weights_from(mask)), logits, attraction, rng.uniform(0.1, 2.0, NUM_CLASSES).astype(np.float32)


def loss_with_centers(points, sides, attraction, alpha, class_weights, axis_name=None):
    anchors, contrasts, logits = points
    _, anchor_labels, _, contrast_labels, weights = sides
    return generalized_contrastive_loss(
        anchors,
        anchor_labels,
        contrasts,
        contrast_labels,
        temperature=TEMPERATURE,
        contrast_weights=weights,
        centers=ClassCenters(logits, attraction, alpha, class_weights),
        axis_name=axis_name,
        tile_size=TILE,
    )


def dense_with_centers(points, sides, attraction, alpha, class_weights):
    """Centers are further columns of both matrices."""
    anchors, contrasts, logits = points
    _, anchor_labels, _, contrast_labels, weights = sides
    itself = contrasts is None
    if itself:
        contrasts, contrast_labels = anchors, anchor_labels
    weights = jnp.broadcast_to(weights, (len(anchors), len(contrasts)))
    weights = jnp.where(jnp.eye(len(anchors), dtype=bool), 0.0, weights) if itself else weights
    of_centers = jnp.broadcast_to(1.0 if class_weights is None else class_weights, logits.shape)
    alike = jnp.concatenate([alpha * label_similarity(anchor_labels, contrast_labels), attraction], axis=1)
    closeness = latent_similarity(anchors, contrasts, temperature=TEMPERATURE)
    return dense_contrastive_loss(
        alike,
        jnp.concatenate([closeness, logits], axis=1),
        contrast_weights=jnp.concatenate([weights, of_centers], axis=1),
    )


@functools.partial(jax.jit, static_argnums=(0,))
def mean_with_centers(form, points, *arguments):
    def mean(points):
        result = form(points, *arguments)
        return result.mean(), result

    (_, result), gradients = jax.value_and_grad(mean, has_aux=True)(points)
    return result, gradients


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
def test_centers_are_further_columns_of_the_dense_form(num_contrasts):
    sides, logits, attraction, class_weights = with_centers(num_contrasts)
    points = (sides[0], sides[2], logits)
    for alpha, center_weights in ((0.3, None), (0.0, class_weights)):
        arguments = (points, sides, attraction, jnp.float32(alpha), center_weights)
        expected, expected_gradients = mean_with_centers(dense_with_centers, *arguments)
        found, gradients = mean_with_centers(loss_with_centers, *arguments)
        assert (
            found.valid.tolist() == expected.valid.tolist() == [alpha > 0.0 or row != 3 for row in range(NUM_ANCHORS)]
        )
        assert_values_equal(found.loss, expected.loss)
        jax.tree.map(assert_gradients_equal, gradients, jax.tree.map(np.asarray, expected_gradients))
        assert gradients[2].any()


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
@pytest.mark.parametrize("num_devices", [2, 8])
def test_centers_on_several_devices(num_devices, num_contrasts):
    sides, logits, attraction, class_weights = with_centers(num_contrasts)
    points = (sides[0], sides[2], logits)
    expected, expected_gradients = mean_with_centers(loss_with_centers, points, sides, attraction, 0.3, class_weights)
    rows = PartitionSpec("data")

    def local(points, sides, attraction, class_weights):
        def mean(points):
            result = loss_with_centers(points, sides, attraction, 0.3, class_weights, "data")
            return result.mean(), result

        (_, result), gradients = jax.value_and_grad(mean, has_aux=True)(points)
        return result.loss, gradients

    run = jax.shard_map(local, mesh=mesh_of(num_devices), in_specs=(rows, rows, rows, PartitionSpec()), out_specs=rows)
    loss, gradients = jax.jit(run)(points, sides, attraction, class_weights)
    assert_values_equal(loss, expected.loss)
    jax.tree.map(assert_gradients_equal, gradients, jax.tree.map(np.asarray, expected_gradients))


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
def test_where_no_contrast_is_allowed_centers_give_cross_entropy(num_contrasts):
    sides, logits, _, _ = with_centers(num_contrasts)
    hard = np.eye(NUM_CLASSES, dtype=np.float32)[np.arange(NUM_ANCHORS) % NUM_CLASSES]
    nobody = np.zeros(len(sides[0] if num_contrasts is None else sides[2]), bool)
    points, sides = (sides[0], sides[2], logits), (*sides[:4], nobody)
    found, gradients = mean_with_centers(loss_with_centers, points, sides, hard, 1.0, None)
    expected, of_logits = jax.value_and_grad(lambda logits: -jnp.sum(hard * jax.nn.log_softmax(logits), axis=1).mean())(
        jnp.asarray(logits)
    )
    assert found.valid.all() and np.all(found.loss >= 0.0)
    assert_values_equal(found.mean(), expected)
    assert_gradients_equal(gradients[2], of_logits)
    assert not gradients[0].any()


def test_wrong_centers_are_named():
    arguments = {"anchors": np.ones((4, 2), np.float32), "anchor_labels": np.ones((4, 3)), "temperature": 0.1}
    for centers, words in (
        (ClassCenters(np.ones((4, 3)), np.ones((4, 2))), "centers.attraction has 2 columns; allowed: 3"),
        (ClassCenters(np.ones((3, 3)), np.ones((4, 3))), "centers.logits has 3 rows; allowed: 4"),
        (ClassCenters(np.ones((4, 3)), np.ones((4, 3)), 1.0, np.ones(2)), "centers.weights has 2 rows; allowed: 3"),
    ):
        with pytest.raises(UserError, match=words):
            unchecked_loss(**arguments, centers=centers)
    others = {"contrasts": np.ones((0, 2), np.float32), "contrast_labels": np.ones((0, 3))}
    with pytest.raises(UserError, match="contrasts has 0 rows; allowed with centers: 1 or more"):
        unchecked_loss(**arguments, **others, centers=ClassCenters(np.ones((4, 3)), np.ones((4, 3))))


# ---- converged embeddings: the precision that the docstring promises

LOSS_ROUNDING = 1.2e-6  # of the largest logit
GRADIENT_ROUNDING = 4e-7  # of the largest logit, times the gradient of the attraction


def converged(kind, temperature, seed=0):
    """-> the arguments of the loss: images close to the center of their class, 128 dimensions."""
    num_rows, num_classes = 192, {"simclr": 96, "four views": 48, "supcon": 10, "smoothed": 10}[kind]
    rng = np.random.default_rng(seed)
    classes = np.arange(num_rows) % num_classes
    spread = 0.1 if num_classes == 10 else 0.02
    anchors = unit(unit(rng.normal(size=(num_classes, 128)))[classes] + unit(rng.normal(size=(num_rows, 128))) * spread)
    labels = np.eye(num_classes, dtype=np.float32)[classes]
    labels = np.float32(0.9) * labels + np.float32(0.1 / num_classes) if kind == "smoothed" else labels
    return anchors, labels, None, None, None, "similarity", np.float32(temperature)


def largest_attraction(anchors, labels, temperature):
    """The largest entry of the gradient of the attraction alone."""
    directions = np.float64(labels) / np.linalg.norm(labels, axis=1, keepdims=True)
    pairs = directions @ directions.T * (1.0 - np.eye(len(labels)))
    pairs /= pairs.sum(axis=1, keepdims=True)
    return np.abs((pairs + pairs.T) @ anchors).max() / (temperature * len(anchors))


@pytest.mark.parametrize("temperature", [0.1, 0.07, 0.03, 0.005])
@pytest.mark.parametrize("kind", ["simclr", "four views", "supcon", "smoothed"])
def test_converged_embeddings_to_the_stated_precision(kind, temperature):
    arguments = converged(kind, temperature)
    anchors, labels, *_ = arguments
    expected, _ = loop_loss(*arguments)
    of_anchors, _ = true_gradients(*arguments)
    # Unit vectors: no logit is larger than 1 / temperature.
    of_attraction = GRADIENT_ROUNDING / temperature * largest_attraction(anchors, labels, temperature)
    for result, gradients in (dense(*arguments), factored(*arguments, 64)):
        assert result.valid.all() and np.all(result.loss >= 0.0)
        assert np.all(np.abs(result.loss - expected) <= np.maximum(1e-5 * expected, LOSS_ROUNDING / temperature))
        tolerance = max(5e-5 * np.abs(of_anchors).max(), of_attraction)
        np.testing.assert_allclose(gradients[0], of_anchors, rtol=0.0, atol=tolerance)


def test_the_softmax_keeps_its_precision_where_one_contrast_is_nearly_all_of_it():
    # From a log_sum_exp, rounded like the logit of 200 that it is, the softmax would be wrong by 1e-5.
    arguments = converged("simclr", 0.005)
    of_anchors, _ = true_gradients(*arguments)
    _, (gradient, _) = factored(*arguments)
    tolerance = 1e-6 * largest_attraction(*arguments[:2], 0.005)
    np.testing.assert_allclose(gradient, of_anchors, rtol=0.0, atol=tolerance)


def test_collapsed_embeddings_and_many_equal_similarities():
    # 4096 equal pulls of 1000 smoothed classes: a long float32 sum of equal numbers rounds each addition the same way.
    labels = np.float32(0.9) * np.eye(1000, dtype=np.float32)[np.arange(4096) % 1000] + np.float32(1e-4)
    anchors = np.tile(unit(np.random.default_rng(0).normal(size=(1, 128))), (4096, 1))
    loss = jax.jit(functools.partial(generalized_contrastive_loss, temperature=0.005))(anchors, labels).loss
    np.testing.assert_allclose(loss, np.full(4096, np.log(4095.0)), rtol=1e-5)


# ---- the authors, SupCon, SimCLR


def golden_arguments(case):
    query, key, query_labels, key_labels = (
        GOLDEN[f"case{case}_{name}"] for name in ("query", "key", "query_labels", "key_labels")
    )
    if str(GOLDEN[f"case{case}_mode"]) == "one":
        return query, query_labels, key, key_labels
    return np.concatenate([query, key]), np.concatenate([query_labels, key_labels]), None, None


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def authors_mean(form, points, labels, contrast_labels, temperature, base_temperature):
    """The authors count the invalid anchors too."""
    sides = (points[0], labels, points[1], contrast_labels)
    if form == "dense":
        scale = temperature / base_temperature
        return dense_anchor_loss(*sides, None, "similarity", temperature, scale).loss.mean()
    temperatures = {"temperature": temperature, "base_temperature": base_temperature}
    return generalized_contrastive_loss(*sides, **temperatures, tile_size=5).loss.mean()


@pytest.mark.parametrize("form", ["dense", "factored"])
@pytest.mark.parametrize("case", range(int(GOLDEN["num_cases"])))
def test_authors_losses_and_gradients(case, form):
    anchors, labels, contrasts, contrast_labels = golden_arguments(case)
    temperatures = (GOLDEN[f"case{case}_{name}"] for name in ("temperature", "base_temperature"))
    value, (of_anchors, of_contrasts) = authors_mean(form, (anchors, contrasts), labels, contrast_labels, *temperatures)
    if of_contrasts is None:
        of_anchors, of_contrasts = np.split(np.asarray(of_anchors), 2)
    np.testing.assert_allclose(value, GOLDEN[f"case{case}_loss"], rtol=1e-5)
    assert_gradients_equal(of_anchors, GOLDEN[f"case{case}_query_grad"])
    assert_gradients_equal(of_contrasts, GOLDEN[f"case{case}_key_grad"])


def test_hard_labels_give_supcon():
    anchors, labels, _, _ = golden_arguments(0)
    temperature, base_temperature = float(GOLDEN["case0_temperature"]), float(GOLDEN["case0_base_temperature"])
    settings = {"temperature": temperature, "base_temperature": base_temperature}
    result = jax.jit(functools.partial(generalized_contrastive_loss, **settings))(anchors, labels)
    np.testing.assert_allclose(result.loss.mean(), GOLDEN["case0_supcon_loss"], rtol=1e-5)
    # The formula of the SupCon paper (L_out), from class numbers.
    classes, logits = labels.argmax(axis=1), np.float64(anchors) @ np.float64(anchors).T / temperature
    others = ~np.eye(len(anchors), dtype=bool)
    log_probabilities = logits - np.log(np.sum(np.exp(logits) * others, axis=1, keepdims=True))
    positives = (classes[:, None] == classes) & others
    expected = -np.sum(log_probabilities * positives, axis=1) / positives.sum(axis=1)
    assert_values_equal(result.loss, expected * temperature / base_temperature)


def test_own_class_per_image_gives_simclr():
    query, key = GOLDEN["simclr_query"], GOLDEN["simclr_key"]
    temperature = float(GOLDEN["simclr_temperature"])
    anchors, labels = np.concatenate([query, key]), np.tile(np.eye(len(query)), (2, 1))
    result = jax.jit(functools.partial(generalized_contrastive_loss, temperature=temperature))(anchors, labels)
    np.testing.assert_allclose(result.mean(), GOLDEN["simclr_loss"], rtol=1e-5)
    # NT-Xent: cross-entropy of the other view of the same image.
    logits = np.float64(anchors) @ np.float64(anchors).T / temperature
    np.fill_diagonal(logits, -np.inf)
    partner = np.roll(np.arange(len(anchors)), len(query))
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(anchors)), partner]
    assert_values_equal(result.loss, expected)


# ---- degenerate inputs


def hard_cases():
    anchors, labels, _, _, mask = problem("hard", 7)
    alone = np.eye(NUM_ANCHORS, NUM_CLASSES, dtype=np.float32)  # the first 7 are alone, the others have no label
    nobody = np.zeros(NUM_ANCHORS, bool)
    yield "zero label rows", (anchors, labels_of("with_zero_rows", np.random.default_rng(0), NUM_ANCHORS), mask), 0.1
    yield "all labels zero", (anchors, 0.0 * labels, mask), 0.1
    yield "no similar contrast", (anchors, alone, mask), 0.1
    yield "low temperature", (anchors, labels, mask), 0.005
    yield "unnormalized", (100.0 * anchors, labels, mask), 0.1
    yield "unnormalized, low temperature", (100.0 * anchors, labels, mask), 0.005
    yield "zero embeddings", (0.0 * anchors, labels, mask), 0.1
    yield "equal embeddings", (np.ones_like(anchors) / DIM**0.5, labels, mask), 0.005
    yield "all masked", (anchors, labels, nobody), 0.1
    yield "one contrast", (anchors, labels, np.arange(NUM_ANCHORS) == 3), 0.1


@pytest.mark.parametrize(
    ("name", "inputs", "temperature"), hard_cases(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_everything_stays_finite(name, inputs, temperature):
    anchors, labels, mask = inputs
    for sides in ((anchors, labels, None, None, mask), (anchors, labels, anchors[::-1], labels[::-1], mask)):
        expected, valid = loop_loss(*sides, "similarity", temperature)
        for run in (dense, factored):
            result, gradients = run(*sides, "similarity", temperature)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.loss, result.mean(), gradients)))
            assert result.valid.tolist() == valid.tolist()
            assert not np.any(result.loss[~valid])
            # The logits reach 2e6 here, and float32 rounds them.
            scale = np.abs(anchors).max() ** 2 / temperature
            np.testing.assert_allclose(result.loss, expected, rtol=1e-5, atol=1e-5 + 1e-6 * scale)


def test_no_valid_anchor_gives_zero():
    anchors, labels, _, _, mask = problem("hard", 7)
    result, (gradient, _) = factored(anchors, 0.0 * labels, None, None, mask, "similarity", TEMPERATURE)
    assert result.mean() == 0.0 and not result.valid.any() and not gradient.any()


@pytest.mark.parametrize("run", [dense, factored])
def test_a_batch_of_one(run):
    anchors, labels, _, _, _ = problem("hard", 0, num_anchors=1)
    result, (gradient, _) = run(anchors, labels, None, None, None, "similarity", TEMPERATURE)
    assert result.loss.tolist() == [0.0] and result.valid.tolist() == [False] and not gradient.any()


def test_a_masked_contrast_is_still_an_anchor():
    arguments = problem("hard", 2)
    mask = np.arange(NUM_ANCHORS) != 0
    moved = arguments[0].copy()
    moved[0] = -moved[0]
    before, _ = factored(*arguments[:4], mask, "similarity", TEMPERATURE)
    after, _ = factored(moved, *arguments[1:4], mask, "similarity", TEMPERATURE)
    assert before.valid[0] and before.loss[0] != after.loss[0]
    np.testing.assert_array_equal(before.loss[1:], after.loss[1:])


def test_bfloat16_embeddings_are_computed_in_float32():
    anchors, labels, _, _, mask = problem("smoothed", 4)
    rounded = jnp.asarray(anchors, jnp.bfloat16)
    low, (gradient, _) = factored(rounded, jnp.asarray(labels, jnp.bfloat16), None, None, mask, "similarity", 0.1)
    exact = jnp.asarray(labels, jnp.bfloat16).astype(jnp.float32)
    high, _ = factored(rounded.astype(jnp.float32), exact, None, None, mask, "similarity", 0.1)
    assert low.loss.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(low.loss, high.loss)


@pytest.mark.parametrize("dtype", [np.int32, bool, np.float64])
def test_any_numeric_labels_and_numbers_as_mask(dtype):
    anchors, labels, _, _, mask = problem("hard", 6)
    expected, _ = factored(anchors, labels, None, None, mask, "similarity", TEMPERATURE)
    result, _ = factored(anchors, labels.astype(dtype), None, None, mask.astype(dtype), "similarity", TEMPERATURE)
    np.testing.assert_array_equal(result.loss, expected.loss)


@pytest.mark.parametrize("scale", [1e-35, 1e-25, 3e38])
def test_labels_need_not_sum_to_one(scale):
    anchors, labels, _, _, mask = problem("smoothed" if scale < 1e-30 else "teacher", 6)
    for run in (dense, factored):
        expected, _ = run(anchors, labels, None, None, mask, "similarity", TEMPERATURE)
        result, _ = run(anchors, np.float32(scale) * labels, None, None, mask, "similarity", TEMPERATURE)
        assert expected.valid.all() and result.valid.all()
        np.testing.assert_allclose(result.loss, expected.loss, rtol=1e-5)


@pytest.mark.parametrize("run", [dense, factored])
@pytest.mark.parametrize("broken", ["anchors", "labels"])
def test_nan_is_propagated(run, broken):
    anchors, *_ = problem("hard", 7)
    labels = np.eye(NUM_ANCHORS // 2, dtype=np.float32)[np.arange(NUM_ANCHORS) // 2]
    (anchors if broken == "anchors" else labels)[3, 0] = np.nan
    result, (gradient, _) = run(anchors, labels, None, None, None, "similarity", TEMPERATURE)
    assert np.isnan(result.mean()) and np.isnan(gradient).any()
    if broken == "anchors":
        assert np.isnan(result.loss).all()  # also where it is only one of many that are not similar


@pytest.mark.parametrize("run", [dense, factored])
@pytest.mark.parametrize(("num_anchors", "num_contrasts"), [(0, None), (0, 3), (4, 0), (0, 0)])
def test_without_anchors_or_contrasts_none_is_valid(run, num_anchors, num_contrasts):
    anchors, labels, *_ = problem("hard", 7)
    others = (None, None) if num_contrasts is None else (anchors[:num_contrasts], labels[:num_contrasts])
    arguments = (anchors[:num_anchors], labels[:num_anchors], *others)
    result, gradients = run(*arguments, None, "similarity", TEMPERATURE)
    assert result.loss.shape == result.valid.shape == (num_anchors,)
    assert result.mean() == 0.0 and not result.valid.any() and not result.loss.any()
    for gradient, points in zip(gradients, arguments[::2], strict=True):
        assert points is None or (gradient.shape == points.shape and not gradient.any())


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
def test_a_second_derivative_is_an_error(num_contrasts):
    anchors, labels, contrasts, contrast_labels, _ = problem("teacher", 3, num_contrasts=num_contrasts)

    def mean(anchor_loss_fn, points, temperature):
        arguments = (points[0], labels, points[1], contrast_labels, None, "similarity", temperature)
        return anchor_loss_fn(*arguments).mean()

    def steepness(anchor_loss_fn, points):
        gradients = jax.grad(functools.partial(mean, anchor_loss_fn))(points, TEMPERATURE)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients))

    points = (anchors, contrasts)
    of_factored = functools.partial(steepness, factored_anchor_loss)
    of_temperature = functools.partial(mean, factored_anchor_loss, points)
    for refused in (jax.grad(of_factored), jax.jit(jax.grad(jax.jit(of_factored)))):
        with pytest.raises(UserError, match=r"second derivative.*dense_contrastive_loss"):
            refused(points)
    with pytest.raises(UserError, match="second derivative"):
        jax.grad(jax.grad(of_temperature))(TEMPERATURE)
    of_dense = jax.jit(jax.value_and_grad(functools.partial(steepness, dense_anchor_loss)))
    value, second = of_dense(points)
    np.testing.assert_allclose(jax.jit(of_factored)(points), value, rtol=1e-4)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(second))


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
def test_gradients_under_checkpoint_scan_and_vmap(num_contrasts):
    *sides, mask = problem("teacher", 3, num_contrasts=num_contrasts)
    _, expected = factored(*sides, mask, "similarity", TEMPERATURE)

    def gradients_of(points, wrap=lambda function: function):
        def mean(points):
            arguments = (points[0], sides[1], points[1], sides[3], mask, "similarity", TEMPERATURE)
            return factored_anchor_loss(*arguments).mean()

        return jax.grad(wrap(mean))(points)

    points = (sides[0], sides[2])
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), points)
    under_checkpoint = jax.jit(functools.partial(gradients_of, wrap=jax.checkpoint))(points)
    _, under_scan = jax.lax.scan(lambda carry, points: (carry, gradients_of(points)), 0, stacked)
    under_vmap = jax.jit(jax.vmap(gradients_of))(stacked)
    for found in (under_checkpoint, *(jax.tree.map(lambda leaf: leaf[1], each) for each in (under_scan, under_vmap))):
        jax.tree.map(assert_gradients_equal, found, jax.tree.map(np.asarray, expected))


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS])
def test_gradients_of_temperature_and_labels(num_contrasts):
    arguments = problem("teacher", 8, num_contrasts=num_contrasts)

    def mean(anchor_loss_fn, temperature, labels):
        return anchor_loss_fn(arguments[0], labels, *arguments[2:], "similarity", temperature).mean()

    gradients = [
        jax.jit(jax.grad(functools.partial(mean, form), argnums=(0, 1)))(jnp.float32(0.3), arguments[1])
        for form in (dense_anchor_loss, factored_anchor_loss)
    ]
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], rtol=1e-4)
    assert not gradients[0][1].any() and not gradients[1][1].any()


# ---- devices


def mesh_of(num_devices):
    return jax.make_mesh((num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:num_devices])


def on_devices(num_devices, function, out_specs, **settings):
    """function with all arguments sharded over the devices by rows."""
    rows = PartitionSpec("data")
    sharded = jax.shard_map(function, mesh=mesh_of(num_devices), in_specs=rows, out_specs=out_specs, **settings)
    return jax.jit(sharded)


def spread_loss(anchors, anchor_labels, contrasts, contrast_labels, mask):
    return generalized_contrastive_loss(
        anchors,
        anchor_labels,
        contrasts,
        contrast_labels,
        temperature=TEMPERATURE,
        contrast_weights=mask,
        axis_name="data",
        tile_size=TILE,
    )


def spread_mean_and_gradients(*arguments):
    return mean_and_gradients(lambda *sides: spread_loss(*sides), *arguments)


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
@pytest.mark.parametrize("num_devices", [1, 2, 8])
@pytest.mark.parametrize("kinds", [KINDS, ("mixed", "with_zero_rows")], ids=["0 or 1", "weighted"])
def test_several_devices_give_the_values_of_one(num_devices, num_contrasts, kinds):
    run = on_devices(num_devices, spread_mean_and_gradients, PartitionSpec("data"))
    for kind in kinds:
        *sides, mask = problem(kind, 9, num_contrasts=num_contrasts)
        arguments = (*sides, mask if kinds == KINDS else weights_from(mask))
        expected, expected_gradients = factored(*arguments, "similarity", TEMPERATURE)
        result, gradients = run(*arguments)
        assert result.valid.tolist() == expected.valid.tolist(), kind
        assert_values_equal(result.loss, expected.loss)
        assert_values_equal(result.mean(), expected.mean())  # the array is global here
        for actual, true in zip(gradients, expected_gradients, strict=True):
            assert_gradients_equal(actual, true)


@pytest.mark.parametrize("num_contrasts", [None, 0], ids=["no anchor", "no contrast"])
def test_without_anchors_on_any_device_none_is_valid(num_contrasts):
    anchors, labels, *_ = problem("hard", 9)
    sides = (
        (anchors[:0], labels[:0], None, None) if num_contrasts is None else (anchors, labels, anchors[:0], labels[:0])
    )

    def mean(*local):
        result = spread_loss(*local, None)
        return result, result.mean()

    result, average = on_devices(8, mean, (PartitionSpec("data"), PartitionSpec()))(*sides)
    assert average == 0.0 and result.valid.shape == (len(sides[0]),) and not result.valid.any()


def test_a_second_derivative_is_an_error_on_devices():
    anchors, labels, *_ = problem("hard", 9)
    mean = on_devices(8, lambda *local: spread_loss(*local, None, None, None).mean(), PartitionSpec())
    with pytest.raises(UserError, match="second derivative"):
        jax.grad(lambda points: jnp.sum(jax.grad(mean)(points, labels) ** 2))(anchors)


def encode(weights, inputs):
    outputs = inputs @ weights
    return outputs / jnp.linalg.norm(outputs, axis=1, keepdims=True)


def encoder_mean(weights, axis_name, inputs, labels):
    settings = {"temperature": TEMPERATURE, "base_temperature": 0.07, "axis_name": axis_name, "tile_size": TILE}
    return generalized_contrastive_loss(encode(weights, inputs), labels, **settings).mean()


@pytest.fixture(scope="module")
def encoder():
    inputs, labels, *_ = problem("teacher", 12)
    weights = np.random.default_rng(12).normal(size=(DIM, DIM)).astype(np.float32)
    expected = jax.jit(jax.value_and_grad(encoder_mean), static_argnums=1)(weights, None, inputs, labels)
    return weights, inputs, labels, expected


@pytest.mark.parametrize("num_devices", [1, 8])
def test_gradients_of_replicated_parameters(encoder, num_devices):
    weights, inputs, labels, (expected, expected_gradient) = encoder
    everywhere, rows = PartitionSpec(), PartitionSpec("data")

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh_of(num_devices), in_specs=(everywhere, rows, rows), out_specs=(everywhere, everywhere)
    )
    def step(weights, inputs, labels):
        return jax.value_and_grad(encoder_mean)(weights, "data", inputs, labels)

    value, gradient = step(weights, inputs, labels)
    assert_values_equal(value, expected)
    assert_gradients_equal(gradient, expected_gradient)


def test_without_check_vma(encoder):
    weights, inputs, labels, (expected, expected_gradient) = encoder
    everywhere, rows = PartitionSpec(), PartitionSpec("data")
    shard = functools.partial(
        jax.shard_map, mesh=mesh_of(8), in_specs=(everywhere, rows, rows), out_specs=everywhere, check_vma=False
    )
    outside = shard(lambda weights, inputs, labels: encoder_mean(weights, "data", inputs, labels))
    value, gradient = jax.jit(jax.value_and_grad(outside))(weights, inputs, labels)
    assert_values_equal(value, expected)
    assert_gradients_equal(gradient, expected_gradient)

    @shard
    def inside(weights, inputs, labels):
        # Here jax differentiates the sum of the values of all devices: the same mean, once per device.
        return jax.lax.pmean(jax.grad(encoder_mean)(weights, "data", inputs, labels), "data")

    assert_gradients_equal(jax.jit(inside)(weights, inputs, labels), expected_gradient)


@pytest.mark.parametrize("num_contrasts", [None, NUM_CONTRASTS], ids=["among", "over"])
def test_under_vmap_with_an_axis_name(num_contrasts):
    arguments = problem("peaked", 9, num_contrasts=num_contrasts)
    expected, expected_gradients = factored(*arguments, "similarity", TEMPERATURE)
    split = jax.tree.map(lambda rows: rows.reshape(4, -1, *rows.shape[1:]), arguments)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(points):
        sides = (points[0], split[1], points[1], split[3], split[4])
        result, means = jax.vmap(lambda *local: (result := spread_loss(*local), result.mean()), axis_name="data")(
            *sides
        )
        return means[0], (result, means)

    (_, (result, means)), gradients = run((split[0], split[2]))
    assert_values_equal(result.loss.ravel(), expected.loss)
    assert_values_equal(means, np.full(4, expected.mean()))
    assert_values_equal(result.mean(), expected.mean())
    for actual, true in zip(gradients, expected_gradients, strict=True):
        assert_gradients_equal(None if actual is None else actual.reshape(true.shape), true)


# ---- the result, wrong input, memory


def test_anchor_loss_is_a_tree_with_a_static_axis():
    anchor_loss = AnchorLoss(jnp.array([1.0, 0.0, 3.0]), jnp.array([True, False, True]), "data")
    returned = jax.jit(lambda tree: tree)(anchor_loss)
    assert returned.axis_name == "data" and len(jax.tree.leaves(returned)) == 2
    assert float(returned.mean()) == 2.0 and returned.loss.mean() == 4.0 / 3.0
    loss, valid = returned
    assert loss is returned.loss and valid is returned.valid
    mean = jax.vmap(lambda tree: AnchorLoss(tree.loss, tree.valid).mean(axis_name="rows"), axis_name="rows")
    stacked = AnchorLoss(jnp.stack([loss, 3.0 * loss]), jnp.stack([valid, valid]))
    np.testing.assert_allclose(mean(stacked), [4.0, 4.0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalizer": "sum"}, ("'sum'", "similarity, count", "loss.normalizer")),
        ({"label_similarity": "cosin"}, ("'cosin'", "cosine, dot, bhattacharyya, jaccard", "loss.label_similarity")),
        ({"temperature": 0.0}, ("0.0", "above 0", "loss.temperature")),
        ({"temperature": -1}, ("-1", "above 0", "loss.temperature")),
        ({"base_temperature": 0.0}, ("0.0", "above 0", "loss.base_temperature")),
        ({"temperature": np.array(0.0)}, ("0.0", "above 0", "loss.temperature")),
        ({"temperature": jnp.float32(-1.0)}, ("-1.0", "above 0", "loss.temperature")),
        ({"temperature": np.float32(np.nan)}, ("nan", "above 0", "loss.temperature")),
        ({"temperature": np.ones(3)}, ("[1. 1. 1.]", "one number above 0", "loss.temperature")),
        ({"base_temperature": jnp.float32(0.0)}, ("0.0", "above 0", "loss.base_temperature")),
        ({"tile_size": 0}, ("0", "1 and more", "loss.tile_size")),
        ({"contrasts": np.ones((3, 2), np.float32)}, ("None", "both or neither", "contrast_labels")),
        ({"contrast_labels": np.ones((3, 2), np.float32)}, ("None", "both or neither", "contrasts")),
        ({"contrast_weights": np.ones(3, bool)}, ("3", "4", "contrast_weights")),
        ({"contrast_weights": np.float32([1, -0.5, 0, 1])}, ("-0.5", "numbers from 0", "change contrast_weights")),
        ({"contrast_weights": np.float32([1, np.inf, 0, 1])}, ("inf", "numbers from 0", "change contrast_weights")),
    ],
)
def test_wrong_input_is_an_error_that_names_what_was_found_and_what_is_allowed(changes, words):
    settings = {"temperature": 0.1} | changes
    with pytest.raises(UserError) as raised:
        generalized_contrastive_loss(np.ones((4, 2), np.float32), np.ones((4, 2)), **settings)
    assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)


# jaxtyping's shape checks of the tests would come first: these tests disable them.
unchecked_loss = inspect.unwrap(generalized_contrastive_loss)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anchor_labels": np.arange(4)}, ("[4]", "[anchor, class]", "jax.nn.one_hot", "anchor_labels")),
        ({"contrast_labels": np.arange(3)}, ("[3]", "[contrast, class]", "jax.nn.one_hot", "contrast_labels")),
        ({"anchors": np.ones((4, 2, 2), np.float32)}, ("[4, 2, 2]", "[anchor, dim]", "change anchors")),
        ({"contrasts": np.ones((3, 5), np.float32)}, ("5 columns", "allowed: 2", "change contrasts")),
        ({"contrast_labels": np.ones((3, 5))}, ("5 columns", "allowed: 6", "change contrast_labels")),
        ({"anchor_labels": np.ones((5, 6))}, ("5 rows", "allowed: 4", "change anchor_labels")),
        ({"contrast_weights": np.ones((4, 3))}, ("[4, 3]", "[contrast]", "change contrast_weights")),
        ({"tile_size": 2.5}, ("2.5", "without a fraction", "loss.tile_size")),
        ({"temperature": "low"}, ("low", "above 0", "loss.temperature")),
    ],
)
def test_mismatched_shapes_are_named(changes, words):
    arguments = {
        "anchors": np.ones((4, 2), np.float32),
        "anchor_labels": np.ones((4, 6)),
        "contrasts": np.ones((3, 2), np.float32),
        "contrast_labels": np.ones((3, 6)),
        "temperature": 0.1,
    }
    with pytest.raises(UserError) as raised:
        unchecked_loss(**arguments | changes)
    assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)


def test_shapes_of_the_matrices():
    with pytest.raises(UserError, match=r"\[anchor, class\].*one_hot"):
        inspect.unwrap(label_similarity)(np.arange(4), np.arange(4))
    with pytest.raises(UserError, match="3 columns; allowed: 2"):
        inspect.unwrap(latent_similarity)(np.ones((4, 2)), np.ones((4, 3)), temperature=0.1)


def test_a_traced_temperature_is_not_checked():
    anchors, labels, *_ = problem("hard", 7)
    loss = jax.jit(lambda temperature: generalized_contrastive_loss(anchors, labels, temperature=temperature).mean())
    assert np.isfinite(loss(0.1)) and np.isnan(loss(-0.1))


def test_wrong_input_of_the_dense_form():
    square = np.ones((2, 2), np.float32)
    with pytest.raises(UserError, match=r"loss\.normalizer"):
        dense_contrastive_loss(square, square, normalizer="mean")
    with pytest.raises(UserError, match=r"contrast_weights has -1; allowed: numbers from 0"):
        dense_contrastive_loss(square, square, contrast_weights=-square)
    with pytest.raises(UserError, match=r"loss\.temperature"):
        latent_similarity(square, square, temperature=0.0)
    with pytest.raises(UserError, match=r"loss\.temperature"):
        latent_similarity(square, square, temperature=jnp.float32(0.0))


def temporary_bytes(anchor_loss_fn, num_anchors, num_classes):
    def mean(anchors, labels):
        return anchor_loss_fn(anchors, labels, None, None, None, "similarity", TEMPERATURE).mean()

    shapes = [jax.ShapeDtypeStruct((num_anchors, width), jnp.float32) for width in (64, num_classes)]
    return jax.jit(jax.value_and_grad(mean)).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_with_the_anchors_not_with_their_square():
    in_tiles = functools.partial(factored_anchor_loss, tile=64)
    small, large = (temporary_bytes(in_tiles, num_anchors, 100) for num_anchors in (2048, 8192))
    assert large < 5 * small
    assert large < 8192 * 8192 * 4 / 8  # one matrix of the dense form
    assert small < temporary_bytes(dense_anchor_loss, 2048, 100) / 4


def test_contrasts_without_gradient_take_no_time():
    anchors, labels, contrasts, contrast_labels, _ = problem("hard", 0, num_contrasts=NUM_CONTRASTS)

    def num_matmuls(num_devices, differentiated):
        def mean(points, *rest):
            sides = (
                points[0],
                rest[0],
                points[1] if differentiated else jax.lax.stop_gradient(points[1]),
                rest[1],
                None,
            )
            return spread_loss(*sides).mean()

        gradient = on_devices(num_devices, jax.grad(mean), PartitionSpec("data"))
        return gradient.lower((anchors, contrasts), labels, contrast_labels).compile().as_text().count(" dot(")

    # Left out are the logits and the product of the loop over the contrasts, and one product of the labels' part.
    assert num_matmuls(8, differentiated=False) <= num_matmuls(8, differentiated=True) - 3


# ---- for users of SupContrast


def test_views_are_flattened_in_the_layout_of_supcontrast():
    features = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    labels = np.array([[1, 0], [0, 1], [0.25, 0.75]], np.float32)
    anchors, anchor_labels = flatten_views(features, labels)
    assert anchors.tolist() == [features[image, view].tolist() for image in range(3) for view in range(2)]
    assert anchor_labels.tolist() == [labels[image].tolist() for image in range(3) for _ in range(2)]
    with pytest.raises(UserError, match=r"features has shape \[6, 4\]; allowed: \[image, view, dim\]"):
        inspect.unwrap(flatten_views)(features.reshape(6, 4), labels)
    with pytest.raises(UserError, match="labels has 2 rows; allowed: 3"):
        inspect.unwrap(flatten_views)(features, labels[:2])


def test_features_with_a_view_axis_get_a_hint():
    with pytest.raises(
        UserError, match=r"anchors has shape \[3, 2, 4\].*several views: losses.flatten_views\(features, labels"
    ):
        inspect.unwrap(generalized_contrastive_loss)(np.zeros((3, 2, 4), np.float32), np.eye(3), temperature=0.1)


def test_a_forgotten_mean_is_an_error_of_one_sentence():
    sentence = r"AnchorLoss: a loss for each of 4 anchors, not one number; allowed: \.mean\(\), or \.loss \[anchor\]"

    def loss_fn(anchors):
        return generalized_contrastive_loss(anchors, np.eye(2)[[0, 1, 0, 1]], temperature=0.1)

    loss = loss_fn(jnp.eye(4))
    assert re.fullmatch(sentence, repr(loss))
    with pytest.raises(TypeError, match=rf"scalar-output functions. Output was {sentence}\."):
        jax.grad(loss_fn)(jnp.eye(4))
    for arithmetic in (
        lambda: loss + 1,
        lambda: 2.0 * loss,
        lambda: jnp.float32(1) - loss,
        lambda: -loss,
        lambda: float(loss),
    ):
        with pytest.raises(UserError, match=rf"a number was expected, found {sentence}$"):
            arithmetic()
