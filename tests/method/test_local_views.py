"""Local views: further anchors of the same contrasts in each mode, never contrasts; mixed and taught like the views."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.instances import unlabeled_places
from gensupcon_jax.method import objectives
from gensupcon_jax.method.denominators import class_balanced_weights
from gensupcon_jax.method.network import WHOLE, Microbatches
from gensupcon_jax.method.objectives import MixedBatch, Momentum, TeacherLabels
from gensupcon_jax.method.prototypes import Prototypes
from gensupcon_jax.method.state import create_state
from gensupcon_jax.method.train_step import build_view_fn
from gensupcon_jax.models import Classifier, HeadedEncoder
from gensupcon_jax.models.heads import LinearHead
from gensupcon_jax.run import assemble
from gensupcon_jax.views.augment import normalize, per_image_keys
from gensupcon_jax.views.mixing import build_mix_fn
from tests.method.flat import (
    BATCH_SIZE,
    DIM,
    MODES,
    NUM_CLASSES,
    NUM_VIEWS,
    TEMPERATURE,
    Flat,
    assert_same,
    build,
    cosines,
    encoded,
    on_devices,
    problem,
    program,
    sides_of,
    soft,
)

NUM_LOCAL = 3


def with_local(batch, size=3):
    rng = np.random.default_rng(11)
    images = rng.normal(size=(BATCH_SIZE, NUM_LOCAL, size, size, 1)).astype(np.float32)
    return batch._replace(local=MixedBatch(jnp.asarray(images), jnp.asarray(soft(rng, BATCH_SIZE, NUM_LOCAL))))


# ---- the loss of each mode


def naive_losses(anchors, contrasts, labels, contrast_labels, allowed, balanced):
    """The loss of every anchor, from the matrices of all pairs."""
    attraction = cosines(np.asarray(labels), np.asarray(contrast_labels)) * allowed
    weights = np.asarray(allowed, float)
    if balanced:
        weights = weights * np.asarray(class_balanced_weights(contrast_labels, jnp.asarray(allowed.any(axis=0))))
    logits = anchors @ contrasts.T / TEMPERATURE
    log_sum = jnp.log(jnp.sum(weights * jnp.exp(logits), axis=1, keepdims=True))
    return -jnp.sum(attraction * (logits - log_sum), axis=1) / attraction.sum(axis=1)


def naive_loss(params, mode, symmetric, state, batch, balanced=False):
    """Views as without local views; a local view meets all views, the other view, or the keys and the queue."""
    views = sides_of(mode, symmetric, state, params, batch, batch.labels)
    parts = [naive_losses(*side, balanced) for side in views]
    images = batch.local.images.reshape(-1, 3, 3, 1)
    local = Flat().apply({"params": params}, images, train=True).embeddings
    _, contrasts, _, contrast_labels, allowed = views[0]  # the contrasts of the only query
    if mode == "all":
        allowed = np.ones_like(allowed)
    if symmetric:  # all keys of this batch, then the queue
        keys = encoded(state.ema_params, batch.images).reshape(-1, DIM)
        contrasts = jnp.concatenate([keys, contrasts[BATCH_SIZE:]])
        contrast_labels = jnp.concatenate([batch.labels.reshape(-1, NUM_CLASSES), contrast_labels[BATCH_SIZE:]])
        allowed = np.concatenate([np.ones((len(allowed), BATCH_SIZE), bool), allowed], axis=1)
    labels = batch.local.labels.reshape(-1, NUM_CLASSES)
    parts.append(
        naive_losses(local, contrasts, labels, contrast_labels, np.tile(allowed[0], (len(local), 1)), balanced)
    )
    return jnp.concatenate(parts).mean()


@pytest.mark.parametrize("balanced", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize(("mode", "symmetric"), MODES)
def test_each_mode_is_the_naive_mean_over_all_anchors_on_1_2_and_8_devices(mode, symmetric, balanced):
    objective = build(mode, symmetric, denominator="balanced" if balanced else "plain")
    state, batch = problem(objective, mode)
    batch = with_local(batch)
    value, gradient = jax.value_and_grad(naive_loss)(state.params, mode, symmetric, state, batch, balanced)
    for num_devices in (1, 2, 8) if not balanced else (8,):
        found, found_gradient = on_devices(num_devices, objective, state, batch)
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        assert_same(found_gradient, gradient)


def test_three_anchors_by_hand():
    """One image of each of two classes, two views and one local view of each, all loops in plain Python."""
    embeddings = np.float64([[[1, 0], [0.6, 0.8]], [[0, 1], [-0.8, 0.6]]])
    labels = np.eye(2)[[[0, 0], [1, 1]]]
    local, local_labels = np.float64([[[0.8, 0.6]], [[-1, 0]]]), np.eye(2)[[[0], [1]]]
    anchors = [(*pair, False) for pair in zip(embeddings.reshape(4, 2), labels.reshape(4, 2), strict=True)]
    of_local = [(*pair, True) for pair in zip(local.reshape(2, 2), local_labels.reshape(2, 2), strict=True)]
    total = 0.0
    for anchor, label, _ in anchors + of_local:
        others = [(z, y) for z, y, _ in anchors if z is not anchor]
        exponentials = [np.exp(anchor @ z / TEMPERATURE) for z, _ in others]
        logs = [np.log(each / sum(exponentials)) for each in exponentials]
        similar = [label @ y for _, y in others]
        total -= sum(w * log for w, log in zip(similar, logs, strict=True)) / sum(similar)
    values = {"embeddings": jnp.float32(embeddings), "labels": jnp.float32(labels)}
    pairs = objectives._pairs(
        values,
        {},
        mode="all",
        symmetric=False,
        local={"embeddings": jnp.float32(local), "labels": jnp.float32(local_labels)},
    )
    found = objectives._loss_of(pairs, "labels", lambda *_: {}, {"temperature": TEMPERATURE})
    assert len(found.loss) == 6
    assert float(found.mean()) == pytest.approx(total / 6, rel=1e-6)


def test_a_teacher_predicts_the_views_only_and_each_local_view_has_the_prediction_of_a_view_in_turn():
    taught = soft(np.random.default_rng(9), BATCH_SIZE, NUM_VIEWS)
    shapes = []

    def predict(_, images):
        shapes.append(images.shape)
        return jnp.asarray(taught.reshape(-1, NUM_CLASSES))

    objective = build("all", teacher=TeacherLabels(predict, 0.5))
    state, batch = problem(objective, "all")
    batch = with_local(batch)
    found, _ = on_devices(1, objective, state, batch)
    assert set(shapes) == {(BATCH_SIZE * NUM_VIEWS, 3, 3, 1)}
    of_local = batch.local._replace(labels=jnp.asarray(taught[:, [0, 1, 0]]))
    by_teacher = batch._replace(labels=jnp.asarray(taught), local=of_local)
    expected = naive_loss(state.params, "all", False, state, batch)
    expected += 0.5 * naive_loss(state.params, "all", False, state, by_teacher)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_class_centers_are_further_contrasts_of_local_views_too():
    prototypes = Prototypes(alpha=0.3, beta=0.8)
    objective = build("one", classifier=Classifier(NUM_CLASSES), prototypes=prototypes)
    state, batch = problem(objective, "one")
    batch = with_local(batch)
    output, total = state.params["classifier"]["output"], []
    contrasts = encoded(state.params, batch.images)[:, 1]
    for images, labels in ((batch.images[:, 0], batch.labels[:, 0]), (batch.local.images, batch.local.labels)):
        found = Flat().apply({"params": state.params}, images.reshape(-1, 3, 3, 1), train=True)
        labels = labels.reshape(-1, NUM_CLASSES)
        to_centers = found.features @ output["kernel"] + output["bias"]
        logits = np.concatenate([found.embeddings @ contrasts.T / TEMPERATURE, to_centers], axis=1)
        attraction = np.concatenate([0.3 * cosines(labels, np.asarray(batch.labels[:, 1])), 0.8 * labels], axis=1)
        log_sum = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total.append(-(attraction * (logits - log_sum)).sum(axis=1) / attraction.sum(axis=1))
    found, _ = on_devices(1, objective, state, batch)
    assert float(found) == pytest.approx(np.concatenate(total).mean(), rel=1e-5)


@pytest.mark.parametrize("mode", ["all", "one"])
def test_a_local_view_of_an_image_without_a_label_is_similar_to_the_views_of_its_image_only(mode):
    objective = build(mode)
    state, batch = problem(objective, mode)
    batch = with_local(batch)
    labels = soft(np.random.default_rng(4), BATCH_SIZE)
    labels[[1, 2, 7, 15]] = 0
    places = np.asarray(unlabeled_places(labels, 1))

    def repeated(views, number):
        rows = [jnp.repeat(jnp.asarray(each)[:, None], number, axis=1) for each in (labels, places)]
        return MixedBatch(views.images, *rows)

    found, _ = on_devices(
        2, objective, state, repeated(batch, NUM_VIEWS)._replace(local=repeated(batch.local, NUM_LOCAL))
    )
    wide = np.concatenate([labels, np.diag(places[:, 0])], axis=1)  # a class of its own for each image without a label
    views = encoded(state.params, batch.images)
    local = Flat().apply({"params": state.params}, batch.local.images.reshape(-1, 3, 3, 1), train=True).embeddings
    anchors, others = (views, views) if mode == "all" else (views[:, :1], views[:, 1:])
    allowed = ~np.eye(2 * BATCH_SIZE, dtype=bool) if mode == "all" else np.ones((BATCH_SIZE, BATCH_SIZE), bool)
    of_others = wide.repeat(others.shape[1], axis=0)
    expected = [
        naive_losses(each, others.reshape(-1, DIM), wide.repeat(number, axis=0), of_others, pairs, balanced=False)
        for each, number, pairs in (
            (anchors.reshape(-1, DIM), anchors.shape[1], allowed),
            (local, NUM_LOCAL, np.ones((len(local), allowed.shape[1]), bool)),
        )
    ]
    assert float(found) == pytest.approx(float(jnp.concatenate(expected).mean()), rel=1e-5)


@pytest.mark.parametrize("prototypes", [None, Prototypes(alpha=0.3)], ids=["plain", "prototypes"])
@pytest.mark.parametrize("mode", ["all", "one"])
def test_the_diagnosed_chance_level_is_that_of_all_anchors(mode, prototypes):
    diagnose_fn = functools.partial(assemble._diagnose, scale=1.0, normalizer="count", label_similarity="cosine")
    centers = {"prototypes": prototypes, "classifier": Classifier(NUM_CLASSES)} if prototypes else {}
    objective = build(mode, normalizer="count", diagnose_fn=diagnose_fn, axis_name=None, **centers)
    state, batch = problem(objective, mode)
    batch = with_local(batch)
    _, aux = jax.jit(lambda batch: objective.loss(state.params, state, {}, batch, None))(batch)
    settings = {"mode": mode, "temperature": 0.1, "normalizer": "count", "prototypes": prototypes}
    expected = objectives.contrastive_chance_loss(batch, **settings)
    assert float(aux.metrics["chance_loss"]) == pytest.approx(expected, rel=1e-5)
    without = objectives.contrastive_chance_loss(batch._replace(local=None), **settings)
    assert abs(without - expected) > 1e-3


def test_the_accuracy_of_local_views_by_hand():
    directions = jnp.eye(4)
    values = {"embeddings": directions[:, None].repeat(2, axis=1), "labels": directions[:, None].repeat(2, axis=1)}
    local = {"embeddings": directions[jnp.array([0, 1, 2, 0])][:, None], "labels": directions[:, None]}
    pairs = objectives._pairs(values, {}, mode="one", symmetric=False, local=local)
    terms = {"contrast_weights": None, "centers": None, "instances": None}
    settings = {"scale": 1.0, "normalizer": "similarity", "label_similarity": "cosine"}
    metrics = assemble._diagnose(pairs, lambda *_: terms, None, **settings)
    assert metrics["local_accuracy"] == 0.75  # the fourth looks like the first
    assert metrics["contrastive_accuracy"] == 1.0
    assert "local_accuracy" not in assemble._diagnose(pairs[:1], lambda *_: terms, None, **settings)


@pytest.mark.parametrize(("mode", "symmetric"), MODES)
def test_chance_level_is_the_mean_over_views_and_local_views(mode, symmetric):
    labels = jnp.eye(NUM_CLASSES)[jnp.arange(BATCH_SIZE) % NUM_CLASSES]
    repeated = {number: jnp.repeat(labels[:, None], number, axis=1) for number in (NUM_VIEWS, NUM_LOCAL)}
    found = objectives.contrastive_chance_loss(
        MixedBatch(None, repeated[NUM_VIEWS], local=MixedBatch(None, repeated[NUM_LOCAL])),
        mode=mode,
        symmetric=symmetric,
        queue_size=32 if mode == "momentum" else 0,
        temperature=0.1,
    )
    # anchors and contrasts of each kind, with 16 images, 2 views and 3 local views of each
    counts = {"all": [(32, 31), (48, 32)], "one": [(16, 16), (48, 16)], "momentum": [(16, 48), (48, 48)]}[mode]
    counts = [(32, 48), (48, 64)] if symmetric else counts
    expected = sum(number * np.log(contrasts) for number, contrasts in counts) / sum(number for number, _ in counts)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_without_local_views_the_program_is_the_same(monkeypatch, mode):
    with_them = len(program(build(mode), mode))
    monkeypatch.setattr(objectives, "_local_values", lambda *arguments: 1 / 0)
    assert len(program(build(mode), mode)) == with_them
    objective = build(mode)
    state, batch = problem(objective, mode)
    with pytest.raises(ZeroDivisionError):
        objective.loss(state.params, state, {}, with_local(batch), None)


# ---- a network with BatchNorm, for images of any size


class AnySize(nn.Module):
    """A convolution, BatchNorm, and the mean over all positions."""

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.Conv(8, (3, 3))(images)
        features = nn.BatchNorm(use_running_average=not train, momentum=0.9)(features)
        return nn.relu(features).mean(axis=(1, 2))


def after_one_step(batch, *, microbatches=WHOLE, model=None):
    """-> gradients, and what else the step changes: running statistics and queue."""
    objective = objectives.contrastive(
        HeadedEncoder(AnySize(), LinearHead(DIM)) if model is None else model,
        mode="momentum",
        temperature=TEMPERATURE,
        num_classes=NUM_CLASSES,
        momentum=Momentum(0.9, queue_size=2 * BATCH_SIZE, batch_size=BATCH_SIZE, symmetric=True),
        classifier=Classifier(NUM_CLASSES),
        microbatches=microbatches,
        axis_name=None,
    )
    state = create_state(objective.init(jax.random.key(0), jnp.zeros((1, 5, 5, 1))), optax.sgd(0.1))

    @jax.jit
    def gradients(params, batch):
        return jax.grad(lambda params: objective.loss(params, state, {}, batch, None), has_aux=True)(params)

    return gradients(state.params, batch)


def images_of(size, local_size):
    rng = np.random.default_rng(2)
    images = jnp.asarray(rng.normal(size=(BATCH_SIZE, NUM_VIEWS, size, size, 1)), jnp.float32)
    return with_local(MixedBatch(images, jnp.asarray(soft(rng, BATCH_SIZE, NUM_VIEWS))), local_size)


def test_local_views_change_neither_running_statistics_nor_queue_nor_the_gradient_of_the_classifier():
    batch = images_of(5, 2)
    gradient, aux = after_one_step(batch)
    plain, plain_aux = after_one_step(MixedBatch(batch.images, batch.labels))
    for name in ("batch_stats", "ema_batch_stats", "queue"):
        jax.tree.map(np.testing.assert_array_equal, aux.updates[name], plain_aux.updates[name])
    assert_same(gradient["classifier"], plain["classifier"], 1e-6)
    assert aux.metrics["classifier_loss"] == pytest.approx(float(plain_aux.metrics["classifier_loss"]), rel=1e-6)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), gradient["backbone"], plain["backbone"])
    assert max(jax.tree.leaves(moved)) > 1e-3


class WithoutStatistics(nn.Module):
    """A convolution and the mean over all positions."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(nn.Conv(8, (3, 3))(images)).mean(axis=(1, 2))


