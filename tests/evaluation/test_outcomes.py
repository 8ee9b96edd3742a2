"""k-NN and linear probe: literal neighbors, choices on validation, test used once."""

import jax
import numpy as np
import pytest

from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.datasets import digits, from_arrays
from gensupcon_jax.evaluation import features, final, knn, outcome, probe, scoring
from gensupcon_jax.evaluation.features import Features

# Directions at 0, 10, 90 and 100 degrees; lengths do not matter to a cosine.
ANGLES = np.deg2rad([0, 10, 90, 100])
STORED = Features(
    (np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * [[1], [5], [2], [9]]).astype(np.float32),
    np.array([0, 0, 1, 1]),
)
QUERIES = np.array([[1, 0.1], [0.1, 3], [1, 1.05]], np.float32)  # about 6, 88 and 46.4 degrees


def predictions(neighbors, temperature=0.07, **settings):
    return knn.knn_predictions(STORED, QUERIES, neighbors=neighbors, temperature=temperature, num_classes=2, **settings)


def test_the_nearest_direction_decides():
    assert predictions((1,))[1].tolist() == [0, 1, 0]


def test_all_neighbors_vote_with_weights():
    assert predictions((4,), temperature=1.0)[4].tolist() == [0, 1, 0]
    # At 46.4 degrees: cosines .69 .80 (class 0) and .72 .59 (class 1).
    assert predictions((3,), temperature=100.0)[3].tolist() == [0, 1, 0]


def test_a_tiny_temperature_is_the_nearest_neighbor():
    assert predictions((4,), temperature=1e-6)[4].tolist() == [0, 1, 0]


def test_queries_in_tiles_give_the_same():
    assert predictions((1, 3), query_tile=2)[3].tolist() == predictions((1, 3))[3].tolist()


def test_more_neighbors_than_images_are_left_out():
    assert set(predictions((1, 200))) == {1}
    assert set(predictions((200,))) == {4}


def test_knn_agrees_with_scikit_learn_on_digits():
    from sklearn.neighbors import KNeighborsClassifier

    found = features.pixel_features(digits())
    reference = KNeighborsClassifier(1, metric="cosine").fit(*found["train"][:2]).predict(found["test"].values)
    ours = knn.knn_predictions(found["train"], found["test"].values, neighbors=(1,), temperature=0.07, num_classes=10)[
        1
    ]
    assert (ours == reference).mean() > 0.995  # equal but for ties of rounding


def features_with(validation_classes):
    """Train: two clusters and one stray of class 1 inside cluster 0; validation next to the stray."""
    train = Features(
        np.array([[1, 0], [1, 0.01], [1, -0.01], [1, 0.02], [0, 1]], np.float32), np.array([0, 0, 0, 1, 1])
    )
    near_stray = Features(np.array([[1, 0.021]], np.float32), np.array(validation_classes))
    return {"train": train, "validation": near_stray, "test": near_stray}


@pytest.mark.parametrize(("validation_class", "expected"), [(1, 1), (0, 4)])
def test_the_number_of_neighbors_is_chosen_on_validation(validation_class, expected):
    result = scoring.evaluate_knn(features_with([validation_class]), neighbors=(4, 1), temperature=1.0, num_classes=2)
    assert result.setting == expected
    assert result.validation_score == 100
    assert result.test_predictions.tolist() == [validation_class]


def test_the_smallest_of_equally_good_numbers_is_chosen():
    assert scoring.best_neighbors(features_with([0]), neighbors=(4, 3), temperature=1.0, num_classes=2) == (3, 100.0)


def test_a_linear_probe_separates_what_is_linear():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((300, 5)).astype(np.float32)
    split = Features(values, (values @ [1, 2, 0, 0, -1] > 0).astype(int))
    result = probe.evaluate_linear({"train": split, "validation": split, "test": split}, penalties=(1.0, 1e-4)).outcome
    assert result.setting == 1e-4
    assert outcome.top1(result.test_predictions, split.classes) > 98


def test_of_equally_accurate_probes_the_most_likely_is_chosen():
    rng = np.random.default_rng(0)
    classes = np.arange(120) % 3
    values = (4 * np.eye(3)[classes] + 0.3 * rng.standard_normal((120, 3))).astype(np.float32)
    split = Features(values, classes)
    result = probe.evaluate_linear({"train": split, "validation": split, "test": split}, penalties=(1.0, 1e-3)).outcome
    assert (result.setting, result.validation_score) == (1e-3, 100.0)


def test_a_validation_class_without_training_images_counts_as_wrong():
    values = np.array([[0.0], [0.1], [1.0], [1.1]], np.float32)
    train, validation = Features(values, np.array([0, 0, 1, 1])), Features(values, np.array([0, 0, 1, 2]))
    result = probe.evaluate_linear({"train": train, "validation": validation, "test": train}, penalties=(0.01,)).outcome
    assert result.validation_score == 75.0


def test_top1_is_in_percent():
    assert outcome.top1(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 0])) == 75.0


def test_features_of_every_image_once_on_any_number_of_devices():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (45, 4, 4, 1), np.uint8)
    dataset = from_arrays(images, np.arange(45) % 3)
    for devices in (1, 8):
        extraction = {
            "batch_size": 16,
            "sharding": sharding.batch_sharding(sharding.make_mesh(jax.devices()[:devices])),
        }
        feature_fn = jax.jit(lambda batch: batch.reshape(len(batch), -1) * 1.0)
        found = features.dataset_features(feature_fn, dataset, ("train", "test"), **extraction)
        np.testing.assert_array_equal(found["train"].values, dataset.train.images.reshape(-1, 16))
        np.testing.assert_array_equal(found["test"].classes, dataset.test.labels.argmax(1))


def test_a_rare_class_counts_as_much_as_any_other_in_the_macro_average():
    classes, predictions = np.array([0] * 8 + [1, 1]), np.array([0] * 8 + [0, 1])
    assert outcome.top1(predictions, classes) == 90.0
    assert outcome.per_class_top1(predictions, classes, 3) == [100.0, 50.0, None]
    empty = Features(np.zeros((10, 2), np.float32), classes)
    of_knn = outcome.Outcome(5, 80.0, predictions)
    settings = {
        "linear": None,
        "raw_pixels": None,
        "classifier": None,
        "probe": None,
        "neighbors": None,
        "features": {},
    }
    evaluation = final.Evaluation(step=1, num_classes=3, knn=of_knn, test=empty, measures={}, **settings)
    numbers = final.numbers_of(evaluation)
    assert numbers["knn_macro_top1"] == 75.0
    assert numbers["per_class_top1"] == {"knn": [100.0, 50.0, None]}
