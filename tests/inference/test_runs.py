"""Runs of every kind have, as an encoder, the features and predictions of their own evaluation; none is trained here."""

import jax
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.run.run import build_run
from gensupcon_jax.store import workdir
from gensupcon_jax.store.checkpoint import Checkpoints
from tests.tiny import tiny_config, tiny_dataset

pytestmark = pytest.mark.slow  # whole runs

DATASET = tiny_dataset(num=72)
COLOR = tiny_dataset(num=72, channels=3)


def saved(folder, dataset=DATASET, **changes):
    """(features, logits) of the test images by the run's own evaluation; its state before training is saved as step 1."""
    run = build_run(tiny_config(**{"batch_size": 16} | changes), folder, dataset, devices=jax.devices()[:1])
    state = run.initial_state()
    workdir.claim(folder, run.config.to_dict(), run.description())
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, keep=1)
    checkpoints.save(1, {"params": state.params, "batch_stats": state.batch_stats}, {})
    checkpoints.close()
    predict_fn = run.predict_fn(state)
    settings = run.evaluation_settings().extraction
    has_logits = predict_fn(dataset.test.images[:8]).logits is not None
    return [
        extract(lambda images, name=name: getattr(predict_fn(images), name), dataset.test, **settings)
        for name in ("features", *(["logits"] if has_logits else []))
    ]


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"dataset.image_size": 12}, 1e-5),  # the device enlarges the images
        ({"loss.mode": "momentum", "momentum_encoder.queue_size": 32}, 1e-5),
        ({"model.name": "vit_tiny_patch4", "model.width": 12}, 1e-5),
        ({"model.dtype": "bfloat16"}, 1e-2),  # XLA rounds to 8 bits in other places for other batch sizes
    ],
    ids=["resized", "momentum", "vit", "bfloat16"],
)
def test_features_are_those_of_the_evaluation(tmp_path, changes, tolerance):
    (expected,) = saved(tmp_path / "run", **changes)
    encoder = Encoder.load(tmp_path / "run", devices=jax.devices()[:2])
    assert encoder.image_shape == (8, 8, 1)
    np.testing.assert_allclose(encoder.embed(DATASET.test.images, batch_size=5), expected, atol=tolerance)


def test_a_classifier_predicts(tmp_path):
    features, logits = saved(tmp_path / "run", objective="cross_entropy", **{"augment.num_views": 1})
    encoder = Encoder.load(tmp_path / "run")
    found = encoder.predict(DATASET.test.images)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert found.predictor == "classifier"
    np.testing.assert_allclose(found.probabilities, exponentials / exponentials.sum(axis=1, keepdims=True), atol=1e-5)
    assert found.classes.tolist() == logits.argmax(1).tolist()
    np.testing.assert_allclose(encoder.embed(DATASET.test.images), features, atol=1e-5)


def test_a_linear_probe_has_the_encoder_that_it_evaluates(tmp_path):
    saved(tmp_path / "encoder", COLOR)
    probed = {"objective": "linear_probe", "augment.num_views": 1, "mix.kind": "none"}
    other = tiny_dataset(num=72, channels=3, seed=1)
    features, logits = saved(tmp_path / "probe", other, **probed, **{"model.weights": str(tmp_path / "encoder")})
    encoder = Encoder.load(tmp_path / "probe")
    np.testing.assert_allclose(encoder.embed(other.test.images), features, atol=1e-5)
    assert encoder.predict(other.test.images).classes.tolist() == logits.argmax(1).tolist()


def test_a_run_without_anything_that_predicts_is_one_line(tmp_path):
    saved(tmp_path / "run")
    with pytest.raises(UserError) as error:
        Encoder.load(tmp_path / "run").predict(DATASET.test.images)
    message = str(error.value)
    assert (
        "has neither a classifier nor a kept probe of step 1, and its training images cannot be read again" in message
    )
    assert "\n" not in message
