"""The moving average of the trained network against sums by hand, on 1, 2 and 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.method.averages import Average, averaged_state, with_average
from gensupcon_jax.method.objectives import Aux, MixedBatch, Momentum, Objective, Prediction
from gensupcon_jax.method.state import create_state
from gensupcon_jax.method.train_step import build_train_step_fn
from gensupcon_jax.store.averaged import averaged_fields

MEANS = (1.0, 5.0, 2.0, 8.0)  # of the images of each step


def line(axis_name="data"):
    """A network with one parameter w, whose gradient is the mean of the images, and one running statistic, that mean itself."""

    def init(rng, images):
        return {"params": {"w": jnp.zeros(())}, "batch_stats": {"mean": jnp.zeros(())}}

    def loss(params, state, frozen, batch, rng):
        mean = jax.lax.pmean(batch.images.mean(), axis_name)
        value = params["w"] * mean
        return value, Aux({"batch_stats": {"mean": mean}}, {"loss": value})

    def predict(state, frozen, images):
        return Prediction(images * state.params["w"] + state.batch_stats["mean"])

    return Objective(init, loss, predict)


def view_fn(key, images, labels, first_index):
    return MixedBatch(images[:, None].astype(jnp.float32), labels[:, None])


def run(decay, num_devices=1, bad_step=None):
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    objective = with_average(line(), is_kept=False)
    state = create_state(objective.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1))), optax.sgd(1.0))
    state = jax.device_put(jax.tree.map(jnp.copy, state), sharding.replicated(mesh))
    step_fn = build_train_step_fn(objective, view_fn, mesh, 1, Average(decay).updated)
    key = jax.device_put(jax.random.key(0), sharding.replicated(mesh))
    for step, mean in enumerate(MEANS):
        images = np.full((8, 2, 2, 1), np.nan if step == bad_step else mean, np.float32)
        images[::2] -= 1.0
        images[1::2] += 1.0
        batch = jax.device_put(Batch(images, np.ones((8, 2), np.float32)), sharding.batch_sharding(mesh))
        state, _ = step_fn(state, {}, batch, key)
    return objective, jax.device_get(state)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_four_steps_by_hand(num_devices):
    """w after each step: -1, -6, -8, -16. Shares of the old average: min(0.3, 1/10, 2/11, 3/12, 4/13)."""
    objective, state = run(Momentum(0.3), num_devices)
    average_w = average_mean = 0.0
    for w, mean, share in zip((-1, -6, -8, -16), MEANS, (1 / 10, 2 / 11, 3 / 12, 0.3), strict=True):
        average_w = share * average_w + (1 - share) * w
        average_mean = share * average_mean + (1 - share) * mean
    assert float(state.params["w"]) == -16.0
    assert float(state.ema_params["w"]) == pytest.approx(average_w, rel=1e-6)
    assert float(state.ema_batch_stats["mean"]) == pytest.approx(average_mean, rel=1e-6)
    seen = objective.predict(state, {}, jnp.ones((1, 1, 1, 1)))
    assert float(seen.features.ravel()[0]) == pytest.approx(average_w + average_mean, rel=1e-6)


def test_the_decay_may_rise_over_the_run():
    shares = [float(Momentum(0.5, "cosine", total_steps=4).at(step)) for step in range(5)]
    half = np.sqrt(0.5) / 2
    assert shares == pytest.approx([0.5, 0.75 - half / 2, 0.75, 0.75 + half / 2, 1.0])
    _, constant = run(Momentum(0.0))
    assert float(constant.ema_params["w"]) == float(constant.params["w"]) == -16.0


def test_a_skipped_step_leaves_the_average():
    _, state = run(Momentum(0.0), bad_step=2)
    assert (float(state.ema_params["w"]), float(state.params["w"]), int(state.skipped_steps)) == (-14.0, -14.0, 1)
    _, averaged = run(Momentum(0.3), bad_step=3)
    expected = 0.25 * (2 / 11 * (0.9 * -1) + 9 / 11 * -6) + 0.75 * -8
    assert float(averaged.ema_params["w"]) == pytest.approx(expected, rel=1e-6)


def test_of_a_momentum_encoder_the_classifier_is_the_trained_one():
    fields = {
        "params": {"backbone": 1, "classifier": 2},
        "batch_stats": {"backbone": 3},
        "ema_params": {"backbone": 4},
        "ema_batch_stats": {"backbone": 5},
    }
    assert averaged_fields(fields) == {"params": {"backbone": 4, "classifier": 2}, "batch_stats": {"backbone": 5}}
    assert averaged_fields(fields | {"batch_stats": {}, "ema_batch_stats": {}})["batch_stats"] == {}


def test_an_objective_with_a_momentum_encoder_keeps_its_own_fields():
    key, images = jax.random.key(0), jnp.zeros((1, 2, 2, 1))
    kept = {"params": {"w": 1}, "batch_stats": {"m": 2}, "ema_params": {"w": 3}, "ema_batch_stats": {"m": 4}}
    objective = line()._replace(init=lambda rng, images: kept)
    assert with_average(objective, is_kept=True).init(key, images) == kept
    without_statistics = objective._replace(init=lambda rng, images: {"params": {"w": 1}})
    added = with_average(without_statistics, is_kept=False).init(key, images)
    assert added == {"params": {"w": 1}, "ema_params": {"w": 1}, "ema_batch_stats": {}}
    state = create_state(jax.tree.map(jnp.float32, kept), optax.sgd(1.0))
    averaged = averaged_state(state)
    assert (float(averaged.params["w"]), float(averaged.batch_stats["m"])) == (3.0, 4.0)
