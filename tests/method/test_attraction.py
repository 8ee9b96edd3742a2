"""The share of a teacher's attraction that goes to images without a class in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from gensupcon_jax import losses
from gensupcon_jax.method.attraction import unrelated_attraction


def smoothed(labels, share):
    return (1 - share) * labels + share / labels.shape[1]


def of_one_contrast_per_class(num_classes, share):
    labels = jnp.eye(num_classes)
    pair = (labels, smoothed(labels, share))
    return float(unrelated_attraction(pair, pair, jnp.ones((num_classes, num_classes))))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.1, 0.19), (0.5, 0.75), (1.0, 0.998)])
def test_a_floor_of_probability_attracts_other_classes(share, expected):
    assert of_one_contrast_per_class(500, share) == pytest.approx(expected, abs=3e-3)


def test_pairs_against_a_loop():
    rng = np.random.default_rng(0)
    labels = rng.dirichlet(np.ones(5), 12) * (rng.random((12, 5)) < 0.4)
    predictions, allowed = rng.dirichlet(np.ones(5), 12), rng.random((4, 12)) < 0.7
    similarity = np.asarray(losses.label_similarity(jnp.float32(predictions[:4]), jnp.float32(predictions)))
    total = unrelated = 0.0
    for i in range(4):
        for j in range(12):
            if allowed[i, j]:
                total += similarity[i, j]
                unrelated += similarity[i, j] if labels[i] @ labels[j] == 0 else 0.0
    pair = jnp.float32(labels), jnp.float32(predictions)
    queries = tuple(part[:4] for part in pair)
    found = unrelated_attraction(queries, pair, jnp.asarray(allowed))
    assert float(found) == pytest.approx(unrelated / total, rel=1e-5)
    assert 0.05 < unrelated / total < 0.95


def test_the_same_on_four_devices():
    labels = jnp.eye(8)
    pair = (labels, smoothed(labels, 0.3))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    rows, everywhere = PartitionSpec("data"), PartitionSpec()

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=((everywhere, everywhere), (rows, rows)), out_specs=everywhere
    )
    def sharded(queries, contrasts):
        return unrelated_attraction(queries, contrasts, jnp.ones((8, 2)), axis_name="data")

    expected = unrelated_attraction(pair, pair, jnp.ones((8, 8)))
    assert float(jax.jit(sharded)(pair, pair)) == pytest.approx(float(expected), rel=1e-5)


def test_no_attraction_at_all_is_none_that_is_unrelated():
    nothing = (jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    assert float(unrelated_attraction(nothing, nothing, jnp.ones((2, 2)))) == 0.0
