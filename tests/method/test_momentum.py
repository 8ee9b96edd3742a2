"""The momentum encoder and its queue inside the train step, against a plain Python oracle and on several devices."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax import losses
from gensupcon_jax.cluster import sharding
from gensupcon_jax.data import input_pipeline
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.method import objectives, optimizer
from gensupcon_jax.method.objectives import MixedBatch, Momentum
from gensupcon_jax.method.state import create_state, state_shardings
from gensupcon_jax.method.train_step import build_train_step_fn
from gensupcon_jax.models import ENCODER_FIELDS, Classifier, build_model
from gensupcon_jax.run import train
from gensupcon_jax.views.augment import normalize
from tests.run.test_train import rows_of
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset

BATCH_SIZE, TEMPERATURE, MEAN = 16, 0.1, np.float32([0.4])
DATASET = tiny_dataset()
SGD = {"momentum": 0.9, "weight_decay": 1e-4}


def view_fn(key, images, labels, first_index):
    """Two views that differ by known amounts of noise, with labels that differ as well."""
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(first_index + jnp.arange(len(images)))
    noise = jax.vmap(lambda one: jax.random.normal(one, (2, *images.shape[1:])))(keys)
    views = normalize(images, MEAN, np.float32([0.3]))[:, None] + 0.1 * noise
    smooth = 0.8 * labels + 0.2 / labels.shape[-1]
    return MixedBatch(views, jnp.stack([labels, smooth], axis=1))


def parts(batch_norm="local", **changes):
    settings = {"momentum": 0.9, "queue_size": 48, "batch_size": BATCH_SIZE, "symmetric": False} | changes
    own = tiny_config().model
    fields = {name: own[name] for name in ENCODER_FIELDS} | {"batch_norm": batch_norm}
    model = build_model(image_size=8, **fields)
    objective = objectives.contrastive(
        model, mode="momentum", temperature=TEMPERATURE, num_classes=4, momentum=Momentum(**settings)
    )
    return model, objective


def batch_of(step):
    index = (np.arange(BATCH_SIZE) + step * BATCH_SIZE) % len(DATASET.train.images)
    return DATASET.train.images[index], DATASET.train.labels[index]


def run(objective, num_devices=1, num_steps=10):
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    tx = optimizer.build_optimizer(
        optax.constant_schedule(0.1), name="sgd", **SGD, nesterov=False, second_momentum=0.9, trust_coefficient=0.1,
        weight_decay_mode="coupled", exclude_bias_and_norm=False,
    )  # fmt: skip
    state = create_state(objective.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1))), tx)
    state = jax.tree.map(jnp.copy, state)
    state = jax.device_put(state, state_shardings(state, mesh))
    step_fn = build_train_step_fn(objective, view_fn, mesh)
    key = jax.device_put(jax.random.key(7), sharding.replicated(mesh))
    values = []
    for step in range(num_steps):
        batch = jax.device_put(Batch(*batch_of(step)), sharding.batch_sharding(mesh))
        state, metrics = step_fn(state, {}, batch, key)
        values.append(float(metrics["loss"]))
    return jax.device_get(state), values


def oracle(model, num_steps=10, *, momentum=0.9, slots=3, symmetric=False, queue_labels=True):
    """A naive oracle: an explicit list of keys, the dense definition of the loss, torch's SGD."""
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)), train=False)
    params, stats = variables["params"], variables["batch_stats"]
    average, average_stats = params, stats
    velocity = jax.tree.map(jnp.zeros_like, params)
    queue, values = [], []

    @jax.jit
    def encode(params, stats, views):
        images = views.reshape(-1, *views.shape[2:])
        (_, embeddings), changed = model.apply(
            {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
        )
        return embeddings.reshape(*views.shape[:2], -1), changed["batch_stats"]

    for step in range(num_steps):
        view_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(7), step))
        images, labels, *_ = view_fn(view_key, *map(jnp.asarray, batch_of(step)), 0)
        average = jax.tree.map(lambda old, new: momentum * old + (1 - momentum) * new, average, params)
        keys, average_stats = encode(average, average_stats, images if symmetric else images[:, 1:])
        key_labels = labels if symmetric else labels[:, 1:]

        def loss_fn(
            params, keys=keys, key_labels=key_labels, images=images, labels=labels, stats=stats, queue=tuple(queue)
        ):
            queries, changed = encode(params, stats, images if symmetric else images[:, :1])
            total, count = 0.0, 0
            for view in (0, 1) if symmetric else (0,):
                other = 1 - view if symmetric else 0
                contrasts = jnp.concatenate([keys[:, other], *(entry[0] for entry in queue)])
                contrast_labels = jnp.concatenate([key_labels[:, other], *(entry[1] for entry in queue)])
                loss = losses.dense_contrastive_loss(
                    losses.label_similarity(labels[:, view], contrast_labels),
                    losses.latent_similarity(queries[:, view], contrasts, temperature=TEMPERATURE),
                )
                total, count = total + loss.loss.sum(), count + loss.valid.sum()
            return total / count, changed

        (value, stats), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        values.append(float(value))
        gradients = jax.tree.map(lambda g, p: g + SGD["weight_decay"] * p, gradients, params)
        velocity = jax.tree.map(lambda v, g: SGD["momentum"] * v + g, velocity, gradients)
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
        for view in range(keys.shape[1]):
            queue.append((keys[:, view], key_labels[:, view] * queue_labels))
        queue = queue[len(queue) - min(len(queue), slots) :] if slots else []
    return params, average, stats, average_stats, queue, values


