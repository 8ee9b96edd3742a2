"""The two kinds of splits: arrays in memory, or encoded images that are read when needed."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped, UInt8

NO_CLASS = "no label"  # the only name of a class where no image has a label


class Split(NamedTuple):
    """Images of one size in memory, and their labels.

    labels: a distribution for each image, or a row of zeros where it has no label.  values: the numbers that distributions over
    bins stand for; None: labels are classes.
    """

    images: UInt8[np.ndarray, "example height width channel"]
    labels: Float[np.ndarray, "example class"]
    values: Float[np.ndarray, "example"] | None = None

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.labels.shape[1]

    @property
    def classes(self) -> Int[np.ndarray, "example"]:
        """The most likely class of each image; -1 for an image without a label."""
        return np.where(self.is_labeled, self.labels.argmax(1), -1)

    @property
    def is_labeled(self) -> Bool[np.ndarray, "example"]:
        """Whether each image has a label."""
        return np.asarray(self.labels.any(axis=1))

    @property
    def class_shares(self) -> Float[np.ndarray, "class"]:
        """The share of each class in all labels."""
        return _shares(self.labels.sum(0, dtype=np.float64))

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """What makes two splits the same."""
        return _present(self.images, self.labels, self.values)

    def labels_of(self, indices: Int[np.ndarray, "some"]) -> Float[np.ndarray, "some class"]:
        """Label distributions of these images."""
        return self.labels[indices]

    def without_labels(self, unlabeled: Bool[np.ndarray, "example"]) -> "Split":
        """The same images, of which these have no label."""
        return self._replace(labels=np.where(unlabeled[:, None], 0.0, self.labels).astype(self.labels.dtype))

    def subset(self, indices: Int[np.ndarray, "some"]) -> "Split":
        """Only these images, in this order."""
        return Split(self.images[indices], self.labels[indices], _rows_of(self.values, indices))


class Headers(NamedTuple):
    """The headers of encoded images.

    sizes [example, 2]: height and width of the upright image; 0 where it cannot be decoded. orientations [example]: EXIF
    orientation of the stored pixels, 1..8; 1 is upright. formats [example]: index in `image_formats.FORMATS`. plain_jpeg
    [example]: a JPEG that can be decoded at a smaller scale. gray [example]: one channel.
    """

    sizes: Int[np.ndarray, "example height_width=2"]
    orientations: Int[np.ndarray, "example"]
    formats: Int[np.ndarray, "example"]
    plain_jpeg: np.ndarray
    gray: np.ndarray

    def subset(self, indices: Int[np.ndarray, "some"]) -> "Headers":
        """The headers of these images."""
        return Headers(*(field[indices] for field in self))


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """Encoded images that are read one by one, and their headers.

    sources_fn: stored numbers [some] -> the encoded bytes of each, or its path where `are_paths`.  where_fn: stored number
    -> name of the image in messages.  numbers: stored number of each image of the split.  classes: -1 without a label.
    image_size, num_channels: of the input of the network.  center_share: share of the shorter side that the center crop for
    evaluation keeps.  rows, values: labels that are not one class each, as in `Split`.
    """

    sources_fn: Callable[[Int[np.ndarray, "some"]], list[bytes]]
    where_fn: Callable[[int], str]
    are_paths: bool
    numbers: Int[np.ndarray, "example"]
    classes: Int[np.ndarray, "example"]
    headers: Headers
    num_classes: int
    image_size: int = 224
    num_channels: int = 3
    center_share: float | int = 0.875
    num_threads: int | None = None
    rows: Float[np.ndarray, "example class"] | None = None
    values: Float[np.ndarray, "example"] | None = None

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.numbers)

    @property
    def class_shares(self) -> Float[np.ndarray, "class"]:
        """The share of each class in all labels."""
        if self.rows is not None:
            return _shares(self.rows.sum(0, dtype=np.float64))
        return _shares(np.bincount(self.classes[self.is_labeled], minlength=self.num_classes))

    @property
    def is_labeled(self) -> Bool[np.ndarray, "example"]:
        """Whether each image has a label."""
        return np.asarray(self.classes >= 0 if self.rows is None else self.rows.any(axis=1))

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """What makes two splits of images with the same names the same."""
        return _present(self.classes, self.headers.sizes, self.rows, self.values)

    def sources(self, indices: Int[np.ndarray, "some"]) -> list[bytes]:
        """Encoded bytes, or paths, of these images."""
        return self.sources_fn(self.numbers[indices])

    def where(self, index: int) -> str:
        """The name of this image in messages: its path, or its record."""
        return self.where_fn(int(self.numbers[index]))

    def labels_of(self, indices: Int[np.ndarray, "some"]) -> Float[np.ndarray, "some class"]:
        """The labels of these images, as in `Split`."""
        return one_hot(self.classes[indices], self.num_classes) if self.rows is None else self.rows[indices]

    def without_labels(self, unlabeled: Bool[np.ndarray, "example"]) -> "EncodedSplit":
        """The same images, of which these have no label."""
        rows = None if self.rows is None else np.where(unlabeled[:, None], 0.0, self.rows).astype(self.rows.dtype)
        return dataclasses.replace(self, classes=np.where(unlabeled, -1, self.classes), rows=rows)

    def subset(self, indices: Int[np.ndarray, "some"]) -> "EncodedSplit":
        """Only these images, in this order."""
        return dataclasses.replace(
            self,
            numbers=self.numbers[indices],
            classes=self.classes[indices],
            headers=self.headers.subset(indices),
            rows=_rows_of(self.rows, indices),
            values=_rows_of(self.values, indices),
        )


AnySplit = Split | EncodedSplit


def one_hot(classes: Integer[np.ndarray, "example"], num_classes: int) -> Float[np.ndarray, "example class"]:
    """One row per image, 1 at its class; zeros for the class -1, which stands for no label."""
    distributions = np.zeros((len(classes), num_classes), np.float32)
    labeled = np.flatnonzero(classes >= 0)
    distributions[labeled, classes[labeled]] = 1
    return distributions


def _present(*arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
    return tuple(array for array in arrays if array is not None)


def _rows_of(array: np.ndarray | None, indices: np.ndarray) -> np.ndarray | None:
    return None if array is None else array[indices]


def _shares(amounts: Shaped[np.ndarray, "class"]) -> Float[np.ndarray, "class"]:
    """The share of each class in the sum; zeros where there is nothing to share."""
    total = amounts.sum()
    return amounts / total if total > 0 else np.zeros(len(amounts))
