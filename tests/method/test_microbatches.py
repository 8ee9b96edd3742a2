"""A batch in several parts: the same loss and gradients as in one, with the memory of one part."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.errors import UserError
from gensupcon_jax.method import objectives
from gensupcon_jax.method.network import Microbatches
from gensupcon_jax.method.objectives import Momentum
from gensupcon_jax.method.state import create_state, state_shardings
from gensupcon_jax.method.train_step import build_train_step_fn
from gensupcon_jax.models import ENCODER_FIELDS, Classifier, HeadedEncoder, build_model
from gensupcon_jax.models.heads import MlpHead
from gensupcon_jax.run import train
from tests.method.test_momentum import view_fn
from tests.tiny import tiny_config, tiny_dataset

DATASET = tiny_dataset()


class Layers(nn.Module):
    """Two dense layers on the pixels, without BatchNorm."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(nn.Dense(16)(nn.relu(nn.Dense(16)(images.reshape(len(images), -1)))))


def stepped(objective, *, num_devices=1, num_steps=3):
    """The state after some steps of SGD, and the losses."""
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    state = create_state(objective.init(jax.random.key(1), jnp.zeros((1, 8, 8, 1))), optax.sgd(0.2))
    state = jax.device_put(jax.tree.map(jnp.copy, state), state_shardings(state, mesh))
    step_fn = build_train_step_fn(objective, view_fn, mesh)
    key = jax.device_put(jax.random.key(7), sharding.replicated(mesh))
    values = []
    for step in range(num_steps):
        index = (np.arange(16) + 16 * step) % 96
        batch = Batch(DATASET.train.images[index], DATASET.train.labels[index])
        state, metrics = step_fn(state, {}, jax.device_put(batch, sharding.batch_sharding(mesh)), key)
        values.append(float(metrics["loss"]))
    return jax.device_get(state), values


def objective_of(mode, microbatches, model=None):
    model = HeadedEncoder(Layers(), MlpHead(8)) if model is None else model
    if mode == "cross_entropy":
        return objectives.cross_entropy(model, Classifier(4), microbatches=microbatches)
    momentum = Momentum(momentum=0.9, queue_size=32, batch_size=16, symmetric=True)
    return objectives.contrastive(
        model,
        mode=mode,
        temperature=0.1,
        num_classes=4,
        momentum=momentum if mode == "momentum" else None,
        microbatches=microbatches,
    )


def assert_same(first, second, tolerance):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("mode", "num_devices"), [("all", 1), ("all", 2), ("one", 1), ("momentum", 2), ("cross_entropy", 1)]
)
def test_without_batch_norm_parts_are_the_whole(mode, num_devices):
    whole, values = stepped(objective_of(mode, Microbatches(1)), num_devices=num_devices)
    for microbatches in (Microbatches(4), Microbatches(4, unrolled=True)):
        parts, part_values = stepped(objective_of(mode, microbatches), num_devices=num_devices)
        np.testing.assert_allclose(part_values, values, rtol=1e-5)
        assert_same((parts.params, parts.ema_params, parts.queue), (whole.params, whole.ema_params, whole.queue), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["all", "momentum"])
def test_parts_have_the_batch_norm_of_as_many_devices(mode):
    fields = {name: tiny_config().model[name] for name in ENCODER_FIELDS if name != "batch_norm"}
    model = build_model(image_size=8, batch_norm="local", **fields)
    parts, part_values = stepped(objective_of(mode, Microbatches(4), model))
    devices, values = stepped(objective_of(mode, Microbatches(1), model), num_devices=4)
    np.testing.assert_allclose(part_values, values, rtol=1e-5)
    assert_same((parts.params, parts.batch_stats), (devices.params, devices.batch_stats), 1e-4)


@pytest.mark.slow
def test_activations_take_a_share_of_the_memory():
    def temporary_bytes(num_parts):
        fields = {name: tiny_config().model[name] for name in ENCODER_FIELDS if name != "width"}
        model = build_model(image_size=32, width=16, **fields)
        objective = objective_of("all", Microbatches(num_parts), model)
        mesh = sharding.make_mesh(jax.devices()[:1])
        state = jax.eval_shape(
            lambda: create_state(objective.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1))), optax.sgd(0.1))
        )
        batch = Batch(jax.ShapeDtypeStruct((64, 32, 32, 1), jnp.uint8), jax.ShapeDtypeStruct((64, 4), jnp.float32))
        key = jax.eval_shape(lambda: jax.random.key(0))
        compiled = build_train_step_fn(objective, view_fn, mesh).lower(state, {}, batch, key).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < 0.3 * temporary_bytes(1)


def test_parts_that_do_not_divide_are_refused_before_anything_is_compiled(tmp_path):
    config = tiny_config(microbatches=5)
    refusal = r"microbatches is 5, which does not divide the 32 images per device; allowed: 1, 2, 4, 8, 16, 32"
    with pytest.raises(UserError, match=refusal):
        train.train_and_evaluate(config, tmp_path / "run", tiny_dataset(), devices=jax.devices()[:1])
    config = tiny_config(
        microbatches=2, objective="linear_probe", **{"model.weights": "somewhere", "augment.num_views": 1}
    )
    with pytest.raises(UserError, match="microbatches is 2; allowed with objective linear_probe: 1"):
        train.train_and_evaluate(config, tmp_path / "run", tiny_dataset())


@pytest.mark.slow
def test_a_run_in_parts_that_diverges_is_told_what_went_bad_first(tmp_path):
    config = tiny_config(microbatches=2, **{"optimizer.learning_rate": 1e12, "optimizer.warmup_epochs": 0.0})
    with pytest.raises(
        UserError, match=r"step 2 is not finite: .* not finite is that of the output of backbone/stage3_block1"
    ):
        train.train_and_evaluate(config, tmp_path, tiny_dataset(), devices=jax.devices()[:1])
