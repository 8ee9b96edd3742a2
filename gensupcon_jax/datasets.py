"""Labelled images in memory: the embedded digits, or anyone's arrays, checked and split."""

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num, UInt8

from gensupcon_jax.errors import UserError

_SPLIT_SEED = 0  # of the cuts, not of the run: every run sees the same validation and test images
_SUM_TOLERANCE = 1e-3


class Split(NamedTuple):
    """Images and the label distribution of each."""

    images: UInt8[np.ndarray, "example height width channel"]
    labels: Float[np.ndarray, "example class"]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Train, validation and test split with the names of the classes (ours)."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width of an image, in pixels."""
        return self.train.images.shape[1]

    @property
    def num_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train.images.shape[-1]

    def description(self) -> dict:
        """What identifies the data, for `dataset.json`: names, sizes, statistics, and a fingerprint of all bytes."""
        mean, std = channel_statistics(self.train.images)
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "num_train": len(self.train.images),
            "num_validation": len(self.validation.images),
            "num_test": len(self.test.images),
            "image_shape": list(self.train.images.shape[1:]),
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "fingerprint": _fingerprint(self.train, self.validation, self.test),
        }


def load(name: str) -> Dataset:
    """The data set of `dataset.name`; UserError for an unknown name (ours)."""
    if name == "digits":
        return digits()
    if name == "arrays":
        raise UserError(
            "dataset.name is 'arrays' but no arrays were handed over; "
            "call train_and_evaluate(config, workdir, dataset=from_arrays(images, labels)) from Python"
        )
    raise UserError(f"dataset.name is {name!r}; allowed: digits, arrays (from Python)")


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey, cut into 1,077 / 180 / 540 by class (ours)."""
    from sklearn.datasets import load_digits  # here and below: 2 seconds that a wrong setting need not wait for

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)
    return from_arrays(images, raw.target, name="digits", validation_fraction=180 / 1797, test_fraction=540 / 1797)


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    validation: tuple | None = None,
    test: tuple | None = None,
    class_names: tuple[str, ...] | list[str] | None = None,
    name: str = "arrays",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
) -> Dataset:
    """A data set from arrays; splits that are not given as (images, labels) are cut from it, stratified and fixed (ours).

    images: [example, height, width, channel], uint8 in 0..255 or float in 0..1; square; grey ones may lack the channel.
    labels: [example] class numbers from 0, or [example, class] distributions.
    Raises UserError for arrays of different length, values out of range, labels that are no distribution.
    """
    given = {"train": (images, labels), "validation": validation, "test": test}
    num_classes = _num_classes([pair[1] for pair in given.values() if pair is not None], class_names)
    splits = {key: _split(key, pair[0], pair[1], num_classes) for key, pair in given.items() if pair is not None}
    for key, fraction in (("test", test_fraction), ("validation", validation_fraction)):
        if key not in splits:
            # Fractions are of what was handed over, also when the test images were already taken out of it.
            splits["train"], splits[key] = _cut(splits["train"], round(fraction * len(images)), key)
    shapes = {split.images.shape[1:] for split in splits.values()}
    if len(shapes) > 1:
        raise UserError(f"the splits' images have shapes {sorted(shapes)}; allowed: one shape for all of them")
    names = tuple(class_names) if class_names is not None else tuple(str(index) for index in range(num_classes))
    return Dataset(name, splits["train"], splits["validation"], splits["test"], names)


def channel_statistics(
    images: UInt8[np.ndarray, "example height width channel"],
) -> tuple[Float[np.ndarray, "channel"], Float[np.ndarray, "channel"]]:
    """Mean and standard deviation of each channel over all pixels, on the scale 0..1 (ours).

    Sums over the 256 grey values are exact and need no float copy of the images.
    """
    values = np.arange(256) / 255
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = shares @ values**2 - mean**2
    # A channel without any contrast would divide by zero; 1 leaves it at zero after the mean is taken off.
    std = np.where(variance > 1e-12, np.sqrt(np.maximum(variance, 0)), 1.0)
    return mean.astype(np.float32), std.astype(np.float32)


def label_distributions(labels: Num[np.ndarray, "example *class"], num_classes: int, where: str) -> np.ndarray:
    """Label distributions, float32 [example, class], from class numbers or distributions; UserError otherwise (ours)."""
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return np.eye(num_classes, dtype=np.float32)[_class_numbers(labels, num_classes, where)]
    if labels.ndim != 2 or labels.shape[1] != num_classes:
        raise UserError(
            f"{where} labels have shape {labels.shape}; "
            f"allowed: [example] class numbers or [example, {num_classes}] distributions"
        )
    labels = labels.astype(np.float32)
    wrong = ~np.isfinite(labels).all(1) | (labels < 0).any(1) | (np.abs(labels.sum(1) - 1) > _SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{where} labels are no distribution in {int(wrong.sum())} of {len(labels)} rows, first in row {row} "
            f"(sum {labels[row].sum():.4g}, smallest {labels[row].min():.4g}); allowed: entries >= 0 that sum to 1"
        )
    return labels


def _class_numbers(labels: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where} labels are {labels.dtype} class numbers; allowed: integers from 0, or distributions")
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise UserError(
            f"{where} labels lie in {labels.min()}..{labels.max()}; allowed: 0..{num_classes - 1} "
            f"({num_classes} classes; see class_names)"
        )
    return labels


def _num_classes(all_labels: list, class_names) -> int:
    if class_names is not None:
        return len(class_names)
    labels = [np.asarray(labels) for labels in all_labels]
    if labels[0].ndim == 2:
        return labels[0].shape[1]
    return max((int(part.max()) + 1 for part in labels if part.size), default=0)


def _split(where: str, images, labels, num_classes: int) -> Split:
    images, labels = np.asarray(images), np.asarray(labels)
    if len(images) != len(labels):
        raise UserError(f"{where} has {len(images)} images and {len(labels)} labels; allowed: one label for each image")
    if len(images) == 0 or num_classes < 2:
        raise UserError(f"{where} has {len(images)} images of {num_classes} classes; allowed: 1 or more of 2 or more")
    return Split(_uint8_images(images, where), label_distributions(labels, num_classes, where))


def _uint8_images(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] not in (1, 3):
        raise UserError(
            f"{where} images have shape {images.shape}; "
            "allowed: [example, size, size], or [example, size, size, channel] with 1 or 3 channels"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"{where} images are {images.dtype}; allowed: uint8 in 0..255, or float in 0..1")
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise UserError(f"{where} images lie in {images.min():.4g}..{images.max():.4g}; float ones must lie in 0..1")
    return np.round(images * 255).astype(np.uint8)


def _cut(split: Split, size: int, where: str) -> tuple[Split, Split]:
    from sklearn.model_selection import train_test_split

    classes = split.labels.argmax(1)
    try:
        rest, part = train_test_split(
            np.arange(len(classes)), test_size=size, stratify=classes, random_state=_SPLIT_SEED
        )
    except ValueError as error:  # too few images of a class for a stratified cut
        raise UserError(
            f"{size} of {len(classes)} images cannot be cut off for {where} ({error}); hand over {where}=(images, labels)"
        ) from error
    rest, part = np.sort(rest), np.sort(part)
    return Split(split.images[rest], split.labels[rest]), Split(split.images[part], split.labels[part])


def _fingerprint(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for array in split:
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
