"""A 1x1 convolution and its BatchNorm without the product in between: values, gradients and statistics are those of flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.cluster.sharding import make_mesh
from gensupcon_jax.models.gram import Kernel, NormalizedProduct

KEYS = jax.random.split(jax.random.key(0), 6)
INPUTS = nn.relu(jax.random.normal(KEYS[0], (8, 5, 5, 12)) + 0.4)
KERNEL = 0.3 * jax.random.normal(KEYS[1], (12, 48))
SCALE = 1 + 0.3 * jax.random.normal(KEYS[2], (48,))
BIAS = jax.random.normal(KEYS[3], (48,))
COTANGENT = jax.random.normal(KEYS[4], (8, 5, 5, 48))


class Pair(nn.Module):
    """The two modules as a block uses them."""

    axis_name: str | None = None
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, inputs, train):
        kernel = Kernel(48, nn.initializers.ones, self.dtype, name="conv3")(inputs.shape[-1])
        return NormalizedProduct(self.dtype, self.axis_name, name="bn3")(inputs, kernel, train=train)


class Written(nn.Module):
    """flax's own layers with the same parameters."""

    @nn.compact
    def __call__(self, inputs, train):
        product = nn.Dense(48, use_bias=False, precision="highest", name="conv3")(inputs)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="bn3")(product)


VARIABLES = {
    "params": {"conv3": {"kernel": KERNEL}, "bn3": {"scale": SCALE, "bias": BIAS}},
    "batch_stats": {"bn3": {"mean": jnp.linspace(-1, 1, 48), "var": jnp.linspace(0.5, 2, 48)}},
}


def trained(model, inputs, params):
    """The loss of a training pass through ReLU, and the new statistics."""
    variables = {"params": params, "batch_stats": VARIABLES["batch_stats"]}
    out, changed = model.apply(variables, inputs, True, mutable=["batch_stats"])
    return jnp.sum(nn.relu(out) * COTANGENT[: len(inputs)]), changed["batch_stats"]


def test_it_has_the_parameters_and_statistics_of_the_layers_that_it_replaces():
    mine, flax = (jax.eval_shape(lambda m=model: m.init(KEYS[5], INPUTS, False)) for model in (Pair(), Written()))
    assert jax.tree.structure(mine) == jax.tree.structure(flax)
    assert jax.tree.map(lambda leaf: leaf.shape, mine) == jax.tree.map(lambda leaf: leaf.shape, flax)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_values_gradients_and_statistics_are_those_of_flax(sign):
    params = jax.tree.map(lambda leaf: sign * leaf, VARIABLES["params"])
    found = [
        jax.value_and_grad(lambda x, p, m=model: trained(m, x, p), argnums=(0, 1), has_aux=True)(INPUTS, params)
        for model in (Pair(), Written())
    ]
    for mine, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        # The loss is a sum of 9,600 terms of either sign.
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=1e-5 * max(1.0, float(jnp.abs(theirs).max())))


def test_running_statistics_are_used_where_nothing_is_trained():
    mine, flax = (model.apply(VARIABLES, INPUTS, False) for model in (Pair(), Written()))
    np.testing.assert_allclose(mine, flax, atol=1e-5)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_devices_share_their_statistics(num_devices):
    mesh = make_mesh(jax.devices()[:num_devices])

    def local(inputs, cotangent, params):
        def loss(inputs, params):
            variables = {"params": params, "batch_stats": VARIABLES["batch_stats"]}
            out, changed = Pair("data").apply(variables, inputs, True, mutable=["batch_stats"])
            return jax.lax.psum(jnp.sum(nn.relu(out) * cotangent), "data"), changed["batch_stats"]

        (value, statistics), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(inputs, params)
        return value, statistics, gradients

    split, whole = PartitionSpec("data"), PartitionSpec()
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(split, split, whole), out_specs=(whole, whole, (split, whole)))
    value, statistics, gradients = jax.jit(mapped)(INPUTS, COTANGENT, VARIABLES["params"])
    (expected, kept), wanted = jax.value_and_grad(lambda x, p: trained(Pair(), x, p), argnums=(0, 1), has_aux=True)(
        INPUTS, VARIABLES["params"]
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for mine, theirs in zip(*map(jax.tree.leaves, ((statistics, gradients), (kept, wanted))), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5 * max(1.0, float(jnp.abs(theirs).max())))


def test_channels_that_do_not_vary_are_their_bias():
    out, changed = Pair().apply(VARIABLES, jnp.full((4, 3, 3, 12), 0.7), True, mutable=["batch_stats"])
    np.testing.assert_allclose(out, jnp.broadcast_to(BIAS, out.shape), atol=2e-3)
    assert bool(jnp.isfinite(changed["batch_stats"]["bn3"]["var"]).all())


def test_in_bfloat16_statistics_stay_float32_and_the_result_is_near():
    variables = VARIABLES | {"params": VARIABLES["params"]}
    low, changed = Pair(dtype=jnp.bfloat16).apply(variables, INPUTS, True, mutable=["batch_stats"])
    full, _ = Pair().apply(variables, INPUTS, True, mutable=["batch_stats"])
    assert low.dtype == jnp.bfloat16 and changed["batch_stats"]["bn3"]["var"].dtype == jnp.float32
    np.testing.assert_allclose(low.astype(jnp.float32), full, atol=0.05)
