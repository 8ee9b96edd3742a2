"""Measures of a trained run beside its accuracy: calibration, robustness to corrupted images, distance to unseen classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.evaluation.calibration import expected_calibration_error
from gensupcon_jax.inference.encoder import Encoder

_BATCH = 500
_SEEN_CLASSES = 8


def _noise(images: np.ndarray) -> np.ndarray:
    """Gaussian noise with a standard deviation of 38 gray levels (0.15)."""
    return images + np.random.default_rng(0).normal(0.0, 38.0, images.shape)


def _blur(images: np.ndarray) -> np.ndarray:
    """The mean of 3 x 3 pixels, twice."""
    for _ in range(2):
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        height, width = images.shape[1:3]
        images = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9.0
    return images


def _occlusion(images: np.ndarray) -> np.ndarray:
    """A black square of half the side, at a place drawn for each image."""
    images, side = images.copy(), images.shape[1] // 2
    for image, (top, left) in zip(
        images, np.random.default_rng(0).integers(0, images.shape[1] - side + 1, (len(images), 2)), strict=True
    ):
        image[top : top + side, left : left + side] = 0
    return images


def _contrast(images: np.ndarray) -> np.ndarray:
    """A quarter of the contrast, around each image's mean."""
    mean = images.mean((1, 2, 3), keepdims=True)
    return mean + (images - mean) / 4.0


_CORRUPTIONS = {"noise": _noise, "blur": _blur, "occlusion": _occlusion, "contrast": _contrast}


def corrupted(kind: str, images: np.ndarray) -> np.ndarray:
    """The uint8 images after a corruption, a name of `_CORRUPTIONS`."""
    changed = _CORRUPTIONS[kind](images.astype(np.float32))
    return np.clip(np.round(changed), 0, 255).astype(np.uint8)


def _accuracy_under(kind: str) -> Callable[[Encoder, Dataset], float]:
    def measure(encoder: Encoder, dataset: Dataset) -> float:
        found = encoder.predict(corrupted(kind, dataset.test.images), batch_size=_BATCH)
        return 100.0 * float((found.probabilities.argmax(1) == dataset.test.classes).mean())

    return measure


def _calibration(encoder: Encoder, dataset: Dataset) -> float:
    found = encoder.predict(dataset.test.images, batch_size=_BATCH)
    return expected_calibration_error(found.probabilities, dataset.test.classes)


def auroc_of_unseen(train: np.ndarray, test: np.ndarray, is_unseen: np.ndarray) -> float:
    """How well the distance to the nearest training image tells unseen classes: 50 is chance, 100 perfect.

    train [image, feature], test [image, feature]: features.  is_unseen [image]: of the test images.
    """
    train, test = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (train, test))
    nearest = np.concatenate([(part @ train.T).max(1) for part in np.array_split(test, max(1, len(test) // 1000))])
    return 100.0 * float(roc_auc_score(is_unseen, -nearest))


def _unseen(encoder: Encoder, dataset: Dataset) -> float:
    features = [encoder.embed(split.images, batch_size=_BATCH) for split in (dataset.train, dataset.test)]
    return auroc_of_unseen(*features, dataset.test.classes >= _SEEN_CLASSES)


# name in the `measures` of a plan -> (encoder, data set of the run) -> number in percent
MEASURES: dict[str, Callable[[Encoder, Dataset], float]] = {
    "calibration_error": _calibration,
    **{f"under_{kind}": _accuracy_under(kind) for kind in _CORRUPTIONS},
    "unseen_auroc": _unseen,
}
LOWER_IS_BETTER = ("calibration_error",)


def measured(names: list[str], workdir: Path, dataset: Dataset) -> dict[str, float]:
    """The measures of this table among the names, of the run in a workdir."""
    mine = [name for name in names if name in MEASURES]
    if not mine:
        return {}
    encoder = Encoder.load(workdir)
    return {name: round(MEASURES[name](encoder, dataset), 3) for name in mine}
