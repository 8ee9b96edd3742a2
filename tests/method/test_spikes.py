"""Steps that are skipped as spikes, against sums by hand and a naive loop, on 1, 2 and 8 devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.errors import UserError
from gensupcon_jax.method import spikes, train_step
from gensupcon_jax.method.objectives import Aux, MixedBatch, Objective
from gensupcon_jax.method.spikes import SpikeRule
from gensupcon_jax.method.state import create_state, saved_fields, state_shardings
from gensupcon_jax.run.config_check import check_config
from tests.tiny import tiny_config

WINDOW = 4


def window_of(*values, num_accepted=None):
    """A window whose losses and gradient norms are these."""
    array = jnp.asarray(values, jnp.float32)
    counted = jnp.asarray(len(values) if num_accepted is None else num_accepted)
    return {"loss": array, "gradient_norm": array, "num_accepted": counted, "num_spikes": jnp.zeros((), jnp.int32)}


@pytest.mark.parametrize(
    ("loss", "norm", "is_spike"),
    [
        (8.9, 5.0, False),  # mean 5, deviation sqrt((9 + 1 + 1 + 9) / 4) = 2.236; 5 + 2 x 2.236 = 9.472
        (9.4, 9.4, False),
        (9.5, 5.0, True),
        (5.0, 9.5, True),  # by the gradient alone
        (-100.0, 0.0, False),  # far below is none
        (np.nan, 5.0, False),  # what is not finite is skipped for that
        (np.inf, np.inf, False),
    ],
)
def test_two_deviations_above_four_steps_by_hand(loss, norm, is_spike):
    rule, window = SpikeRule(2.0, WINDOW), window_of(2.0, 4.0, 6.0, 8.0)
    metrics = {"loss": jnp.float32(loss), "gradient_norm": jnp.float32(norm)}
    assert bool(rule.is_spike(window, metrics)) is is_spike
    assert not rule.is_spike(window | {"num_accepted": jnp.asarray(3)}, metrics)  # the window is not full yet


def test_equal_values_have_a_deviation_of_a_hundredth_and_zeros_none():
    rule, constant = SpikeRule(3.0, WINDOW), window_of(2.0, 2.0, 2.0, 2.0)
    for value, is_spike in ((2.0, False), (2.0000002, False), (2.05, False), (2.07, True)):  # 2 + 3 x 0.02
        metrics = {"loss": jnp.float32(value), "gradient_norm": jnp.float32(2.0)}
        assert bool(rule.is_spike(constant, metrics)) is is_spike
    metrics = {"loss": jnp.float32(1.0), "gradient_norm": jnp.float32(1.0)}
    assert not rule.is_spike(window_of(0.0, 0.0, 0.0, 0.0), metrics)


def test_the_words_have_the_heights():
    said = spikes.heights_in_words(window_of(2.0, 4.0, 6.0, 8.0), {"loss": 14.472136, "gradient_norm": 5.0})
    assert said == (
        "loss 14.47 is 4.2 deviations above the mean 5 and gradient norm 5 is 0.0 deviations above the mean 5 of the last 4 "
        "accepted steps"
    )


def line():
    """A network with one parameter w: its loss is w x mean, its gradient the mean of the images, also a running statistic."""

    def init(rng, images):
        return {
            "params": {"w": jnp.ones(())},
            "batch_stats": {"mean": jnp.zeros(())},
            "ema_params": {"w": jnp.ones(())},
        }

    def loss(params, state, frozen, batch, rng):
        mean = jax.lax.pmean(batch.images.mean(), "data")
        updates = {"batch_stats": {"mean": mean}, "ema_params": {"w": 0.5 * state.ema_params["w"]}}
        return params["w"] * mean, Aux(updates, {"loss": params["w"] * mean})

    return Objective(init, loss, None)


def view_fn(key, images, labels, first_index):
    return MixedBatch(images[:, None].astype(jnp.float32), labels[:, None])


MEANS = (1.0, 1.1, 0.9, 1.0, 50.0, 1.05, np.nan, 1.0, 40.0, 1.0)  # the gradients of ten steps


def steps(means, num_devices=1, *, rule=SpikeRule(4.0, WINDOW), max_skipped_steps=9, state=None):  # noqa: B008
    """The state after each step, and its metrics."""
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    if state is None:
        fields = line().init(None, None) | ({"spikes": rule.empty()} if rule else {})
        state = create_state(fields, optax.sgd(0.001, momentum=0.9))
    state = sharding.place(state, state_shardings(state, mesh))
    step_fn = train_step.build_train_step_fn(line(), view_fn, mesh, max_skipped_steps, None, rule)
    for mean in means:
        images = np.full((8, 2, 2, 1), mean, np.float32)
        images[::2] -= 0.5
        images[1::2] += 0.5
        batch = jax.device_put(Batch(images, np.ones((8, 2), np.float32)), sharding.batch_sharding(mesh))
        state, metrics = step_fn(state, {}, batch, jax.random.key(0))
        yield jax.device_get(state), {name: float(value) for name, value in metrics.items()}


def naive(means, deviations=4.0):
    """w after each step, and which steps were accepted: a loop in float64."""
    w, trace, losses, norms = 1.0, 0.0, [], []
    for mean in means:
        loss, norm = w * mean, abs(mean)
        is_accepted = bool(np.isfinite(loss))
        if is_accepted and len(losses) >= WINDOW:
            for value, seen in ((loss, losses[-WINDOW:]), (norm, norms[-WINDOW:])):
                deviation = max(np.std(seen), 0.01 * abs(np.mean(seen)))
                is_accepted &= value <= np.mean(seen) + deviations * deviation
        if is_accepted:
            trace = 0.9 * trace + mean
            w -= 0.001 * trace
            losses.append(loss)
            norms.append(norm)
        yield w, is_accepted


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_a_spike_changes_nothing_and_is_counted(num_devices):
    expected, states = list(naive(MEANS)), list(steps(MEANS, num_devices))
    assert [is_accepted for _, is_accepted in expected] == [True] * 4 + [False, True, False, True, False, True]
    np.testing.assert_allclose([state.params["w"] for state, _ in states], [w for w, _ in expected], rtol=1e-6)
    assert [metrics["spikes"] for _, metrics in states] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert [metrics["skipped_steps"] for _, metrics in states] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]  # with the NaN
    assert [int(state.step) for state, _ in states] == list(range(1, 11))
    before, spike = states[3][0], states[4][0]
    for name in ("params", "opt_state", "batch_stats", "ema_params"):
        assert jax.tree.all(jax.tree.map(np.array_equal, getattr(before, name), getattr(spike, name))), name
    for name in ("loss", "gradient_norm", "num_accepted"):
        assert np.array_equal(before.spikes[name], spike.spikes[name])  # nor does it enter the window
        assert np.array_equal(states[5][0].spikes[name], states[6][0].spikes[name])  # nor does a NaN
    assert states[-1][0].spikes["gradient_norm"].tolist() == pytest.approx(
        [1.05, 1.0, 1.0, 1.0]
    )  # of steps 6, 8, 10 and 4


def test_a_run_that_resumes_has_the_same_bits():
    *_, (whole, _) = steps(MEANS)
    *_, (half, _) = steps(MEANS[:5])
    fresh = create_state(line().init(None, None), optax.sgd(0.001, momentum=0.9))
    restored = fresh.replace(**saved_fields(half))
    *_, (resumed, _) = steps(MEANS[5:], state=restored)
    assert jax.tree.all(jax.tree.map(np.array_equal, saved_fields(whole), saved_fields(resumed)))


def test_more_spikes_than_may_be_skipped_end_the_run():
    seen = list(steps((1.0, 1.1, 0.9, 1.0, 50.0, 60.0, 1.0), max_skipped_steps=1))
    assert [metrics["diverged"] for _, metrics in seen] == [0, 0, 0, 0, 0, 1, 1]
    assert [int(state.step) for state, _ in seen] == [1, 2, 3, 4, 5, 5, 5]
    assert [metrics["spikes"] for _, metrics in seen] == [0, 0, 0, 0, 1, 2, 2]


def test_without_a_rule_the_compiled_program_has_nothing_of_it(monkeypatch):
    def program():
        mesh = sharding.make_mesh(jax.devices()[:2])
        state = jax.eval_shape(lambda: create_state(line().init(None, None), optax.sgd(0.1)))
        batch = Batch(jax.ShapeDtypeStruct((8, 2, 2, 1), jnp.float32), jax.ShapeDtypeStruct((8, 2), jnp.float32))
        return (
            train_step.build_train_step_fn(line(), view_fn, mesh).lower(state, {}, batch, jax.random.key(0)).as_text()
        )

    with_spikes = program()
    real = train_step._guarded
    plain = lambda state, candidate, updates, metrics, most, rule: real(state, candidate, updates, metrics, most)  # noqa: E731
    monkeypatch.setattr(train_step, "_guarded", plain)
    monkeypatch.setattr(train_step, "SpikeRule", None)
    assert program() == with_spikes
    assert "spikes" not in with_spikes
    state, metrics = next(steps((1.0,), rule=None))
    assert state.spikes is None and "spikes" not in saved_fields(state) and "spikes" not in metrics


def test_spikes_need_steps_that_may_be_skipped():
    with pytest.raises(UserError) as error:
        check_config(tiny_config(**{"optimizer.spike_deviations": 6.0}))
    assert str(error.value) == (
        "optimizer.spike_deviations is 6.0, but optimizer.max_skipped_steps is 0, so that the first spike would end the run; "
        "allowed: optimizer.max_skipped_steps from 1, or optimizer.spike_deviations=0"
    )
    check_config(tiny_config(**{"optimizer.spike_deviations": 6.0, "optimizer.max_skipped_steps": 1}))
