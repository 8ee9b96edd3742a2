"""A step that is not finite changes nothing: the run stops at the last good state and reports the first bad value."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data import input_pipeline
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.objectives import Aux, MixedBatch, Objective
from gensupcon_jax.method.state import create_state, state_shardings
from gensupcon_jax.run import assemble, divergence, train
from gensupcon_jax.run.bad_values import Bad, Layout, Watched, first_bad
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
    step = divergence.Step(parts.objective, parts.view_fn, mesh)
    return divergence.look_inside(step, change(state), {}, batch, key).bad


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
    bad = described(change=with_parameter(3e38, *path))
    assert divergence.bad_in_words(bad) == "the first module whose output is not finite is backbone/stage2_block1/conv1"
    bad = described(change=with_parameter(np.nan, *path))
    assert divergence.bad_in_words(bad) == (
        "the parameters backbone/stage2_block1/conv1/kernel were not finite before the step"
    )
    assert bad.index == (0, 0, 0, 0) and np.isnan(bad.value) and bad.count == np.prod(bad.shape)


@pytest.mark.slow
def test_bad_labels_are_named_with_their_image_and_place():
    bad = described(spoiled=True)
    assert divergence.bad_in_words(bad) == "the labels given to the network are not finite"
    # 16 of the 32 images are on the first device; a view of 4 classes, mixed with a partner of its block of 4.
    assert (bad.device, bad.shape, np.isnan(bad.value)) == (0, (16, 2, 4), True)
    assert bad.images[0] <= 5 <= bad.images[-1] and set(bad.images) <= {4, 5, 6, 7}


def of_layers(*names):
    """The watched arrays of modules that are called once, with rows of 4 images."""
    return [Watched("output", name, (4, 3)) for name in names]


def found_in(watched, *, bad, index=0, value=np.inf, rows=()):
    """Summaries of one device, with one bad array."""
    nothing = {"count": np.zeros(1, int), "first": np.zeros(1, int), "value": np.zeros(1), "rows": np.zeros((1, 4))}
    found = [dict(nothing) for _ in watched]
    flags = np.zeros((1, 4))
    flags[0, list(rows)] = 1
    found[bad] = {"count": np.array([1]), "first": np.array([index]), "value": np.array([value]), "rows": flags}
    return found


def test_the_place_is_that_of_the_first_value_and_the_rows_are_images():
    watched = of_layers("a", "b")
    bad = first_bad(watched, found_in(watched, bad=1, index=7, rows=[2]), Layout(4))
    assert bad == Bad("output", "b", (4, 3), 0, (2, 1), np.inf, 1, (2,))
    assert first_bad(watched, [found_in(watched, bad=1)[0]] * 2, Layout(4)) is None
    # Two views of each of 2 images; then two parts of 4 rows, of 4 images with 2 views, of which the second part is bad.
    assert first_bad(watched, found_in(watched, bad=0, rows=[1, 2]), Layout(2)).images == (0, 1)
    parts = [Watched("output", "a", (4, 3), call) for call in (0, 1)]
    assert first_bad(parts, found_in(parts, bad=1, rows=[0, 3]), Layout(4, num_parts=2)).images == (2, 3)
    # Rows that are no images: of another number, of parameters, or of keys that were encoded on another device.
    assert first_bad(watched, found_in(watched, bad=0, rows=[0]), Layout(3)).images == ()
    assert first_bad(parts, found_in(parts, bad=1, rows=[0]), Layout(4, are_exchanged=True)).images == ()
    (weight,) = [Watched("parameter", "a/kernel", (4, 3))]
    assert first_bad([weight], found_in([weight], bad=0, index=11), Layout(4)).index == (3, 2)


def test_gradients_come_from_the_loss_back_to_the_images():
    array = jnp.zeros(1)
    outputs = [(each, array) for each in of_layers("net/a", "net/b", "net", "head/c", "head")]
    outputs = [(each._replace(is_whole="/" not in each.name), array) for each, array in outputs]
    params = [(Watched("gradient", name, (3,)), array) for name in ("net/a/kernel", "net/b/kernel", "net/token")]
    names = [watched.name for watched, _ in divergence._backward(outputs, params)]
    assert names == ["head/c", "net/b", "net/b/kernel", "net/a", "net/a/kernel", "net/token"]


class TwoLayers(nn.Module):
    @nn.compact
    def __call__(self, images):
        hidden = nn.Dense(3, name="first")(images.reshape(images.shape[0], -1))
        return nn.Dense(2, name="second")(hidden)


def looked_at(loss_of_outputs, num_devices=2, labels=None, predictions_fn=None, pixels=255):
    """A look inside a step of two layers, of 4 images with 2 views."""
    model, mesh = TwoLayers(), sharding.make_mesh(jax.devices()[:num_devices])

    def loss(params, state, frozen, batch, rng):
        outputs = model.apply({"params": params}, batch.images.reshape(-1, 2, 2, 1))
        value = jax.lax.pmean(loss_of_outputs(outputs, batch.labels.reshape(-1, 2)), "data")
        return value, Aux({}, {"loss": value})

    def view_fn(key, images, labels, first_index):
        views = jnp.stack([images, images], axis=1) / 255.0
        return MixedBatch(views, jnp.stack([labels, labels], axis=1))

    images = np.full((4, 2, 2, 1), pixels, np.uint8)
    params = model.init(jax.random.key(0), images / 255.0)["params"]
    state = sharding.place(create_state({"params": params}, optax.sgd(0.1)), sharding.replicated(mesh))
    batch = Batch(images, np.ones((4, 2), np.float32) if labels is None else labels)
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    step = divergence.Step(Objective(None, loss, None), view_fn, mesh, predictions_fn=predictions_fn)
    frozen = sharding.place({"teacher": np.float32(2.0)}, sharding.replicated(mesh))
    return divergence.look_inside(step, state, frozen, batch, jax.random.key(1))


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_gradient_nearest_to_the_loss_is_named(num_devices):
    # The root of 0 is finite, its slope is not: where the label is 0, at the second class of image 2, which has rows 4 and 5.
    labels = np.ones((4, 2), np.float32)
    labels[2, 1] = 0.0
    bad = looked_at(lambda outputs, labels: jnp.sqrt(jnp.abs(outputs) * labels).mean(), num_devices, labels).bad
    assert (bad.kind, bad.name, bad.images, bad.count) == ("output gradient", "second", (2,), 2)
    assert (bad.device, bad.index) == ((0, (4, 1)) if num_devices == 1 else (1, (0, 1)))
    words = "the loss is finite, the first gradient that is not finite is that of the output of second"
    assert divergence.bad_in_words(bad) == words


def test_a_loss_without_a_bad_output_and_a_step_without_a_bad_value_are_told_apart():
    assert divergence.bad_in_words(looked_at(lambda outputs, labels: outputs.mean() / 0.0, 1).bad) == (
        "the output of every module is finite, the loss is not"
    )
    looked = looked_at(lambda outputs, labels: 3.0 + 0.0 * outputs.mean(), 1)
    assert looked == (None, 3.0, 0.0)
    assert divergence.bad_in_words(looked.bad) == "every value is finite when the step is computed again"


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_teacher_whose_predictions_are_not_finite_is_named_with_the_images(num_devices):
    def predictions_fn(weights, images):  # of image 3, which has rows 6 and 7, it has no logarithm
        return jnp.log(images.mean((1, 2)) - 0.5) * weights * jnp.ones((1, 2))

    pixels = np.array([255, 255, 255, 0]).reshape(4, 1, 1, 1)
    looked = looked_at(
        lambda outputs, labels: outputs.mean() / 0.0, num_devices, predictions_fn=predictions_fn, pixels=pixels
    )
    bad = looked.bad
    assert (bad.kind, bad.count, bad.images) == ("predictions", 4, (3,))
    assert (bad.device, bad.index) == ((0, (6, 0)) if num_devices == 1 else (1, (2, 0)))
    said = divergence.message("not finite", looked, create_state({"params": {}}, optax.sgd(0.1)), "contrastive")
    assert said == (
        "step 1 is not finite: the teacher's predictions are not finite. The cause is the teacher: its weights, or a function "
        "that divides by 0 or leaves its range."
    )
