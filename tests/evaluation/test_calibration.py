"""The expected calibration error: literal bins, and a loop that follows the definition."""

import numpy as np
import pytest

from gensupcon_jax.evaluation.calibration import BINS, expected_calibration_error


def by_definition(probabilities, classes, bins):
    error = 0.0
    for number in range(1, bins + 1):
        rows = [row for row in range(len(classes)) if (number - 1) / bins < max(probabilities[row]) <= number / bins]
        if rows:
            accuracy = sum(int(np.argmax(probabilities[row])) == classes[row] for row in rows) / len(rows)
            confidence = sum(float(max(probabilities[row])) for row in rows) / len(rows)
            error += len(rows) / len(classes) * abs(accuracy - confidence)
    return 100 * error


def test_it_follows_the_definition():
    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((500, 4))
    probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    classes = np.where(rng.random(500) < 0.6, probabilities.argmax(1), rng.integers(0, 4, 500))
    for bins in (1, 3, BINS):
        found = expected_calibration_error(probabilities, classes, bins)
        assert found == pytest.approx(by_definition(probabilities, classes, bins), rel=1e-5)
    assert BINS == 15


def test_a_sure_and_right_classifier_has_none():
    sure = np.eye(3, dtype=np.float32)
    assert expected_calibration_error(sure, np.array([0, 1, 2])) == 0.0
    assert expected_calibration_error(sure, np.array([1, 2, 0])) == 100.0


def test_bins_keep_opposite_mistakes_apart():
    # Half of the images are surer than right by 0.4, half less sure than right by 0.4: the means alone would agree.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4, np.float32)
    classes = np.array([0, 0, 1, 1] + [0] * 4)
    assert expected_calibration_error(probabilities, classes) == pytest.approx(40.0, rel=1e-5)
    assert expected_calibration_error(probabilities, classes, bins=1) == pytest.approx(0.0, abs=1e-5)


def test_a_confidence_on_the_border_belongs_to_the_lower_bin():
    # 0.75 | 1: one bin of four each; together in one bin their errors would cancel.
    probabilities = np.array([[0.75, 0.25], [1.0, 0.0]], np.float32)
    assert expected_calibration_error(probabilities, np.array([0, 1]), bins=4) == pytest.approx(100 * (0.25 + 1) / 2)
