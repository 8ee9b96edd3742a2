"""Distillation: the cross-entropy of labels plus that of a teacher's predictions for the same views."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.method import objectives
from gensupcon_jax.method.objectives import MixedBatch, TeacherLabels
from gensupcon_jax.method.state import create_state, state_shardings
from gensupcon_jax.method.train_step import build_train_step_fn
from gensupcon_jax.models import Classifier, HeadedEncoder
from gensupcon_jax.models.heads import MlpHead
from tests.method.test_microbatches import Layers
from tests.tiny import tiny_dataset

DATASET = tiny_dataset()
MATRIX = jax.random.normal(jax.random.key(3), (64, 4))


def predictions(variables, images):
    """A teacher that is a matrix."""
    return jax.nn.softmax(images.reshape(len(images), -1) @ variables)


def view_fn(key, images, labels, first_index):
    """Each image and its mirror image, the second with a smoother label; nothing is random."""
    pixels = images / 255.0
    views = jnp.stack([pixels, pixels[:, :, ::-1]], axis=1)
    return MixedBatch(views, jnp.stack([labels, 0.8 * labels + 0.2 / labels.shape[-1]], axis=1))


def half_unlabeled(key, images, labels, first_index):
    """The same views; every second image has no label."""
    views = view_fn(key, images, labels, first_index)
    unlabeled = jnp.arange(len(images)) % 2
    instances = jnp.broadcast_to(unlabeled[:, None, None], (len(images), 2, 1)).astype(jnp.float32)
    return views._replace(labels=views.labels * (1 - unlabeled)[:, None, None], instances=instances)


def first_step(weight, *, num_devices=1, smoothing=0.0, view_fn=view_fn):
    """The metrics of the first step and the parameters after it; weight: of a teacher, None: without one."""
    teacher = None if weight is None else TeacherLabels(predictions, weight)
    objective = objectives.cross_entropy(
        HeadedEncoder(Layers(), MlpHead(8)), Classifier(4), teacher=teacher, label_smoothing=smoothing
    )
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    state = create_state(objective.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1))), optax.sgd(0.2))
    state = jax.device_put(jax.tree.map(jnp.copy, state), state_shardings(state, mesh))
    frozen = {} if teacher is None else {"teacher": jax.device_put(MATRIX, sharding.replicated(mesh))}
    batch = jax.device_put(Batch(DATASET.train.images[:16], DATASET.train.labels[:16]), sharding.batch_sharding(mesh))
    key = jax.device_put(jax.random.key(7), sharding.replicated(mesh))
    state, metrics = build_train_step_fn(objective, view_fn, mesh)(state, frozen, batch, key)
    return {name: float(value) for name, value in metrics.items()}, jax.device_get(state.params)


def naive_losses(unlabeled=()):
    """Both losses before the first step, by the definition, image by image."""
    model, classifier = HeadedEncoder(Layers(), MlpHead(8)), Classifier(4)
    variables = objectives.cross_entropy(model, classifier).init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))
    views = view_fn(None, jnp.asarray(DATASET.train.images[:16]), jnp.asarray(DATASET.train.labels[:16]), 0)
    of_labels, of_teacher = [], []
    for number, (images, labels) in enumerate(zip(views.images, views.labels, strict=True)):
        for image, label in zip(images, labels, strict=True):
            params = {name: value for name, value in variables["params"].items() if name != "classifier"}
            features = model.apply({"params": params}, image[None], method="features", train=False)
            logits = classifier.apply({"params": variables["params"]["classifier"]}, features)[0]
            log_probabilities = np.asarray(logits) - np.log(np.exp(np.asarray(logits)).sum())
            predicted = np.asarray(predictions(MATRIX, image[None]))[0]
            of_labels.append(-((predicted if number in unlabeled else np.asarray(label)) * log_probabilities).sum())
            of_teacher.append(-(predicted * log_probabilities).sum())
    return np.mean(of_labels), np.mean(of_teacher)


def test_the_loss_is_that_of_labels_plus_weight_times_that_of_predictions():
    of_labels, of_teacher = naive_losses()
    metrics, _ = first_step(0.5)
    np.testing.assert_allclose(metrics["label_loss"], of_labels, rtol=1e-5)
    np.testing.assert_allclose(metrics["teacher_loss"], of_teacher, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], of_labels + 0.5 * of_teacher, rtol=1e-5)


def test_images_without_a_label_have_the_predictions_in_its_place():
    of_labels, of_teacher = naive_losses(unlabeled=range(1, 16, 2))
    metrics, _ = first_step(0.5, view_fn=half_unlabeled)
    np.testing.assert_allclose(metrics["label_loss"], of_labels, rtol=1e-5)
    np.testing.assert_allclose(metrics["teacher_loss"], of_teacher, rtol=1e-5)


def test_a_weight_of_inf_leaves_the_predictions_alone():
    metrics, params = first_step(float("inf"))
    assert metrics["loss"] == metrics["teacher_loss"] != metrics["label_loss"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_smoothing_is_of_the_labels_alone():
    plain, smooth = first_step(1.0)[0], first_step(1.0, smoothing=0.2)[0]
    assert plain["teacher_loss"] == pytest.approx(smooth["teacher_loss"], rel=1e-6)
    assert plain["label_loss"] != smooth["label_loss"]


def test_devices_share_both_losses_and_the_gradient():
    metrics, params = first_step(0.5)
    for num_devices in (2, 8):
        others, other_params = first_step(0.5, num_devices=num_devices)
        for name in ("loss", "label_loss", "teacher_loss"):
            assert others[name] == pytest.approx(metrics[name], rel=1e-5)
        for first, second in zip(jax.tree.leaves(params), jax.tree.leaves(other_params), strict=True):
            np.testing.assert_allclose(first, second, atol=1e-6)


def test_without_a_teacher_nothing_of_it_is_measured():
    assert {"label_loss", "teacher_loss"}.isdisjoint(first_step(None)[0])
