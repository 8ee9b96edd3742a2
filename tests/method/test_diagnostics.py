"""Diagnostics of a step: by hand, the same on 1, 2 and 8 devices, without gradient, edge cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gensupcon_jax import losses
from gensupcon_jax.losses import label_similarity
from gensupcon_jax.method.diagnostics import (
    Labeled,
    batch_chance_loss,
    batch_diagnostics,
    embedding_diagnostics,
    mean_entropy,
)
from gensupcon_jax.method.objectives import contrastive_chance_loss

# Two images of class 0 on the right, two of class 1 above, one of class 1 among those on the right.
PLACES = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8], [0.96, 0.28]])
CLASSES = jnp.eye(2)[jnp.array([0, 0, 1, 1, 1])]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def soft_labels(rng, num_rows, num_classes):
    return rng.dirichlet(np.full(num_classes, 0.5), num_rows).astype(np.float32)


def numbers(metrics):
    return {name: float(value) for name, value in metrics.items()}


@functools.partial(jax.jit, static_argnames=("num_anchors", "label_similarity"))
def diagnose(embeddings, labels, contrasts=None, contrast_labels=None, **settings):
    others = None if contrasts is None else Labeled(contrasts, contrast_labels)
    return batch_diagnostics(Labeled(embeddings, labels), others, **settings)


@functools.partial(jax.jit, static_argnames=("normalizer", "label_similarity"))
def chance(*arrays, scale=1.0, **settings):
    return scale * batch_chance_loss(*arrays, **settings)


# ---- by hand


def test_pairs_among_themselves():
    # Nearest: 0 -> 4 (other class), 1 -> 4 (other), 2 -> 3 (same), 3 -> 2 (same), 4 -> 0 (other).
    metrics = numbers(diagnose(PLACES, CLASSES))
    assert metrics["contrastive_accuracy"] == pytest.approx(2 / 5)
    assert metrics["similar_contrasts"] == pytest.approx((1 + 1 + 2 + 2 + 2) / 5)
    assert metrics["similarity_mass"] == pytest.approx((1 + 1 + 2 + 2 + 2) / 5)


def test_pairs_with_contrasts_and_a_mask():
    contrasts = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    labels = jnp.eye(2)[jnp.array([0, 0, 1])]
    # Without the third, of the five anchors only 0 and 1 have a similar contrast, and both are near the first.
    masked = numbers(diagnose(PLACES, CLASSES, contrasts, labels, contrast_weights=jnp.array([1, 1, 0])))
    assert masked["contrastive_accuracy"] == 1.0
    assert masked["similar_contrasts"] == masked["similarity_mass"] == pytest.approx(2 * 2 / 5)
    # With it, 1 goes over to it (0.96 against 0.8); 2 and 3 are nearest to the second, and 4 to the first.
    metrics = numbers(diagnose(PLACES, CLASSES, contrasts, labels))
    assert metrics["contrastive_accuracy"] == pytest.approx(1 / 5)
    assert metrics["similarity_mass"] == pytest.approx((2 * 2 + 3) / 5)


def test_a_mixed_anchor_is_similar_to_each_class_that_holds_enough_of_it():
    anchors = jnp.array([[1.0, 0.0]])
    contrasts, labels = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.eye(2)
    for share, accuracy, num_similar in ((0.5, 1.0, 2.0), (0.38, 1.0, 2.0), (0.36, 0.0, 1.0)):
        metrics = numbers(diagnose(anchors, jnp.array([[share, 1.0 - share]]), contrasts, labels))
        assert metrics["contrastive_accuracy"] == accuracy
        assert metrics["similar_contrasts"] == num_similar
        assert metrics["similarity_mass"] == pytest.approx(1.0 / np.hypot(share, 1.0 - share), rel=1e-5)


def test_contrasts_at_the_same_distance_share_the_anchor():
    contrasts = jnp.array([[0.6, 0.8], [0.6, -0.8], [0.6, 0.8], [-1.0, 0.0]])
    labels = jnp.eye(2)[jnp.array([0, 1, 1, 0])]
    metrics = diagnose(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]]), contrasts, labels)
    assert float(metrics["contrastive_accuracy"]) == pytest.approx(1 / 3)


def test_only_the_first_anchors_are_compared_but_all_are_counted():
    metrics = numbers(diagnose(PLACES, CLASSES, num_anchors=2))
    assert metrics["contrastive_accuracy"] == 0.0
    assert metrics["similar_contrasts"] == 1.0
    assert metrics["similarity_mass"] == pytest.approx(8 / 5)


@pytest.mark.parametrize(
    ("embeddings", "spread", "rank"),
    [
        ([[1, 0, 0], [0, 1, 0]], 0.5, 1.0),
        ([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], 1.0, 2.0),
        ([[1, 0, 0], [-1, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [-1, 0, 0]], 1.0, 1 / (4 / 9 + 1 / 9)),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 2 / 3, 2.0),
        ([[0.6, 0.8, 0]] * 4, 0.0, 0.0),
    ],
    ids=["a line", "a square", "uneven", "three corners", "a point"],
)
def test_spread_and_rank(embeddings, spread, rank):
    metrics = numbers(jax.jit(embedding_diagnostics)(jnp.array(embeddings, jnp.float32)))
    assert metrics["embedding_spread"] == pytest.approx(spread, abs=1e-6)
    assert metrics["effective_rank"] == pytest.approx(rank, abs=1e-5)


def test_spread_and_rank_of_nearly_collapsed_embeddings_do_not_cancel():
    rng = np.random.default_rng(0)
    embeddings = unit(np.array([[1.0] + [0.0] * 8]) + 1e-3 * rng.normal(size=(64, 9)))
    centerd = np.float64(embeddings) - np.float64(embeddings).mean(axis=0)
    powers = np.linalg.svd(centerd, compute_uv=False) ** 2 / 64
    metrics = numbers(jax.jit(embedding_diagnostics)(jnp.asarray(embeddings)))
    assert metrics["embedding_spread"] == pytest.approx(powers.sum(), rel=1e-3)
    assert metrics["effective_rank"] == pytest.approx(powers.sum() ** 2 / (powers**2).sum(), rel=1e-3)


def test_entropies():
    labels = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25] * 4, [0.0] * 4])
    assert float(mean_entropy(labels)) == pytest.approx((0 + np.log(2) + np.log(4) + 0) / 4)
    metrics = diagnose(jnp.eye(4), labels, teacher=(jnp.full((4, 4), 0.25), None))
    assert float(metrics["label_entropy"]) == pytest.approx(3 * np.log(2) / 4)
    assert float(metrics["teacher_entropy"]) == pytest.approx(np.log(4))


# ---- chance level


def test_chance_loss_by_hand():
    # Four contrasts per anchor; similarities sum to 1, 1, 2, 2, 2.
    assert float(chance(CLASSES)) == pytest.approx(np.log(4))
    assert float(chance(CLASSES, scale=0.1)) == pytest.approx(0.1 * np.log(4))
    assert float(chance(CLASSES, normalizer="count")) == pytest.approx(np.log(4) * 8 / 5 / 4)
    # An anchor without a similar contrast does not count.
    lonely = jnp.eye(3)[jnp.array([0, 0, 1, 1, 2])]
    assert float(chance(lonely, normalizer="count")) == pytest.approx(np.log(4) / 4)


def test_chance_loss_is_8_9091_for_the_digits_recipe():
    labels = jnp.eye(10)[jnp.arange(512) % 10]
    assert float(chance(labels, scale=0.1 / 0.07)) == pytest.approx(8.9091, abs=1e-4)


@pytest.mark.parametrize("mode", ["all", "one"])
@pytest.mark.parametrize("normalizer", ["similarity", "count"])
def test_chance_loss_is_the_loss_of_equal_embeddings(mode, normalizer):
    views = jnp.asarray(soft_labels(np.random.default_rng(0), 48, 5).reshape(16, 3, 5))
    settings = {"temperature": 0.1, "base_temperature": 0.07, "normalizer": normalizer}
    expected = contrastive_chance_loss(views, mode=mode, **settings)
    sides = (views.reshape(48, 5),) if mode == "all" else (views[:, 0], views[:, 1:].reshape(32, 5))
    found = chance(*sides, scale=0.1 / 0.07, normalizer=normalizer)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_chance_loss_counts_the_filled_part_of_the_queue():
    labels = jnp.eye(2)[jnp.arange(8) % 2]
    found = chance(labels[:4], labels, contrast_weights=jnp.arange(8) < 6)
    assert float(found) == pytest.approx(np.log(6))


def test_chance_loss_adds_up_the_weights():
    found = chance(CLASSES[:2], CLASSES, contrast_weights=jnp.array([0.5, 0.25, 4.0, 0.0, 2.0]))
    assert float(found) == pytest.approx(np.log(6.75))
    # Among themselves an anchor does not count its own weight.
    found = chance(jnp.array([[1, 0], [1, 0], [0, 1]]), contrast_weights=jnp.array([0.5, 0.25, 4.0]))
    assert float(found) == pytest.approx((np.log(4.25) + np.log(4.5)) / 2)


# ---- edge cases


def test_no_similar_contrast_at_all():
    metrics = numbers(diagnose(PLACES, jnp.eye(5)))
    assert metrics["contrastive_accuracy"] == metrics["similar_contrasts"] == metrics["similarity_mass"] == 0.0
    assert float(chance(jnp.eye(5))) == 0.0


@pytest.mark.parametrize("labels", [CLASSES, jnp.zeros((5, 2))], ids=["hard", "zero rows"])
@pytest.mark.parametrize("mask", [None, jnp.zeros(5)], ids=["all contrasts", "no contrast"])
def test_everything_is_finite(labels, mask):
    metrics = diagnose(jnp.ones((5, 2)) / np.sqrt(2.0), labels, contrast_weights=mask)
    assert all(np.isfinite(value) for value in numbers(metrics).values())
    assert np.isfinite(chance(labels, contrast_weights=mask, normalizer="count"))


def test_collapsed_embeddings_are_right_as_often_as_chance():
    labels = jnp.eye(4)[jnp.arange(32) % 4]
    # Equal up to rounding: which contrast is nearest is arbitrary.
    embeddings = unit(np.ones((32, 64)) + 1e-7 * np.random.default_rng(0).normal(size=(32, 64)))
    metrics = numbers(diagnose(jnp.asarray(embeddings), labels))
    assert metrics["contrastive_accuracy"] == pytest.approx(7 / 31)
    assert metrics["embedding_spread"] < 1e-9
    assert metrics["effective_rank"] == 0.0


def test_teacher_labels_with_hardly_any_difference_keep_their_mass():
    labels = jnp.full((6, 10), 0.1)
    metrics = numbers(diagnose(jnp.eye(6), labels))
    assert metrics["similar_contrasts"] == metrics["similarity_mass"] == pytest.approx(5.0)
    assert metrics["label_entropy"] == pytest.approx(np.log(10), rel=1e-6)


def test_integer_labels_and_bfloat16_embeddings():
    expected = numbers(diagnose(PLACES, CLASSES))
    found = diagnose(PLACES.astype(jnp.bfloat16), CLASSES.astype(jnp.int32))
    assert all(value.dtype == jnp.float32 and value.shape == () for value in found.values())
    assert numbers(found) == pytest.approx(expected, rel=0.02)


def test_no_gradient_flows():
    def total(embeddings, labels):
        metrics = diagnose(embeddings, labels, teacher=(labels, None))
        return sum(metrics.values()) + chance(labels)

    for gradient in jax.grad(total, argnums=(0, 1))(PLACES, CLASSES):
        np.testing.assert_array_equal(gradient, 0.0)


def test_a_similarity_of_labels_from_the_table(monkeypatch):
    monkeypatch.setitem(losses.LABEL_SIMILARITIES, "everybody", lambda labels: 0.5 * jnp.ones((len(labels), 1)))
    metrics = numbers(diagnose(PLACES, CLASSES, label_similarity="everybody"))
    assert metrics["similarity_mass"] == 4 * 0.25
    assert metrics["similar_contrasts"] == 0.0  # none is above one half
    assert chance(CLASSES, normalizer="count", label_similarity="everybody") == pytest.approx(np.log(4) * 0.25)


# ---- several devices


def on_devices(num_devices, function):
    """function with all arguments spread over the devices by rows, its result the same on all of them."""
    devices = jax.devices()[:num_devices]
    mesh = jax.make_mesh((num_devices,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=everywhere))


def everything(anchors, labels, contrasts, contrast_labels, mask, teacher, axis_name, num_anchors):
    metrics = batch_diagnostics(
        Labeled(anchors, labels),
        None if contrasts is None else Labeled(contrasts, contrast_labels),
        contrast_weights=mask,
        teacher=(teacher, None if contrasts is None else contrast_labels),
        axis_name=axis_name,
        num_anchors=num_anchors,
    )
    chance = batch_chance_loss(labels, contrast_labels, contrast_weights=mask, normalizer="count", axis_name=axis_name)
    return metrics | {"chance_loss": 0.5 * chance}


@functools.partial(jax.jit, static_argnums=6)
def on_one(*arrays_and_num_anchors):
    return everything(*arrays_and_num_anchors[:6], None, arrays_and_num_anchors[6])


@functools.cache
def batch(num_contrasts):
    rng = np.random.default_rng(3)
    anchors, labels, teacher = unit(rng.normal(size=(32, 6))), soft_labels(rng, 32, 4), soft_labels(rng, 32, 4)
    mask = rng.random(num_contrasts or 32) < 0.7
    contrasts = None if num_contrasts is None else unit(rng.normal(size=(num_contrasts, 6)))
    contrast_labels = None if num_contrasts is None else soft_labels(rng, num_contrasts, 4)
    arrays = (anchors, labels, contrasts, contrast_labels, mask, teacher)
    return jax.tree.map(jnp.asarray, arrays)


@pytest.mark.parametrize("num_anchors", [5, 18, 64])
@pytest.mark.parametrize("num_contrasts", [None, 40], ids=["among themselves", "with contrasts"])
def test_the_same_on_1_2_and_8_devices(num_contrasts, num_anchors):
    # On 8 devices 4 anchors each: the first 5 and 18 end in the middle of one.
    arrays = batch(num_contrasts)
    expected = numbers(on_one(*arrays, num_anchors))
    for num_devices in (1, 2, 8):
        function = functools.partial(everything, axis_name="data", num_anchors=num_anchors)
        assert numbers(on_devices(num_devices, function)(*arrays)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("num_contrasts", [None, 40], ids=["among themselves", "with contrasts"])
def test_pairs_against_a_loop(num_contrasts):
    anchors, labels, contrasts, contrast_labels, mask, _ = arrays = batch(num_contrasts)
    if contrasts is None:
        contrasts, contrast_labels = anchors, labels
    similarity = np.asarray(label_similarity(labels, contrast_labels))
    inner = np.float64(anchors) @ np.float64(contrasts).T
    correct, num_similar, masses = [], [], []
    for i in range(len(anchors)):
        allowed = [j for j in range(len(contrasts)) if mask[j] and not (num_contrasts is None and i == j)]
        masses.append(similarity[i, allowed].sum())
        if i < 18:
            num_similar.append((similarity[i, allowed] > 0.5).sum())
            if num_similar[-1]:
                correct.append(similarity[i, max(allowed, key=lambda j: inner[i, j])] > 0.5)
    metrics = numbers(on_one(*arrays, 18))
    assert metrics["contrastive_accuracy"] == pytest.approx(np.mean(correct))
    assert metrics["similar_contrasts"] == pytest.approx(np.mean(num_similar))
    assert metrics["similarity_mass"] == pytest.approx(np.mean(masses), rel=1e-5)
