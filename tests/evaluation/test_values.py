"""Ridge regression and k-NN of values: naive oracles, literal errors, and degenerate values."""

import math

import numpy as np
import pytest

from gensupcon_jax.evaluation.values import (
    FeaturesOfValues,
    evaluate_ridge,
    evaluate_value_neighbors,
    fit_of,
    neighbor_values,
)

RANDOM = np.random.default_rng(0)


def linear_splits(noise=0.0):
    """Features, and values that are a linear function of them, in years: 30 + 4 x the first - 2 x the second."""
    splits = {}
    for name, num in (("train", 60), ("validation", 20), ("test", 25)):
        features = RANDOM.normal(size=(num, 3)).astype(np.float32) * (1, 10, 0.1) + (5, 0, 0)
        values = 30 + 4 * features[:, 0] - 2 * features[:, 1] + noise * RANDOM.normal(size=num)
        splits[name] = FeaturesOfValues(features.astype(np.float32), values.astype(np.float32))
    return splits


def test_errors_are_in_the_unit_of_the_values():
    assert fit_of(np.array([31.0, 29.0]), np.array([30.0, 32.0])) == (2.0, 1 - 5.0 / 1.0)
    mean = np.full(3, 2.0)
    assert fit_of(mean, np.array([1.0, 2.0, 3.0])).r2 == 0.0
    assert math.isnan(fit_of(mean, mean).r2) and fit_of(mean, mean).mae == 0


def test_ridge_finds_a_linear_function_of_unscaled_features():
    splits = linear_splits()
    outcome, ridge = evaluate_ridge(splits, penalties=(1.0, 1e-9, 1e-2), step=7)
    assert outcome.setting == 1e-9 and outcome.test.r2 == pytest.approx(1, abs=1e-6) and outcome.test.mae < 1e-3
    np.testing.assert_allclose(ridge.weight, [4, -2, 0], atol=1e-4)
    assert ridge.bias == pytest.approx(30, abs=1e-3) and ridge.step == 7
    np.testing.assert_allclose(ridge.predict(splits["test"].features), outcome.test_predictions)


def test_ridge_solves_the_normal_equations():
    splits = linear_splits(noise=3.0)
    _, ridge = evaluate_ridge(splits, penalties=(0.3,))
    features, values = (part.astype(np.float64) for part in splits["train"])
    inputs = (features - features.mean(0)) / features.std(0)
    target = (values - values.mean()) / values.std()
    weight = np.linalg.solve(inputs.T @ inputs + 0.3 * len(inputs) * np.eye(3), inputs.T @ target)
    naive = values.mean() + values.std() * ((splits["test"].features - features.mean(0)) / features.std(0)) @ weight
    np.testing.assert_allclose(ridge.predict(splits["test"].features), naive, rtol=1e-5)


def test_neighbors_average_the_values_of_the_nearest_by_cosine():
    angles = np.array([0.0, 10.0, 80.0]) * np.pi / 180
    train = FeaturesOfValues(
        np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), np.array([1.0, 3.0, 100.0], np.float32)
    )
    query = np.array([[2.0, 0.0]], np.float32)
    weights = np.exp(np.cos(angles) / 0.5)
    found = neighbor_values(train, query, (1, 2, 3, 9), 0.5)
    assert found[1].tolist() == [1.0] and set(found) == {1, 2, 3}
    assert found[2][0] == pytest.approx((weights[0] + 3 * weights[1]) / (weights[0] + weights[1]), rel=1e-6)
    assert found[3][0] == pytest.approx(weights @ [1, 3, 100] / weights.sum(), rel=1e-6)


def test_the_number_of_neighbors_is_chosen_on_validation():
    splits = linear_splits(noise=1.0)
    outcome = evaluate_value_neighbors(splits, neighbors=(1, 5, 20), temperature=0.1)
    errors = {
        k: float(np.abs(predicted - splits["validation"].values).mean())
        for k, predicted in neighbor_values(splits["train"], splits["validation"].features, (1, 5, 20), 0.1).items()
    }
    assert outcome.setting == min(errors, key=errors.get) and outcome.validation.mae == pytest.approx(
        min(errors.values())
    )
    assert outcome.test == fit_of(outcome.test_predictions, splits["test"].values)


def test_training_values_that_are_all_equal_are_predicted():
    splits = linear_splits()
    splits["train"] = splits["train"]._replace(values=np.full(60, 4.0, np.float32))
    outcome, _ = evaluate_ridge(splits, penalties=(0.1,))
    assert outcome.test_predictions == pytest.approx(np.full(25, 4.0))


def test_without_a_validation_split_the_only_candidate_is_used():
    splits = linear_splits()
    expected = (
        evaluate_ridge(splits, penalties=(0.1,))[0],
        evaluate_value_neighbors(splits, neighbors=(5,), temperature=0.1),
    )
    del splits["validation"]
    found = (
        evaluate_ridge(splits, penalties=(0.1,))[0],
        evaluate_value_neighbors(splits, neighbors=(5,), temperature=0.1),
    )
    for one, other in zip(found, expected, strict=True):
        assert (one.setting, one.validation, one.test) == (other.setting, None, other.test)
