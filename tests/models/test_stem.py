"""The stem that pools before it normalizes equals BatchNorm, ReLU and max-pooling in sequence."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gensupcon_jax.cluster import sharding
from gensupcon_jax.models.stem import NormalizedMaxima


class InTurn(nn.Module):
    """The definition."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs, *, train):
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=self.axis_name,
            dtype=inputs.dtype,
            name="norm",
        )(inputs)
        return nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def variables_with(scale):
    """Generic running statistics and parameters; `scale` has the given signs."""
    count = len(scale)
    values = np.linspace(-0.5, 0.5, count, dtype=np.float32)
    return {
        "params": {"scale": jnp.array(scale, jnp.float32), "bias": jnp.array(values)},
        "batch_stats": {"mean": jnp.array(values[::-1]), "var": jnp.array(values + 1)},
    }


def nested(variables):
    return {collection: {"norm": tree} for collection, tree in variables.items()}


SCALES = [(1.0, 0.5, 2.0, 0.1), (-1.0, 0.5, -2.0, 0.0)]


@pytest.mark.parametrize("scale", SCALES, ids=["positive", "both_signs_and_zero"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_statistics_are_those_of_the_sequence(scale, train, size, dtype):
    variables = variables_with(scale)
    images = jax.random.normal(jax.random.key(0), (6, *size, 4)).astype(dtype)
    found, changed = NormalizedMaxima(dtype).apply(variables, images, train=train, mutable=["batch_stats"])
    expected, expected_changed = InTurn().apply(nested(variables), images, train=train, mutable=["batch_stats"])
    assert found.dtype == dtype
    # Two programs may round a multiply-add differently: one unit of the last place.
    tolerance = 1e-6 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), rtol=tolerance, atol=tolerance)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            changed["batch_stats"][name], expected_changed["batch_stats"]["norm"][name], rtol=1e-6, atol=1e-6
        )


# At a scale of exactly 0 a whole window ties, and whose gradient counts is arbitrary in either form.
@pytest.mark.parametrize("scale", [SCALES[0], (-1.0, 0.5, -2.0, -0.1)], ids=["positive", "both_signs"])
def test_gradients_are_those_of_the_sequence(scale):
    variables = variables_with(scale)
    images = jax.random.normal(jax.random.key(1), (6, 8, 8, 4))
    weights = jax.random.normal(jax.random.key(2), (6, 4, 4, 4))

    def loss(module, tree_fn):
        def value(params, inputs):
            given = tree_fn({"params": params, "batch_stats": variables["batch_stats"]})
            output, _ = module.apply(given, inputs, train=True, mutable=["batch_stats"])
            return jnp.sum(weights * output)

        return jax.grad(value, argnums=(0, 1))(variables["params"], images)

    found, expected = loss(NormalizedMaxima(), lambda tree: tree), loss(InTurn(), nested)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5), found, expected)


def test_statistics_are_those_of_all_devices():
    variables = variables_with(SCALES[1])
    images = jax.random.normal(jax.random.key(3), (8, 4, 4, 4))
    mesh = sharding.make_mesh(jax.devices()[:4])

    def apply(module, inputs):
        return module.apply(variables, inputs, train=True, mutable=["batch_stats"])

    spread = jax.shard_map(
        lambda inputs: apply(NormalizedMaxima(axis_name="data"), inputs),
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=(PartitionSpec("data"), PartitionSpec()),
    )(images)
    alone = apply(NormalizedMaxima(), images)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), spread, alone)


def test_the_names_are_those_of_batch_norm():
    images = jnp.zeros((2, 4, 4, 3))
    found = NormalizedMaxima(axis_name="data").init(jax.random.key(0), images, train=True)
    expected = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)