def assert_same(first, second, tolerance):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("symmetric", "slots", "queue_labels"), [(False, 3, True), (True, 4, True), (False, 0, True), (False, 3, False)]
)
def test_ten_steps_are_those_of_the_oracle(symmetric, slots, queue_labels):
    model, objective = parts(symmetric=symmetric, queue_size=slots * BATCH_SIZE, queue_labels=queue_labels)
    state, values = run(objective)
    settings = {"slots": slots, "symmetric": symmetric, "queue_labels": queue_labels}
    params, average, stats, average_stats, queue, expected = oracle(model, **settings)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert_same(state.params, params, 2e-4)
    assert_same(state.ema_params, average, 2e-4)
    assert_same((state.batch_stats, state.ema_batch_stats), (stats, average_stats), 2e-4)
    if slots:
        stored = {tuple(np.round(row, 2)) for row in np.asarray(state.queue["labels"]).reshape(-1, 4)}
        assert stored == {tuple(np.round(row, 2)) for _, labels in queue for row in np.asarray(labels)}
    else:
        assert state.queue is None


@pytest.mark.slow
def test_the_first_batch_meets_no_queue_not_even_its_own():
    for symmetric in (False, True):
        _, with_queue = run(parts(symmetric=symmetric, queue_size=64)[1], num_steps=2)
        _, without = run(parts(symmetric=symmetric, queue_size=0)[1], num_steps=2)
        assert with_queue[0] == pytest.approx(without[0], rel=1e-6)
        assert abs(with_queue[1] - without[1]) > 1e-3


def test_keys_of_an_unlabeled_queue_only_repel():
    _, objective = parts(queue_labels=False)
    state, values = run(objective, num_steps=3)
    assert (state.queue["labels"] == 0).all() and (state.queue["filled"] == 1).all()
    _, labeled = run(parts()[1], num_steps=3)
    assert values[0] == pytest.approx(labeled[0], rel=1e-6)  # the queue is empty
    assert abs(values[1] - labeled[1]) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
def test_1_2_and_8_devices_are_the_same(symmetric):
    objective = parts(batch_norm="sync", symmetric=symmetric, queue_size=64)[1]
    state, values = run(objective, num_steps=5)
    for num_devices in (2, 8):
        other_state, other_values = run(objective, num_devices, num_steps=5)
        np.testing.assert_allclose(values, other_values, rtol=1e-4)
        assert_same(state.params, other_state.params, 1e-4)
        assert_same(state.queue, other_state.queue, 1e-4)


@pytest.mark.slow
def test_keys_encoded_on_other_devices_come_back_in_their_place():
    # Statistics over all devices do not notice the exchange; statistics per device do.
    for batch_norm, is_same in (("sync", True), ("local", False)):
        settings = {"batch_norm": batch_norm, "queue_size": 64, "symmetric": True}
        (state, values), (other, other_values) = (
            run(parts(**settings, shuffle_devices=shuffle)[1], 4, num_steps=3) for shuffle in (False, True)
        )
        assert np.allclose(values, other_values, rtol=1e-5) == is_same
        assert np.allclose(state.queue["embeddings"], other.queue["embeddings"], atol=1e-5) == is_same
        np.testing.assert_array_equal(state.queue["labels"], other.queue["labels"])


def test_no_gradient_flows_through_keys_and_momentum_1_keeps_the_encoder():
    model, objective = parts(momentum=1.0)
    state, _ = run(objective, num_steps=3)
    start = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)), train=False)["params"]
    assert_same(state.ema_params, start, 0)
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), state.params, start))) > 1e-3


def test_the_cosine_schedule_ends_at_1():
    momentum = Momentum(momentum=0.99, schedule="cosine", total_steps=100)
    assert [float(momentum.at(step)) for step in (0, 50, 100)] == pytest.approx([0.99, 0.995, 1.0])
    assert Momentum(momentum=0.99).at(50) == 0.99


def momentum_config(**changes):
    return tiny_config(**{"loss.mode": "momentum", "momentum_encoder.queue_size": 64} | changes)


@pytest.mark.slow
def test_saved_on_8_devices_and_continued_on_4_and_2(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train.train_and_evaluate(momentum_config(), whole, tiny_dataset(), devices=jax.devices())
    real = input_pipeline.train_batches

    def stops(*args, **kwargs):
        for number, batch in enumerate(real(*args, **kwargs)):
            if number == 4:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(input_pipeline, "train_batches", stops)
        with pytest.raises(KeyboardInterrupt):
            train.train_and_evaluate(momentum_config(), stopped, tiny_dataset(), devices=jax.devices())
    for num_devices in (4, 2):
        folder = shutil.copytree(stopped, tmp_path / str(num_devices))
        train.train_and_evaluate(momentum_config(), folder, tiny_dataset(), devices=jax.devices()[:num_devices])
        for row, expected in zip(without_times(rows_of(folder)), without_times(rows_of(whole)), strict=True):
            assert row["step"] == expected["step"]
            assert row.get("train/loss") == pytest.approx(expected.get("train/loss"), rel=1e-4)


def test_an_additional_classifier_learns_and_leaves_the_encoder_unchanged():
    model, _ = parts()
    settings = {"mode": "all", "temperature": TEMPERATURE, "num_classes": 4}
    alone, _ = run(objectives.contrastive(model, **settings), num_steps=3)
    beside, _ = run(objectives.contrastive(model, **settings, classifier=Classifier(4)), num_steps=3)
    assert_same(alone.params["backbone"], beside.params["backbone"], 1e-6)
    assert set(beside.params) == {"backbone", "head", "classifier"}
