"""Ridge regression and k-NN of values: naive oracles, literal errors, and degenerate values."""

import numpy as np
import pytest

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.knn import knn_means
from gensupcon_jax.evaluation.scoring import SCORINGS, evaluate_knn
from gensupcon_jax.evaluation.values import evaluate_ridge, explained_variance, mean_absolute_error
from gensupcon_jax.value_bins import ValueBins


def split(features, values):
    return Features(features.astype(np.float32), np.zeros(len(values), int), values)


def linear_splits(noise=0.0):
    """Features, and values that are a linear function of them, in years: 30 + 4 x the first - 2 x the second."""
    random = np.random.default_rng(0)
    splits = {}
    for name, num in (("train", 60), ("validation", 20), ("test", 25)):
        features = (random.normal(size=(num, 3)) * (1, 10, 0.1) + (5, 0, 0)).astype(np.float32)
        values = 30 + 4 * features[:, 0] - 2 * features[:, 1] + noise * random.normal(size=num)
        splits[name] = split(features, values)
    return splits


def test_errors_are_in_the_unit_of_the_values_and_r2_in_percent():
    predicted, true = np.array([31.0, 29.0]), np.array([30.0, 32.0])
    assert mean_absolute_error(predicted, true) == 2.0
    assert explained_variance(predicted, true) == 100 * (1 - 5.0 / 1.0)
    assert explained_variance(np.full(3, 2.0), np.array([1.0, 2.0, 3.0])) == 0.0
    assert explained_variance(np.full(3, 2.0), np.full(3, 2.0)) == 0.0


def test_ridge_finds_a_linear_function_of_unscaled_features():
    splits = linear_splits()
    outcome, ridge = evaluate_ridge(splits, penalties=(1.0, 1e-9, 1e-2), step=7)
    assert outcome.setting == 1e-9 and outcome.validation_score == pytest.approx(100, abs=1e-4)
    np.testing.assert_allclose(ridge.weight[:, 0], [4, -2, 0], atol=1e-4)
    assert ridge.bias[0] == pytest.approx(30, abs=1e-3) and ridge.step == 7
    np.testing.assert_allclose(outcome.test_predictions, splits["test"].targets, atol=1e-3)


def test_ridge_solves_the_normal_equations():
    splits = linear_splits(noise=3.0)
    _, ridge = evaluate_ridge(splits, penalties=(0.3,))
    features, values = splits["train"].values.astype(np.float64), splits["train"].targets
    inputs = (features - features.mean(0)) / features.std(0)
    target = (values - values.mean()) / values.std()
    weight = np.linalg.solve(inputs.T @ inputs + 0.3 * len(inputs) * np.eye(3), inputs.T @ target)
    queries = (splits["test"].values - features.mean(0)) / features.std(0)
    np.testing.assert_allclose(
        ridge.values(splits["test"].values), values.mean() + values.std() * queries @ weight, rtol=1e-5
    )


def test_without_a_validation_split_there_is_one_penalty():
    splits = linear_splits(noise=1.0)
    del splits["validation"]
    outcome, _ = evaluate_ridge(splits, penalties=(0.3,))
    assert outcome.validation_score is None and outcome.setting == 0.3


def test_neighbors_average_the_values_of_the_nearest_by_cosine():
    angles = np.array([0.0, 10.0, 80.0]) * np.pi / 180
    train = split(np.stack([np.cos(angles), np.sin(angles)], 1), np.array([1.0, 3.0, 100.0]))
    weights = np.exp(np.cos(angles) / 0.5)
    found = knn_means(train, np.array([[2.0, 0.0]], np.float32), neighbors=(1, 2, 3, 9), temperature=0.5)
    assert found[1].tolist() == [1.0] and set(found) == {1, 2, 3}
    assert found[2][0] == pytest.approx((weights[0] + 3 * weights[1]) / (weights[0] + weights[1]), rel=1e-6)
    assert found[3][0] == pytest.approx(weights @ [1, 3, 100] / weights.sum(), rel=1e-6)


def test_the_number_of_neighbors_is_chosen_by_r2_on_validation():
    splits = linear_splits(noise=1.0)
    settings = {"neighbors": (1, 5, 20), "temperature": 0.1, "num_classes": 64}
    outcome = evaluate_knn(splits, **settings, label_kind="value")
    scores = {
        k: explained_variance(predicted, splits["validation"].targets)
        for k, predicted in knn_means(splits["train"], splits["validation"].values, **settings).items()
    }
    assert outcome.setting == max(scores, key=scores.get) and outcome.validation_score == max(scores.values())


def test_a_classifier_of_bins_predicts_the_mean_of_its_distribution():
    bins = ValueBins(0.0, 30.0, 3, 5.0)
    logits = np.log(np.array([[0.5, 0.25, 0.25], [1e-9, 1.0, 1e-9]]))
    predictions, confidences = SCORINGS["value"].classifier_fn(logits, bins)
    np.testing.assert_allclose(predictions, [0.5 * 5 + 0.25 * 15 + 0.25 * 25, 15.0], rtol=1e-6)
    assert confidences is None


def test_training_values_that_are_all_equal_are_predicted():
    splits = linear_splits()
    splits["train"] = splits["train"]._replace(targets=np.full(60, 4.0))
    outcome, _ = evaluate_ridge(splits, penalties=(0.1,))
    assert outcome.test_predictions == pytest.approx(np.full(25, 4.0))