def test_parts_of_a_batch_are_the_whole_batch():
    model, batch = HeadedEncoder(WithoutStatistics(), LinearHead(DIM)), images_of(5, 2)
    whole, _ = after_one_step(batch, model=model)
    for microbatches in (Microbatches(4), Microbatches(4, unrolled=True)):
        assert_same(after_one_step(batch, microbatches=microbatches, model=model)[0], whole, 1e-6)


# ---- what the network sees


def small_and_large(num_local, mix):
    """view_fn with 2 views of 8 pixels and `num_local` of 4, each image's color, without crops."""

    def augment_fn(_keys, images):
        return jnp.repeat(normalize(images, np.zeros(1), np.ones(1))[:, None], 2, axis=1)

    def local_augment_fn(keys, images):
        return jnp.repeat(augment_fn(keys, images)[:, :1, :4, :4], num_local, axis=1)

    mix_fn = build_mix_fn(**{"kind": "none", "alpha": 1.0, "per": "image", "views": "independent", "block": 4, **mix})
    return build_view_fn(augment_fn, mix_fn, None, local_augment_fn if num_local else None)


IMAGES = jnp.asarray((np.arange(8) * 30).astype(np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8))
LABELS = jnp.eye(8)


@pytest.mark.parametrize("kind", ["none", "mixup", "cutmix", "mixup_cutmix"])
@pytest.mark.parametrize("settings", [("batch", "independent"), ("image", "alike"), ("image", "independent")])
def test_a_local_view_is_mixed_like_a_view_in_turn_and_the_views_are_the_same_without(kind, settings):
    mix = {"kind": kind, "per": settings[0], "views": settings[1]}
    arguments = (jax.random.key(3), IMAGES, LABELS, 0)
    found, plain = small_and_large(3, mix)(*arguments), small_and_large(0, mix)(*arguments)
    np.testing.assert_array_equal(found.images, plain.images)
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert plain.local is None
    assert found.local.images.shape == (8, 3, 4, 4, 1)
    np.testing.assert_allclose(found.local.labels.sum(-1), 1.0, rtol=1e-6)
    # The label is the share of the pixels: the mean color of a view is that of the classes in its label.
    colors = np.asarray(found.local.labels) @ (np.arange(8) * 30 / 255)
    np.testing.assert_allclose(found.local.images.mean((2, 3, 4)), colors, atol=1e-6)
    like = np.asarray(found.labels)[:, [0, 1, 0]]
    # The sides of a box are whole pixels: of 8 in a view, of 4 in a local view.
    np.testing.assert_allclose(found.local.labels, like, atol=1e-6 if kind in ("none", "mixup") else 0.5)
    partners = [{*np.flatnonzero(row)} for row in like.reshape(-1, 8)]
    local = [{*np.flatnonzero(row)} for row in np.asarray(found.local.labels).reshape(-1, 8)]
    assert all(own <= partner or partner <= own for own, partner in zip(local, partners, strict=True))


