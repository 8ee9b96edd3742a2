"""The search for neighbors against a naive one."""

import numpy as np
import pytest

from gensupcon_jax.report import nearest
from gensupcon_jax.report.nearest import drawn, nearest_images, top_columns, unit_rows


def naive(features, stored, count):
    cosines = unit_rows(features) @ unit_rows(features if stored is None else stored).T
    if stored is None:
        np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(cosines, order, 1)


def clusters(count, dim, seed):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(9).normal(size=(10, dim))
    return (centers[random.integers(0, 10, count)] + 0.5 * random.normal(size=(count, dim))).astype(np.float32)


@pytest.mark.parametrize(("queries", "stored", "dim"), [(700, None, 16), (300, 2000, 48), (1, 1, 4), (5, 3, 200)])
def test_neighbors_are_those_of_a_naive_search(queries, stored, dim):
    features = clusters(queries, dim, 0)
    others = None if stored is None else clusters(stored, dim, 1)
    found = nearest_images(features, others, 10)
    expected, cosines = naive(features, others, found.stored.shape[1])
    np.testing.assert_array_equal(found.queries, np.arange(queries))
    np.testing.assert_array_equal(found.stored, expected)
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-5)


def test_wide_features_keep_nearly_all_their_neighbors():
    features = clusters(1500, 400, 0)
    found = nearest_images(features, None, 10).stored
    expected, _ = naive(features, None, 10)
    kept = np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(found, expected, strict=True)])
    assert kept > 0.75  # noise in all 400 directions is the worst case
    assert np.mean(found[:, 0] == expected[:, 0]) > 0.85


def test_an_image_is_not_its_own_neighbor_but_its_copy_is():
    features = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    np.testing.assert_array_equal(nearest_images(features, None, 1).stored[[1, 3], 0], [3, 1])


def test_one_image_has_no_neighbors():
    assert nearest_images(np.ones((1, 2), np.float32), None, 10).stored.shape == (1, 0)


def test_the_largest_columns_of_many():
    scores = np.random.default_rng(0).normal(size=(7, 5024)).astype(np.float32)
    np.testing.assert_array_equal(top_columns(scores, 20), np.sort(np.argsort(-scores, 1)[:, :20], 1))


def test_large_splits_are_drawn_within_the_bound(monkeypatch):
    assert [len(part) for part in drawn(10_000, 50_000)] == [10_000, 50_000]
    queries, stored = drawn(50_000, 50_000)
    assert (len(queries), len(stored)) == (50_000, 10_000)
    queries, stored = drawn(1_281_167, 1_281_167)
    assert (len(queries), len(stored)) == (50_000, 10_000)
    assert (np.diff(stored) > 0).all() and stored.max() < 1_281_167
    monkeypatch.setattr(nearest, "MOST_PAIRS", 200)
    monkeypatch.setattr(nearest, "FEWEST_STORED", 20)
    features = clusters(100, 8, 0)
    found = nearest_images(features, None, 3)
    assert found.stored.shape == (10, 3) and len(np.unique(found.stored)) <= 20
    assert (found.stored != found.queries[:, None]).all()
