"""The similarity of classes that a config names: read from a file, checked, made semidefinite."""

import jax
import numpy as np
import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.losses import label_similarity
from gensupcon_jax.run import train
from gensupcon_jax.run.class_similarity import label_similarity_of, read_matrix
from tests.tiny import tiny_config, tiny_dataset

GOOD = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]


def written(folder, matrix, name="classes.csv"):
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, np.asarray(matrix))
    else:
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in matrix))
    return str(path)


@pytest.mark.parametrize("name", ["classes.csv", "classes.npy"])
def test_a_matrix_of_numbers(tmp_path, name):
    matrix, changed = read_matrix(written(tmp_path, GOOD, name), 3)
    np.testing.assert_array_equal(matrix, GOOD)
    assert changed == 0


def test_classes_of_one_group_are_half_as_similar(tmp_path):
    file = written(tmp_path, [["cat", "animal"], ["dog", "animal"], ["car", "vehicle"]])
    matrix, _ = read_matrix(file, 3)
    np.testing.assert_array_equal(matrix, GOOD)


def test_the_coarse_classes_of_cifar100():
    matrix, changed = read_matrix("cifar100_classes", 100)
    assert changed == 0
    np.testing.assert_array_equal(matrix.sum(axis=1), 1 + 4 * 0.5)  # itself, and 4 others of its 5
    apple, mushroom, beaver = 0, 51, 4  # numbers of the data set: names in alphabetical order
    assert (matrix[apple, mushroom], matrix[apple, beaver]) == (0.5, 0.0)


def test_a_matrix_that_is_nearly_semidefinite_is_replaced_by_the_nearest_that_is(tmp_path):
    matrix = np.array(GOOD)
    matrix[0, 2] = matrix[2, 0] = 0.9  # with 0.5 and 0 in its row: the lowest eigenvalue is -0.03
    similarity, said = label_similarity_of("matrix:" + written(tmp_path, matrix), 3)
    assert said.startswith(
        "loss.label_similarity: the matrix is not positive semidefinite; the nearest that is, is used"
    )
    nearest, changed = read_matrix(written(tmp_path, matrix), 3)
    assert 0 < changed < 0.05
    assert np.linalg.eigvalsh(nearest)[0] > -1e-5 and nearest.min() >= 0
    np.testing.assert_allclose(nearest, nearest.T, atol=1e-12)
    length = np.sqrt(np.diag(nearest))
    of_classes = label_similarity(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), name=similarity)
    np.testing.assert_allclose(of_classes, nearest / length[:, None] / length, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], r"has 2 x 2 numbers; allowed: 3 x 3, one row per class"),
        ([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 1]], r"has the entry -0.5; allowed: numbers from 0"),
        ([[1, 0.5, 0], [0.25, 1, 0], [0, 0, 1]], r"is not symmetric: entries differ .* by up to 0.25"),
        (
            [[1, 1, 0], [1, 1, 1], [0, 1, 1]],
            r"not positive semidefinite: its lowest eigenvalue is -0.4142, and the",
        ),
        ([[0, 0, 0], [0, 1, 0], [0, 0, 1]], r"has 0 on its diagonal"),
        ([["nan", 0, 0], [0, 1, 0], [0, 0, 1]], r"has values that are not finite"),
        (
            [["one", 0, 0], [0, 1, 0], [0, 0, 1]],
            r"cannot be read \(.*\); allowed: .npy, or .csv with a row of numbers per class",
        ),
    ],
)
def test_other_matrices_are_refused_with_the_reason(tmp_path, matrix, words):
    with pytest.raises(UserError, match=r"^loss.label_similarity: .*" + words):
        label_similarity_of("matrix:" + written(tmp_path, matrix), 3)


def test_a_file_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match=r"loss.label_similarity is 'matrix:nowhere.npy', which is not a file"):
        label_similarity_of("matrix:nowhere.npy", 3)
    (tmp_path / "x.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match=r"x.npy cannot be read"):
        label_similarity_of(f"matrix:{tmp_path / 'x.npy'}", 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jaccard", "matrix"])
def test_a_run_with_it(tmp_path, kind):
    file = written(tmp_path, np.kron(np.eye(2), [[1, 0.5], [0.5, 1]]))
    name = {"jaccard": "jaccard", "matrix": f"matrix:{file}"}[kind]
    config = tiny_config(**{"loss.label_similarity": name, "steps": 2})
    results = train.train_and_evaluate(config, tmp_path / "run", tiny_dataset(), devices=jax.devices()[:2])
    assert results["steps"] == 2
    assert results["chance_loss"] > 0
