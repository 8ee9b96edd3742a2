"""Measures of frozen features: literal rankings, and one from outside that reaches metrics, results and report."""

import jax
import numpy as np
import pytest

from gensupcon_jax.evaluation import measures
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.run import train
from gensupcon_jax.store.metrics import read_metrics
from tests.tiny import tiny_config, tiny_dataset

# Directions at 0, 10, 25, 90 and 100 degrees; lengths do not matter to a cosine.
ANGLES = np.deg2rad([0, 10, 25, 90, 100])
VALUES = (np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * [[1], [5], [2], [9], [1]]).astype(np.float32)
SPLIT = Features(VALUES, np.array([0, 0, 1, 1, 1]))


def test_recall_at_1_is_the_share_whose_nearest_other_image_has_their_class():
    # Nearest: 0 -> 10, 10 -> 0, 25 -> 10 (another class), 90 -> 100, 100 -> 90.
    assert measures.recall_at_1(SPLIT) == 80.0


def test_recall_at_10_needs_one_image_of_the_class_among_the_ten_nearest():
    # On a circle, one image per degree: the nearest of image 0 are 1, 2, ...; its class is 10 or 11 places away.
    angles = np.deg2rad(np.arange(20.0))
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for place, found in ((10, True), (11, False)):
        classes = np.arange(20)
        classes[place] = 0
        # From the other side, image 0 is the 10th or 11th nearest too, or beyond: the nearer ones on both sides come first.
        assert measures.recall_at_10(Features(values, classes)) == pytest.approx(5.0 * found)
    assert measures.recall_at_10(SPLIT) == 100.0  # four others: all of them are looked at


def test_average_precision_by_hand():
    # Ranks of the images of the same class among the four others:
    # 0: 1 -> 1.  10: 1 -> 1.  25: 3, 4 -> (1/3 + 2/4) / 2.  90: 1, 2 -> 1.  100: 1, 2 -> 1.
    expected = 100 * (1 + 1 + (1 / 3 + 2 / 4) / 2 + 1 + 1) / 5
    assert measures.mean_average_precision(SPLIT) == pytest.approx(expected)


def test_an_image_alone_in_its_class_is_left_out():
    alone = Features(VALUES[:3], np.array([0, 0, 1]))
    assert measures.mean_average_precision(alone) == pytest.approx(100.0)
    assert measures.recall_at_1(alone) == pytest.approx(200 / 3)
    assert measures.mean_average_precision(Features(VALUES[:2], np.array([0, 1]))) == 0.0


def test_tiles_change_nothing(monkeypatch):
    names = tuple(measures.MEASURES)
    whole = measures.measured(names, SPLIT)
    monkeypatch.setattr(measures, "_TILE", 2)
    assert measures.measured(names, SPLIT) == whole
    assert names == ("recall_at_1", "recall_at_10", "mean_average_precision")


def test_mean_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    split = Features(rng.standard_normal((40, 6)).astype(np.float32), rng.integers(0, 3, 40))
    unit = split.values / np.linalg.norm(split.values, axis=1, keepdims=True)
    cosines, precisions = unit @ unit.T, []
    for query in range(40):
        others = np.arange(40) != query
        same = split.classes[others] == split.classes[query]
        precisions.append(average_precision_score(same, cosines[query, others]))
    assert measures.mean_average_precision(split) == pytest.approx(100 * np.mean(precisions))


@pytest.mark.slow
def test_a_measure_from_outside_reaches_metrics_results_and_report(tmp_path, monkeypatch):
    monkeypatch.setitem(measures.MEASURES, "num_of_class_0", lambda split: float((split.classes == 0).sum()))
    config = tiny_config(steps=3, **{"evaluate.measures": ("num_of_class_0", "recall_at_1")})
    rows = []
    results = train.train_and_evaluate(
        config, tmp_path, tiny_dataset(), devices=jax.devices()[:1], writers=(lambda step, row: rows.append(row),)
    )
    assert results["validation_measures"]["num_of_class_0"] == 4  # of 16 validation images of 4 classes
    assert results["measures"]["num_of_class_0"] == 8  # of 32 test images
    assert read_metrics(tmp_path)[-1]["measures/num_of_class_0"] == 4
    assert rows[-1]["measures/recall_at_1"] == results["validation_measures"]["recall_at_1"]
    page = (tmp_path / "report.html").read_text()
    assert "<td>num_of_class_0</td>" in page
    assert f'<td class="count">{results["measures"]["recall_at_1"]:.6g}</td>' in page


def test_numbers_of_one_bin_are_of_one_class():
    values = Features(VALUES, SPLIT.classes, np.array([0.1, 0.2, 1.1, 1.2, 1.3]))
    names = tuple(measures.MEASURES)
    assert measures.measured(names, values) == measures.measured(names, SPLIT)
