"""The predictions of a run for its test images, kept in its workdir: `predictions.npz`, from which runs are compared.

Arrays of the file (numpy's .npz, no pickle; a fingerprint of the content is checked):

    labels           int32 [image]     the most likely class of each test image; with several labels per image: rows of 0 and 1;
                                       where labels are numbers: float32
    names            bytes [image]     the file of each, below their common folder, or its record; of arrays its number
    images           text              fingerprint of the test images: runs with the same one have the same test images
    N/knn            int32 [image]     predicted classes with the network of step N; also N/linear, N/classifier,
                                       N/raw_pixel_knn, where the run has them; with several labels per image: float32
                                       [image, label], their probabilities; where labels are numbers: float32 [image]
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from gensupcon_jax.data.splits import AnySplit, Split
from gensupcon_jax.evaluation.outcome import Outcome
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.paths import Path
from gensupcon_jax.store.kept_arrays import read_kept, write_kept
from gensupcon_jax.store.workdir import PREDICTIONS
from gensupcon_jax.text import common_start

_KIND = "test predictions 1"


class KeptPredictions(NamedTuple):
    """The test images of a run, by name, class and fingerprint, and step -> predictor -> predicted classes."""

    names: list[str]
    labels: Shaped[np.ndarray, "image ..."]
    images: str
    predictions: dict[int, dict[str, Shaped[np.ndarray, "image ..."]]]


def predictions_to_keep(
    test: AnySplit, outcomes: dict[int, dict[str, Outcome]], label_kind: str = "class"
) -> KeptPredictions:
    """The test predictions of these outcomes: step -> predictor -> outcome."""
    predictions = {
        step: {name: np.asarray(outcome.test_predictions) for name, outcome in by_predictor.items()}
        for step, by_predictor in outcomes.items()
    }
    names = _names(test)
    labels = np.asarray(test.classes)
    if label_kind == "several":
        labels = test.labels_of(np.arange(test.num_images)).astype(np.int32)
    if label_kind == "value":
        labels = np.asarray(test.values, np.float32)
    return KeptPredictions(names, labels, fingerprint(_identity(test, names)), predictions)


def write_predictions(folder: Path, kept: KeptPredictions) -> Path | None:
    """Keep the predictions in the workdir; returns where a different `predictions.npz` that was there is now."""
    arrays = {"names": np.array([name.encode() for name in kept.names]), "labels": _stored(kept.labels)}
    arrays["images"] = np.array(kept.images)
    for step, by_predictor in kept.predictions.items():
        arrays |= {f"{step}/{name}": _stored(predicted) for name, predicted in by_predictor.items()}
    return write_kept(folder / PREDICTIONS, _KIND, arrays)


def _stored(predicted: Shaped[np.ndarray, "image ..."]) -> np.ndarray:
    return predicted.astype(np.float32 if predicted.dtype.kind == "f" else np.int32)


def read_predictions(folder: Path) -> KeptPredictions | None:
    """The kept predictions of a workdir, None if there are none; UserError for a file that is damaged or foreign."""
    arrays = read_kept(folder / PREDICTIONS, _KIND)
    if arrays is None:
        return None
    predictions: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        step, slash, predictor = name.partition("/")
        if slash:
            predictions.setdefault(int(step), {})[predictor] = array
    names = [name.decode() for name in arrays["names"].tolist()]
    return KeptPredictions(names, arrays["labels"], str(arrays["images"]), predictions)


def _names(test: AnySplit) -> list[str]:
    if isinstance(test, Split):
        return [str(index) for index in range(test.num_images)]
    names = [test.where(index) for index in range(test.num_images)]
    start = common_start(names).rfind("/") + 1
    return [name[start:] for name in names]


def _identity(test: AnySplit, names: list[str]) -> Iterator[str | memoryview]:
    """What makes two test splits the same: pixels and labels, or the names, classes and sizes of encoded images."""
    yield "\n".join(names)
    for array in test.content:
        yield str((array.shape, array.dtype.str))
        yield np.ascontiguousarray(array).data
