"""A step that is not finite changes nothing: the run stops at the last good state and reports the first bad value."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data import input_pipeline
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.state import state_shardings
from gensupcon_jax.run import assemble, divergence, train
from gensupcon_jax.store.checkpoint import read_newest, saved_steps
from tests.tiny import tiny_config, tiny_dataset

DATA = tiny_dataset()


def parts_on(num_devices, **changes):
    config = tiny_config(**changes)
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    data = DataShape.of(DATA.description())
    parts = assemble.build_parts(config, data, assemble.lengths(config, 3), mesh)
    state = jax.jit(parts.initial_state_fn)(jax.random.key(0))
    return parts, mesh, sharding.place(state, state_shardings(state, mesh))


def batch_on(mesh, *, spoiled=False):
    labels = DATA.train.labels[:32].copy()
    if spoiled:
        labels[5] = np.nan  # images are bytes, so only labels can be NaN
    placed = sharding.batch_sharding(mesh)
    return Batch(jax.device_put(DATA.train.images[:32], placed), jax.device_put(labels, placed))


def run_steps(parts, mesh, state, spoiled):
    """The states' step, parameters and metrics after steps of which some have bad labels."""
    key = sharding.place(jax.random.key(1), sharding.replicated(mesh))
    for is_spoiled in spoiled:
        state, metrics = parts.train_step_fn(state, {}, batch_on(mesh, spoiled=is_spoiled), key)
        yield int(state.step), jax.device_get(state), {name: float(value) for name, value in metrics.items()}


def same(one, two):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, two)))


def test_nothing_changes_after_a_step_that_is_not_finite():
    parts, mesh, state = parts_on(2, **{"loss.mode": "momentum", "momentum_encoder.queue_size": 64})
    seen = list(run_steps(parts, mesh, state, [False, True, False, False]))
    assert [step for step, _, _ in seen] == [1, 1, 1, 1]
    assert [metrics["diverged"] for _, _, metrics in seen] == [0, 1, 1, 1]
    good = seen[0][1]
    for _, later, _ in seen[1:]:
        for field in ("params", "opt_state", "batch_stats", "ema_params", "ema_batch_stats", "queue"):
            assert same(getattr(later, field), getattr(good, field)), field
    assert seen[0][2]["update_ratio"] > 0


def test_skipped_steps_leave_the_next_step_unchanged():
    parts, mesh, state = parts_on(1, **{"optimizer.max_skipped_steps": 2})
    seen = list(run_steps(parts, mesh, state, [False, True, False, True, True]))
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 4]  # the data advances until the limit is exceeded
    assert [metrics["skipped_steps"] for _, _, metrics in seen] == [0, 1, 1, 2, 3]
    assert [metrics["diverged"] for _, _, metrics in seen] == [0, 0, 0, 0, 1]
    assert same(seen[0][1].params, seen[1][1].params)
    assert not same(seen[1][1].params, seen[2][1].params)
    assert same(seen[2][1].params, seen[4][1].params)


@pytest.mark.slow
def test_the_run_stops_with_the_last_good_state_saved_however_late_it_is_noticed(tmp_path, monkeypatch):
    real = input_pipeline.train_batches

    def spoils(*args, steps, **kwargs):
        for step, batch in enumerate(real(*args, steps=steps, **kwargs), start=steps.start + 1):
            yield batch._replace(labels=batch.labels * jnp.nan) if step == 3 else batch

    monkeypatch.setattr(input_pipeline, "train_batches", spoils)
    config = tiny_config(log_steps=6, **{"checkpoint.every_steps": 6, "evaluate.every_epochs": 0.0})
    with pytest.raises(UserError) as error:
        train.train_and_evaluate(config, tmp_path / "bad", DATA, devices=jax.devices()[:1])
    assert str(error.value).startswith(
        "step 3 is not finite: the labels given to the network are not finite. Likely causes:"
    )
    assert f"The last good state, of step 2, is saved in {tmp_path / 'bad'}" in str(error.value)
    assert saved_steps(tmp_path / "bad" / "checkpoints") == [2]

    monkeypatch.setattr(input_pipeline, "train_batches", real)
    train.train_and_evaluate(
        config, tmp_path / "bad", DATA, devices=jax.devices()[:1]
    )  # with correct labels it resumes
    train.train_and_evaluate(config, tmp_path / "good", DATA, devices=jax.devices()[:1])
    good, bad = (
        json.loads((tmp_path / name / "checkpoints" / "6" / "record" / "metadata").read_text())["bits"]
        for name in ("good", "bad")
    )
    assert bad == good  # bit for bit as without the bad step


@pytest.mark.slow
def test_a_far_too_high_rate_is_named_and_no_bad_parameter_is_saved(tmp_path):
    config = tiny_config(**{"optimizer.learning_rate": 1e30, "optimizer.warmup_epochs": 0.0})
    with pytest.raises(
        UserError, match=r"step \d+ is not finite: .*Likely causes: optimizer.learning_rate is too high, "
    ):
        train.train_and_evaluate(config, tmp_path, DATA, devices=jax.devices()[:1])
    assert not (tmp_path / "results.json").exists()
    saved = read_newest(tmp_path / "checkpoints", ("params", "batch_stats"))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved.fields))


# The first bad value


def described(num_devices=2, *, change=lambda state: state, spoiled=False, **settings):
    parts, mesh, state = parts_on(num_devices, **settings)
    key = sharding.place(jax.random.key(1), sharding.replicated(mesh))
    batch = batch_on(mesh, spoiled=spoiled)
    return divergence.first_bad_value(parts.objective, parts.view_fn, mesh, change(state), {}, batch, key)


def with_parameter(value, *path):
    def change(state):
        params = jax.tree_util.tree_map_with_path(
            lambda keys, leaf: leaf * value if tuple(key.key for key in keys) == path else leaf, state.params
        )
        assert not same(params, state.params)
        return state.replace(params=params)

    return change


@pytest.mark.slow
def test_the_first_module_with_a_bad_output_is_named():
    path = ("backbone", "stage2_block1", "conv1", "kernel")
    named = described(change=with_parameter(3e38, *path))
    assert named == "the first module whose output is not finite is backbone/stage2_block1/conv1"
    assert described(change=with_parameter(np.nan, *path)) == (
        "the parameters backbone/stage2_block1/conv1/kernel were not finite before the step"
    )


@pytest.mark.slow
def test_bad_labels_are_named():
    assert described(spoiled=True) == "the labels given to the network are not finite"


def test_the_gradient_nearest_to_the_loss_is_named():
    found = {
        "params": {"a": True, "b": True, "c": True},
        "images": True,
        "labels": True,
        "outputs": [True] * 3,
        "loss": True,
        "gradients": {"a": {"kernel": False}, "b": {"kernel": False}, "c": {"kernel": True}},
    }
    words = divergence._in_words(found, ["a", "b", "c"])
    assert words == "the loss is finite, the first gradient that is not finite is that of b/kernel"
    assert "the loss is not" in divergence._in_words(found | {"loss": False}, ["a", "b", "c"])
