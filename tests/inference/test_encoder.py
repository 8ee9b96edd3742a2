"""A trained encoder: features of the run's own evaluation, from arrays and files, at every step, on any number of devices."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import gensupcon_jax as gsc
from gensupcon_jax import extras
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.images import find_images
from gensupcon_jax.run.run import build_run
from gensupcon_jax.store import checkpoint, workdir
from tests.tiny import tiny_config, tiny_dataset

DATASET = tiny_dataset()


@pytest.fixture(scope="module")
def encoder(trained):
    return Encoder.load(trained)


def evaluated_features(folder, config, dataset, split):
    """Features as the run's own evaluation extracts them from its last state."""
    run = build_run(config, folder, dataset)
    state = run.initial_state()
    names = ("params", "batch_stats")
    fields = checkpoint.read_newest(folder / workdir.CHECKPOINTS, names).fields
    predict_fn = run.predict_fn(state.replace(**fields))
    return extract(lambda images: predict_fn(images).features, split, **run.evaluation_settings().extraction)


def test_features_of_arrays_are_those_of_the_runs_own_evaluation(trained, encoder):
    expected = evaluated_features(trained, tiny_config(), DATASET, DATASET.test)
    found = encoder.embed(DATASET.test.images)
    assert (found.shape, found.dtype) == ((32, 16), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.1  # the images differ


@pytest.mark.parametrize(("num_devices", "batch_size"), [(1, 7), (2, 5), (8, 64)])
def test_features_depend_neither_on_the_devices_nor_on_the_batch(trained, encoder, num_devices, batch_size):
    expected = encoder.embed(DATASET.test.images)
    other = Encoder.load(trained, devices=jax.devices()[:num_devices])
    np.testing.assert_allclose(other.embed(DATASET.test.images, batch_size=batch_size), expected, atol=1e-5)


def test_what_an_encoder_says_of_itself(trained, encoder):
    assert gsc.Encoder is Encoder
    assert (encoder.source, encoder.step, encoder.image_shape) == (str(trained), 6, (8, 8, 1))
    assert (encoder.num_features, encoder.class_names, encoder.center_share) == (16, ("0", "1", "2", "3"), 1.0)
    description = json.loads((trained / workdir.DATASET).read_text())
    assert (encoder.mean.tolist(), encoder.std.tolist()) == (description["mean"], description["std"])
    assert repr(encoder) == f"Encoder('{trained}', step 6: images 8 x 8 x 1 -> 16 features, 4 classes)"


def test_files_of_the_networks_size_have_the_features_of_their_pixels(encoder, tmp_path):
    for number, image in enumerate(DATASET.test.images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number:02}.png")
    np.testing.assert_allclose(encoder.embed(tmp_path, batch_size=10), encoder.embed(DATASET.test.images), atol=1e-5)


def test_each_saved_step_is_read(trained):
    last, first = Encoder.load(trained, step="last"), Encoder.load(trained, step=3)
    assert (last.step, first.step) == (6, 3)
    assert last.fingerprint != first.fingerprint
    best = json.loads((trained / workdir.RESULTS).read_text())["best_step"]
    assert Encoder.load(trained, step="best").step == best


def test_a_step_that_is_not_saved_is_an_error_that_lists_those_that_are(trained):
    with pytest.raises(
        UserError, match=r"has no checkpoint of step 4; allowed: .* saved steps (3 \(best\), 6|3, 6 \(best\))$"
    ):
        Encoder.load(trained, step=4)
    with pytest.raises(UserError, match="step is 'newest'; allowed: last, best"):
        Encoder.load(trained, step="newest")


def test_damaged_files_are_left_out_and_listed(encoder, tmp_path):
    for number, image in enumerate(DATASET.test.images[:5]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])  # only decoding finds it
    (tmp_path / "note.jpg").write_text("not an image")
    found = find_images(tmp_path)
    assert [name for name, _ in found.damaged] == ["note.jpg"]
    parts = list(encoder.outputs(found, batch_size=2))
    assert np.concatenate([part.indices for part in parts]).tolist() == [0, 1, 2, 4]
    features = np.concatenate([part.features for part in parts])
    np.testing.assert_allclose(features, encoder.embed(DATASET.test.images[[0, 1, 2, 4]]), atol=1e-5)
    assert [name for name, _ in found.damaged] == ["note.jpg", "3.png"]


def test_the_probe_that_the_run_kept_predicts_classes(encoder, trained):
    found = encoder.predict(DATASET.test.images)
    assert (found.predictor, found.class_names) == ("probe", ("0", "1", "2", "3"))
    assert (found.probabilities.shape, found.probabilities.dtype) == ((32, 4), np.float32)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.classes.tolist() == found.probabilities.argmax(1).tolist()
    accuracy = 100 * np.mean(found.classes == DATASET.test.classes)
    assert accuracy == json.loads((trained / workdir.RESULTS).read_text())["linear_top1"]


@pytest.mark.parametrize(("before", "after"), [(None, "3"), ("1", "3"), ("0", "0"), ("2", "2")])
def test_tensorflow_says_nothing_of_images_also_where_jax_is_imported_first(monkeypatch, before, after):
    """jax sets 1, with which TensorFlow warns of the color profile of many a PNG; what a user sets is kept."""
    environment = {} if before is None else {"TF_CPP_MIN_LOG_LEVEL": before}
    monkeypatch.setattr(extras, "os", SimpleNamespace(environ=environment))
    extras.quiet_tensorflow()
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == after
