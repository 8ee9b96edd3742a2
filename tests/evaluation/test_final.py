"""The evaluation of a network whose features overflow."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.final import Settings, evaluate_network
from tests.tiny import tiny_dataset


def test_features_that_are_not_finite_are_counted_in_one_line():
    dataset, mesh = tiny_dataset(), sharding.make_mesh(jax.devices()[:1])

    def predict_fn(images):
        first = images[:, 0, 0] / 1.0
        return SimpleNamespace(features=jnp.where(first > 100, jnp.inf, first))

    settings = Settings({}, {"batch_size": 32, "sharding": sharding.batch_sharding(mesh)})
    num_bad = sum(int(image[0, 0, 0]) > 100 for image in dataset.train.images)
    with pytest.raises(UserError) as error:
        evaluate_network(predict_fn, dataset, settings, step=7)
    assert str(error.value) == (
        f"the features of {num_bad} of 96 train images are not finite after step 7: its parameters are too large; train again "
        "with a lower optimizer.learning_rate in another --workdir"
    )
