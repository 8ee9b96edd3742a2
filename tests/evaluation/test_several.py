"""Several labels per image: scores of each label against naive definitions, the one-vs-rest probe, k-NN of labels."""

import warnings

import numpy as np
import pytest

from gensupcon_jax.evaluation import kept_neighbors, kept_probe, measures, several
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.knn import knn_means
from gensupcon_jax.evaluation.outcome import Outcome
from gensupcon_jax.evaluation.scoring import best_neighbors, evaluate_knn

RNG = np.random.default_rng(3)


def naive_average_precision(scores, has):
    """The mean of the precision at each image that has the label; scores must differ."""
    ranked = has[np.argsort(-scores)]
    return np.mean([ranked[: place + 1].mean() for place in range(len(ranked)) if ranked[place]])


def naive_auc(scores, has):
    pairs = [(a > b) + (a == b) / 2 for a in scores[has] for b in scores[~has]]
    return np.mean(pairs)


def test_scores_of_each_label_agree_with_their_definitions():
    scores, rows = RNG.random((30, 4)), (RNG.random((30, 4)) < (0.1, 0.3, 0.5, 0.9)).astype(np.float32)
    for label, found in enumerate(several.label_scores(scores, rows)):
        has = rows[:, label] > 0
        assert found.images == has.sum()
        assert found.average_precision == pytest.approx(100 * naive_average_precision(scores[:, label], has))
        assert found.auc == pytest.approx(100 * naive_auc(scores[:, label], has))


def test_equal_scores_are_worth_the_share_of_the_images():
    (label,) = several.label_scores(np.zeros((4, 1)), np.array([[1], [0], [0], [0]]))
    assert label == several.LabelScores(1, pytest.approx(25.0), pytest.approx(50.0))


def test_a_label_that_no_image_or_every_image_has_is_left_out():
    rows = np.array([[1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.9, 0.2, 0.3], [0.1, 0.7, 0.6]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = several.label_scores(scores, rows)
        assert several.mean_label_precision(scores, rows) == 100.0
    assert found[1] == several.LabelScores(0, None, None)
    assert found[2] == several.LabelScores(2, 100.0, None)
    assert several.mean_label_precision(scores, np.zeros((2, 3))) == 0.0


def test_the_numbers_of_the_results_name_what_is_left_out():
    rows = np.array([[1, 0], [0, 0], [1, 0]])
    outcome = Outcome(5, 80.0, np.array([[0.9, 0.1], [0.5, 0.2], [0.4, 0.3]]))
    numbers = several.further_numbers({"knn": outcome}, rows)
    assert numbers == {
        "knn_macro_auc": 50.0,
        "per_label_average_precision": {"knn": [pytest.approx(100 * (1 + 2 / 3) / 2), None]},
        "per_label_auc": {"knn": [50.0, None]},
        "per_label_images": [2, 0],
        "num_labels_without_test_images": 1,
    }


def split(num, seed, labels=3):
    """Each label is a direction of the features."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((num, 5)).astype(np.float32)
    rows = (values[:, :labels] + 0.3 * rng.standard_normal((num, labels)) > 0.3).astype(np.float32)
    return Features(values, rows.argmax(1), rows)


def splits(**changes):
    return {"train": split(120, 0), "validation": split(60, 1), "test": split(60, 2)} | changes


def test_the_probe_of_a_label_is_a_logistic_regression_of_it_alone():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = splits()
    outcome, probe = several.evaluate_one_vs_rest(features, penalties=(0.01,), step=7)
    train, scaler = features["train"], StandardScaler().fit(features["train"].values)
    reference = LogisticRegression(C=1 / (0.01 * 120), max_iter=2000)
    for label in range(3):
        reference.fit(scaler.transform(train.values), train.rows[:, label])
        expected = reference.predict_proba(scaler.transform(features["test"].values))[:, 1]
        np.testing.assert_allclose(outcome.test_predictions[:, label], expected, atol=2e-3)
    assert (probe.step, probe.output) == (7, "sigmoid")
    assert several.mean_label_precision(outcome.test_predictions, features["test"].rows) > 90


def test_the_penalty_is_chosen_by_the_validation_map():
    outcome, _ = several.evaluate_one_vs_rest(splits(), penalties=(1e3, 0.01))
    assert outcome.setting == 0.01
    assert outcome.validation_score > 90


def test_a_label_of_all_or_no_training_images_gets_its_share():
    features = splits()
    rows = features["train"].rows.copy()
    rows[:, 0], rows[:, 1] = 0, 1
    outcome, _ = several.evaluate_one_vs_rest(
        features | {"train": features["train"]._replace(targets=rows)}, penalties=(0.1,)
    )
    np.testing.assert_allclose(outcome.test_predictions[:, 0], 0.5 / 121)
    np.testing.assert_allclose(outcome.test_predictions[:, 1], 120.5 / 121)


def test_one_label_only():
    features = {name: split(60, seed, labels=1) for seed, name in enumerate(("train", "validation", "test"))}
    outcome, _ = several.evaluate_one_vs_rest(features, penalties=(0.01,))
    assert outcome.test_predictions.shape == (60, 1)
    assert several.mean_label_precision(outcome.test_predictions, features["test"].rows) > 90


def test_neighbors_vote_for_each_label():
    train = Features(
        np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32), np.zeros(3, int), np.array([[1, 1], [1, 0], [0, 0]])
    )
    weights = np.exp(np.array([1.0, 0.8, 0.0]) / 0.5)
    votes = knn_means(train, np.array([[2.0, 0.0]], np.float32), neighbors=(1, 3, 50), temperature=0.5)
    assert set(votes) == {1, 3}
    np.testing.assert_allclose(votes[1], [[1, 1]])
    expected = [[(weights[0] + weights[1]) / weights.sum(), weights[0] / weights.sum()]]
    np.testing.assert_allclose(votes[3], expected, rtol=1e-5)


def test_k_is_chosen_by_the_validation_map():
    settings = {"neighbors": (1, 20), "temperature": 0.5, "num_classes": 3, "label_kind": "several"}
    best, score = best_neighbors(splits(), **settings)
    assert best == 20
    outcome = evaluate_knn(splits(), **settings)
    assert (outcome.setting, outcome.validation_score) == (20, score)
    assert outcome.test_predictions.shape == (60, 3)


def test_retrieval_counts_images_with_a_label_in_common():
    rows = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    found = Features(np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32), np.zeros(3, int), rows)
    assert measures.recall_at_1(found) == pytest.approx(100 * 2 / 3)


def test_probe_and_neighbors_are_kept_with_several_labels(tmp_path):
    features = splits()
    _, probe = several.evaluate_one_vs_rest(features, penalties=(0.1,), step=4)
    kept_probe.write_probe(tmp_path, [probe])
    test = features["test"].values
    again = kept_probe.read_probe(tmp_path, 4)
    np.testing.assert_array_equal(again.class_probabilities(test, 3), probe.class_probabilities(test, 3))
    neighbors = kept_neighbors.KeptNeighbors(features["train"], 5, 0.5, 4)
    kept_neighbors.write_neighbors(tmp_path, [neighbors])
    read = kept_neighbors.read_neighbors(tmp_path, 4)
    expected = knn_means(features["train"], test, neighbors=(5,), temperature=0.5)[5]
    np.testing.assert_allclose(read.class_probabilities(test, 3), expected, rtol=1e-6)
