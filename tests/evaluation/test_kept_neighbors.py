"""What is kept for a weighted k-NN: literal votes, and the predictions of the evaluation itself."""

import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation import kept_neighbors
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.kept_neighbors import KeptNeighbors, read_neighbors, write_neighbors
from gensupcon_jax.evaluation.knn import knn_predictions

STORED = Features(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), np.array([0, 2, 2]))


def test_literal_votes():
    # Cosines of (1, 0): 1, 0 and 0.6. With temperature 0.4 / log 2 a neighbor at 0.6 has half the vote of one at 1.
    kept = KeptNeighbors(STORED, neighbors=2, temperature=0.4 / np.log(2), step=5)
    found = kept.class_probabilities(np.array([[3, 0]], np.float32), 4)
    np.testing.assert_allclose(found, [[2 / 3, 0, 1 / 3, 0]], atol=1e-6)
    assert kept.class_probabilities(np.zeros((0, 2), np.float32), 4).shape == (0, 4)


def test_the_most_likely_class_is_the_prediction_of_the_evaluation():
    rng = np.random.default_rng(0)
    train = Features(rng.standard_normal((40, 5)).astype(np.float32), np.arange(40) % 3)
    queries = rng.standard_normal((1100, 5)).astype(np.float32)  # more than a tile
    kept = KeptNeighbors(train, 7, 0.07, step=1)
    expected = knn_predictions(train, queries, neighbors=(7,), temperature=0.07, num_classes=3)[7]
    assert kept.class_probabilities(queries, 3).argmax(1).tolist() == expected.tolist()


def test_kept_neighbors_are_read_back(tmp_path):
    kept = [KeptNeighbors(STORED, 2, 0.07, step=5), KeptNeighbors(STORED, 3, 0.07, step=6)]
    write_neighbors(tmp_path, kept)
    found = read_neighbors(tmp_path, 6)
    np.testing.assert_array_equal(found.train.values, STORED.values)
    np.testing.assert_array_equal(found.train.classes, STORED.classes)
    assert found[1:] == (3, 0.07, 6)
    assert read_neighbors(tmp_path, 7) is None
    (tmp_path / "neighbors.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="is not the 'nearest neighbors 1' that a run has kept"):
        read_neighbors(tmp_path, 5)


def test_too_many_features_are_not_kept(monkeypatch):
    monkeypatch.setattr(kept_neighbors, "MOST_BYTES", 24)
    assert kept_neighbors.fits(STORED)
    assert not kept_neighbors.fits(Features(np.zeros((7, 1), np.float32), np.zeros(7, int)))
