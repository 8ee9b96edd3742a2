"""Images whose label is a number, from training to prediction: a tiny run, its results, its page and what it predicts."""

import csv
import json

import numpy as np
import pytest

from gensupcon_jax.data.datasets import from_arrays, load
from gensupcon_jax.data.value_labels import rebinned
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.final import Settings
from gensupcon_jax.evaluation.kept_predictions import read_predictions
from gensupcon_jax.evaluation.measures import MEASURES
from gensupcon_jax.inference import predict
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.evaluate_scores import evaluate_encoder, results_table
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.train import train_and_evaluate
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow


def brightness_set():
    """Noise whose brightness is the label, 0 to 10."""
    random = np.random.default_rng(0)
    values = np.round(random.uniform(0, 10, 144), 2)
    images = random.integers(0, 60, (144, 8, 8, 1)) + (values * 18)[:, None, None, None]
    return from_arrays(images.astype(np.uint8), values, label_kind="value")


@pytest.fixture(scope="module", params=["contrastive", "cross_entropy"])
def finished(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("values") / request.param
    changes = {"dataset.num_bins": 16, "dataset.value_width": 1.0, "mix.kind": "none", "objective": request.param}
    changes |= {"augment.num_views": 1} if request.param == "cross_entropy" else {}
    results = train_and_evaluate(tiny_config(**changes), folder, brightness_set())
    return folder, results, request.param


def test_results_have_r2_and_the_error_in_the_unit_of_the_labels(finished):
    folder, results, objective = finished
    predictors = ["knn", "linear", "raw_pixel_knn"] + (["classifier"] if objective == "cross_entropy" else [])
    test = brightness_set().test
    kept = read_predictions(folder).predictions[results["steps"]]
    for name in predictors:
        errors = kept[name] - test.values
        assert results[f"{name}_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
        assert results[f"{name}_r2"] == pytest.approx(100 * (1 - np.mean(errors**2) / np.var(test.values)), abs=0.01)
    assert results["linear_r2"] > 50 > results["raw_pixel_knn_r2"]  # the cosine of pixels does not see brightness
    assert "knn_top1" not in results
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    score = "classifier/r2" if objective == "cross_entropy" else "knn/r2"
    assert any(score in row for row in metrics)


def test_the_page_shows_predicted_against_true_values(finished):
    page = (finished[0] / "report.html").read_text()
    assert page.count('class="fit"') == 29 and "always the mean value" in page
    assert "Which classes are confused?" not in page and "Which labels look wrong?" not in page
    assert "bins of values" in page and "from low to high values" in page
    assert not (finished[0] / "suspicious_labels.csv").exists() and (finished[0] / "near_duplicates.csv").exists()


def test_numbers_are_predicted_for_new_images(finished, tmp_path):
    folder, results, objective = finished
    test, encoder = brightness_set().test, Encoder.load(folder)
    predictions = encoder.predict(test.images)
    kept = read_predictions(folder).predictions[results["steps"]]
    name = "classifier" if objective == "cross_entropy" else "linear"
    np.testing.assert_allclose(predictions.values, kept[name], atol=1e-3)
    assert predictions.predictor == {"classifier": "classifier", "linear": "ridge"}[name]
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)
    assert repr(encoder).endswith("16 bins of values)")


def test_evaluate_measures_retrieval_by_the_bins(finished):
    settings = Settings({"neighbors": (3,), "temperature": 0.07, "num_classes": 16}, {}, measures=tuple(MEASURES))
    encoder = Encoder.load(finished[0])
    settings = settings._replace(extraction=encoder.extraction(64), label_kind="value", penalties=(0.1,))
    dataset = rebinned(brightness_set(), num_bins=16, width=1.0)
    table = results_table(evaluate_encoder(encoder, dataset, settings))
    assert "16 bins of values" in table and "retrieval R@1 " in table and "calibration" not in table


def test_a_run_takes_the_predictions_of_a_teacher_of_the_same_bins(finished, tmp_path, capsys):
    folder, _, objective = finished
    changes = {"dataset.num_bins": 16, "dataset.value_width": 1.0, "mix.kind": "none", "steps": 2}
    changes |= {"teacher.kind": "workdir", "teacher.path": str(folder), "teacher.allow_poor": True}
    if objective == "contrastive":
        with pytest.raises(UserError, match=r"no classifier"):
            build_run(tiny_config(**changes), tmp_path / "student", brightness_set())
    else:
        train_and_evaluate(tiny_config(**changes), tmp_path / "student", brightness_set())
        assert (
            "% of the variance explained (R²) on the validation images (the mean value: 0 %)" in capsys.readouterr().err
        )


def test_predict_writes_a_column_of_values(finished, tmp_path, capsys):
    from PIL import Image

    (tmp_path / "new").mkdir()
    Image.fromarray(np.full((8, 8), 120, np.uint8)).save(tmp_path / "new" / "gray.png")
    predict.main([str(finished[0]), str(tmp_path / "new"), "--output", str(tmp_path / "out.csv")], "gensupcon predict")
    by = "ridge regression" if finished[2] == "contrastive" else "classifier"
    assert f"1 image, values by the {by}: {tmp_path / 'out.csv'}" in capsys.readouterr().out
    header, row = list(csv.reader((tmp_path / "out.csv").open()))
    assert header[:2] == ["name", "value"] and row[0].endswith("gray.png") and -20 < float(row[1]) < 30


def test_turned_digits_have_their_angle():
    found = load("rotated_digits", label_kind="value")
    assert (found.train.num_images, found.validation.num_images, found.test.num_images) == (1077, 180, 540)
    assert found.train.images.shape[1:] == (16, 16, 1) and -45 <= found.train.values.min() < -40
    assert found.description() == load("rotated_digits", label_kind="value").description()
