"""One step is the same on 1, 2 and 8 devices, and agrees with its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax import losses
from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.input_pipeline import train_batches
from gensupcon_jax.method import objectives
from gensupcon_jax.method.state import create_state
from gensupcon_jax.method.train_step import build_train_step_fn, build_view_fn
from gensupcon_jax.models import ENCODER_FIELDS, build_model
from gensupcon_jax.run.local_views import LOCAL_FIELDS
from gensupcon_jax.run.view_sizes import SIZE_FIELDS
from gensupcon_jax.views.augment import build_augment_fn
from gensupcon_jax.views.mixing import build_mix_fn
from tests.tiny import tiny_config, tiny_dataset

DATASET = tiny_dataset()
BATCH_SIZE = 32


def parts(batch_norm="sync", mode="all", num_views=2, **mix):
    config = tiny_config()
    augment = {name: value for name, value in config.augment.items() if name not in (*LOCAL_FIELDS, *SIZE_FIELDS)}
    augment |= {"num_views": num_views, "flip_probability": 0.5}
    mix = {**config.mix.to_dict(), **mix}
    fields = {name: value for name, value in config.model.to_dict().items() if name in ENCODER_FIELDS}
    model = build_model(image_size=8, **{**fields, "batch_norm": batch_norm})
    objective = objectives.contrastive(model, mode=mode, temperature=0.1, base_temperature=0.07)
    augment_fn = build_augment_fn(image_size=8, mean=np.float32([0.3]), std=np.float32([0.2]), **augment)
    return model, objective, build_view_fn(augment_fn, build_mix_fn(**mix))


def fresh_state(objective, mesh):
    tx = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))
    variables = objective.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))
    return jax.device_put(create_state(variables, tx), sharding.replicated(mesh))


def run(num_devices, num_steps=5, **settings):
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    _, objective, view_fn = parts(**settings)
    step_fn = build_train_step_fn(objective, view_fn, mesh)
    state, rows = fresh_state(objective, mesh), []
    key = jax.device_put(jax.random.key(7), sharding.replicated(mesh))
    batches = train_batches(
        DATASET.train,
        seed=0,
        batch_size=BATCH_SIZE,
        steps=range(num_steps),
        sharding=sharding.batch_sharding(mesh),
    )
    for batch in batches:
        state, metrics = step_fn(state, None, batch, key)
        rows.append(jax.device_get(metrics))
    return jax.device_get(state), rows


def assert_same(first, second, tolerance):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "mixup_cutmix", "per": "batch", "views": "independent"},
        {"kind": "cutmix", "per": "image", "views": "alike", "mode": "one", "num_views": 3},
    ],
    ids=["all", "one"],
)
def test_five_steps_are_the_same_on_1_2_and_8_devices(settings):
    state, rows = run(1, **settings)
    for num_devices in (2, 8):
        other_state, other_rows = run(num_devices, **settings)
        assert_same(rows, other_rows, 1e-4)
        assert_same(state.params, other_state.params, 1e-4)
        assert_same(state.batch_stats, other_state.batch_stats, 1e-4)


@pytest.mark.slow
def test_local_batch_norm_depends_on_the_devices_and_keeps_one_running_mean():
    _, rows = run(1, num_steps=2, batch_norm="local")
    other_state, other_rows = run(8, num_steps=2, batch_norm="local")
    assert abs(rows[0]["loss"] - other_rows[0]["loss"]) > 1e-3
    assert_same(run(1, num_steps=1)[1], run(1, num_steps=1, batch_norm="local")[1], 1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(other_state.batch_stats))


def test_the_loss_is_the_definition_on_the_views_that_the_step_saw():
    model, objective, view_fn = parts(batch_norm="local")
    mesh = sharding.make_mesh(jax.devices()[:1])
    state = fresh_state(objective, mesh)
    settings = {"seed": 0, "batch_size": BATCH_SIZE, "steps": range(1)}
    (batch,) = train_batches(DATASET.train, **settings, sharding=sharding.batch_sharding(mesh))
    view_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(7), 0))
    mixed = view_fn(view_key, batch.images, batch.labels, 0)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = mixed.images.reshape(-1, 8, 8, 1)
    (_, embeddings), _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    labels = mixed.labels.reshape(-1, 4)
    expected = losses.generalized_contrastive_loss(embeddings, labels, temperature=0.1, base_temperature=0.07).mean()
    _, rows = run(1, num_steps=1, batch_norm="local")
    assert rows[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_a_step_moves_parameters_statistics_and_the_step_number():
    mesh = sharding.make_mesh(jax.devices()[:1])
    _, objective, _ = parts()
    before = jax.device_get(fresh_state(objective, mesh))
    after, rows = run(1, num_steps=1)
    assert (before.step, after.step) == (0, 1)
    for name in ("params", "batch_stats"):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), getattr(before, name), getattr(after, name))
        assert min(jax.tree.leaves(moved)) > 0, moved
    assert rows[0]["gradient_norm"] > 0
    assert rows[0]["valid_anchors"] == 1


def test_a_different_seed_is_a_different_trajectory():
    _, _, view_fn = parts()
    images, labels = jnp.asarray(DATASET.train.images[:32]), jnp.asarray(DATASET.train.labels[:32])
    views = [view_fn(jax.random.key(seed), images, labels, 0).images for seed in (0, 0, 1)]
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0] - views[2]).max() > 0.1


@pytest.mark.slow
def test_the_loss_falls():
    _, rows = run(1, num_steps=25, kind="none")
    assert np.mean([row["loss"] for row in rows[-3:]]) < np.mean([row["loss"] for row in rows[:3]]) - 0.2


def test_chance_level_is_the_loss_of_equal_embeddings():
    labels = jnp.repeat(jnp.eye(4)[:, None], 2, axis=1)  # 4 images x 2 views, 7 contrasts, 1 of the same class
    settings = {"mode": "all", "temperature": 0.1, "base_temperature": None}
    assert objectives.contrastive_chance_loss(labels, **settings, normalizer="similarity") == pytest.approx(np.log(7))
    assert objectives.contrastive_chance_loss(labels, **settings, normalizer="count") == pytest.approx(np.log(7) / 7)
    settings["base_temperature"] = 0.05
    assert objectives.contrastive_chance_loss(labels, **settings, normalizer="similarity") == pytest.approx(
        2 * np.log(7)
    )
