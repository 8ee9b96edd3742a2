"""The similarity of labels that a config names; a matrix of classes is read from a file and checked."""

import numpy as np
from jaxtyping import Float

from gensupcon_jax import configs
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import brief
from gensupcon_jax.numpy_files import load_arrays
from gensupcon_jax.paths import Path, as_path, failures
from gensupcon_jax.similarities import Similarity, of_classes
from gensupcon_jax.text import reason

MATRIX = "matrix:<file>"
_PREFIX = MATRIX.partition("<")[0]
_FIELD = "loss.label_similarity"
_ROUNDING = 1e-5  # of an entry of the matrix: written with 5 digits it is still symmetric and semidefinite
_NEAREST = 0.05  # the nearest semidefinite matrix is taken if no entry differs from the given one by more than this
_ITERATIONS = 200
_OF_GROUP = 0.5  # similarity of two classes of one group


def label_similarity_of(name: str, num_classes: int) -> tuple[str | Similarity, str]:
    """The similarity for `losses`, and a sentence for the log, which is empty where there is nothing to say.

    name: of `similarities.LABEL_SIMILARITIES`, or matrix:<file>. Raises UserError, with the field, for a file that cannot be
    read, and for a matrix of another size, with negative entries, not symmetric, or far from semidefinite.
    """
    if not name.startswith(_PREFIX):
        return name, ""
    matrix, changed = read_matrix(name.removeprefix(_PREFIX), num_classes)
    said = f"{_FIELD}: the matrix is not positive semidefinite; the nearest that is, is used: entries differ by up to "
    return of_classes(matrix), f"{said}{changed:.4f}" if changed else ""


def read_matrix(file: str, num_classes: int) -> tuple[Float[np.ndarray, "class class"], float]:
    """The similarity of classes in a file, made positive semidefinite, and the largest change of an entry that this took.

    file: .npy, or .csv with a row of numbers per class; or .csv with the columns class and group, one line per class in the
    order of the class numbers: 1 on the diagonal, 0.5 for two classes of one group, 0 otherwise. A bare name is a file of the
    package's recipes, such as cifar100_classes.
    """
    path = _find(file)
    matrix = _read(path)
    if matrix.shape != (num_classes, num_classes):
        found = " x ".join(map(str, matrix.shape))
        raise UserError(
            f"{_FIELD}: {path} has {found} numbers; allowed: {num_classes} x {num_classes}, one row per class"
        )
    if not np.isfinite(matrix).all():
        raise UserError(f"{_FIELD}: {path} has values that are not finite; allowed: numbers from 0")
    if matrix.min() < 0:
        raise UserError(f"{_FIELD}: {path} has the entry {matrix.min():g}; allowed: numbers from 0")
    difference = float(np.abs(matrix - matrix.T).max())
    largest = float(matrix.max())
    if difference > _ROUNDING * largest:
        raise UserError(
            f"{_FIELD}: {path} is not symmetric: entries differ from those across the diagonal by up to {difference:g}; "
            "allowed: a symmetric matrix, such as (matrix + matrix.T) / 2"
        )
    if (np.diag(matrix) <= 0).any():
        raise UserError(
            f"{_FIELD}: {path} has 0 on its diagonal; allowed: a similarity of each class to itself above 0"
        )
    symmetric = (matrix + matrix.T) / 2
    lowest = float(np.linalg.eigvalsh(symmetric)[0])
    if lowest >= -_ROUNDING * largest:
        return symmetric, 0.0
    nearest = _nearest_semidefinite(symmetric)
    changed = float(np.abs(nearest - symmetric).max())
    if changed > _NEAREST * largest:
        raise UserError(
            f"{_FIELD}: {path} is not positive semidefinite: its lowest eigenvalue is {lowest:.4g}, and the nearest matrix that "
            f"is differs from it by up to {changed:.4g} (allowed: {_NEAREST * largest:.4g}); choose inner products of vectors "
            "of the classes, for example"
        )
    return nearest, changed


def _nearest_semidefinite(matrix: np.ndarray) -> np.ndarray:
    """Alternating projections onto semidefinite matrices and onto entries >= 0, with Dykstra's correction (Higham 2002)."""
    current, correction = matrix, np.zeros_like(matrix)
    for _ in range(_ITERATIONS):
        values, vectors = np.linalg.eigh(current - correction)
        semidefinite = (vectors * np.maximum(values, 0)) @ vectors.T
        correction = semidefinite - (current - correction)
        following = np.maximum(semidefinite, 0)
        if np.abs(following - current).max() < 1e-7:
            break
        current = following
    return following


def _find(file: str) -> Path:
    path = as_path(file)
    packaged = as_path(next(iter(configs.__path__))) / f"{file}.csv"
    if not path.exists() and "/" not in file and packaged.is_file():
        return packaged
    if not path.is_file():
        raise UserError(f"{_FIELD} is 'matrix:{file}', which is not a file; allowed: a .npy or .csv file")
    return path


def _read(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return np.asarray(load_arrays(file), np.float64)
        rows = [line.split(",") for line in path.read_bytes().decode().splitlines() if line.strip()]
        if all(len(row) == 2 for row in rows) and len(rows) != 2:
            groups = np.array([group.strip() for _, group in rows])
            return _OF_GROUP * np.eye(len(rows)) + _OF_GROUP * (groups[:, None] == groups)
        return np.array([[float(entry) for entry in row] for row in rows])
    except (*failures(), ValueError, TypeError) as error:
        refuse_lost(error, path)
        raise UserError(
            f"{_FIELD}: {path} cannot be read ({brief(reason(error))}); allowed: .npy, or .csv with a row of numbers per "
            "class, or with the columns class and group"
        ) from error