def test_local_views_of_a_batch_are_those_of_its_parts():
    view_fn = small_and_large(3, {"kind": "mixup_cutmix"})
    whole = view_fn(jax.random.key(3), IMAGES, LABELS, 0)
    parts = [
        view_fn(jax.random.key(3), IMAGES[start : start + 4], LABELS[start : start + 4], start) for start in (0, 4)
    ]
    jax.tree.map(lambda *leaves: np.testing.assert_array_equal(np.concatenate(leaves[1:]), leaves[0]), whole, *parts)


def test_the_draws_of_local_views_are_not_those_of_the_views():
    seen = {}

    def drawn(name):
        return lambda keys, images: seen.setdefault(name, (keys, jnp.zeros((8, 2, 4, 4, 1))))[1]

    mix_fn = build_mix_fn(kind="none", alpha=1.0, per="image", views="alike", block=4)
    build_view_fn(drawn("views"), mix_fn, None, drawn("local"))(jax.random.key(3), IMAGES, LABELS, 0)
    keys = [jax.random.key_data(seen[name][0]) for name in ("views", "local")]
    mixing = per_image_keys(jax.random.split(jax.random.key(3))[1], 0, 8)
    rows = np.concatenate([*map(np.asarray, keys), np.asarray(jax.random.key_data(mixing))])
    assert len(np.unique(rows, axis=0)) == 24
