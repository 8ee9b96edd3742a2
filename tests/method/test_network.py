"""A network's variables in and out of the state: with and without running statistics, and the stream "dropout"."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.network import TrainingCall, apply_training, fields_of

IMAGES = jnp.ones((4, 2, 2, 1))


class Dropping(nn.Module):
    """The pixels, a half of them dropped while it trains."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dropout(0.5, deterministic=not train)(images.reshape(images.shape[0], -1))


class Normalized(nn.Module):
    """BatchNorm alone."""

    @nn.compact
    def __call__(self, images, *, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(images)


def test_what_a_network_does_not_keep_is_empty():
    assert fields_of({"params": {"a": 1}}) == {"params": {"a": 1}, "batch_stats": {}}
    assert fields_of({"batch_stats": {"b": 2}}) == {"params": {}, "batch_stats": {"b": 2}}


def test_other_collections_are_refused_by_name():
    with pytest.raises(UserError, match=r"variables in 'cache', 'counts'; allowed: params and batch_stats"):
        fields_of({"params": {}, "counts": {}, "cache": {}})


def test_new_statistics_are_returned_and_the_classifier_is_left_out():
    variables = Normalized().init(jax.random.key(0), IMAGES, train=False)
    params = variables["params"] | {"classifier": {"kernel": jnp.ones(3)}}
    _, changed = apply_training(
        Normalized(), params, variables["batch_stats"], IMAGES, jax.random.key(1), settings=TrainingCall(None)
    )
    np.testing.assert_allclose(changed["BatchNorm_0"]["mean"], [0.1], rtol=1e-6)  # a tenth of the way from 0 to 1


def test_dropout_follows_the_key():
    def draw(key):
        output, changed = apply_training(Dropping(), {}, {}, IMAGES, key, settings=TrainingCall(None))
        assert changed == {}
        return np.asarray(output)

    assert set(np.unique(draw(jax.random.key(0)))) == {0.0, 2.0}
    np.testing.assert_array_equal(draw(jax.random.key(0)), draw(jax.random.key(0)))
    assert (draw(jax.random.key(0)) != draw(jax.random.key(1))).any()


def test_each_device_draws_for_itself():
    mesh = sharding.make_mesh(jax.devices()[:2])

    def draw(images, key):
        return apply_training(Dropping(), {}, {}, images, key, settings=TrainingCall(sharding.DATA_AXIS))[0]

    specs = (sharding.BATCH, PartitionSpec())
    drawn = jax.jit(jax.shard_map(draw, mesh=mesh, in_specs=specs, out_specs=sharding.BATCH))(
        jnp.ones((16, 4, 4, 1)), jax.random.key(0)
    )
    assert (drawn[:8] != drawn[8:]).any()
