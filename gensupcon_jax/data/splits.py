"""The two kinds of splits: arrays in memory, or encoded images that are read when needed."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, UInt8


class Split(NamedTuple):
    """Images of one size in memory, and their label distributions."""

    images: UInt8[np.ndarray, "example height width channel"]
    labels: Float[np.ndarray, "example class"]

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
        """The most likely class of each image."""
        return self.labels.argmax(1)

    @property
    def class_shares(self) -> Float[np.ndarray, "class"]:
        """The share of each class in all labels."""
        return self.labels.mean(0, dtype=np.float64)

    def labels_of(self, indices: Int[np.ndarray, "some"]) -> Float[np.ndarray, "some class"]:
        """Label distributions of these images."""
        return self.labels[indices]

    def subset(self, indices: Int[np.ndarray, "some"]) -> "Split":
        """Only these images, in this order."""
        return Split(self.images[indices], self.labels[indices])


class Headers(NamedTuple):
    """The headers of encoded images.

    sizes [example, 2]: height and width of the upright image; 0 where it cannot be decoded. orientations [example]: EXIF
    orientation of the stored pixels, 1..8; 1 is upright. jpeg [example]: else PNG, WebP, BMP or GIF. gray [example]: one
    channel.
    """

    sizes: Int[np.ndarray, "example height_width=2"]
    orientations: Int[np.ndarray, "example"]
    jpeg: np.ndarray
    gray: np.ndarray

    def subset(self, indices: Int[np.ndarray, "some"]) -> "Headers":
        """The headers of these images."""
        return Headers(*(field[indices] for field in self))


@dataclasses.dataclass(frozen=True)
class EncodedSplit:
    """Encoded images that are read one by one, and their headers.

    sources_fn: stored numbers [some] -> the encoded bytes of each, or its path where `are_paths`.  where_fn: stored number
    -> name of the image in messages.  numbers: stored number of each image of the split.  image_size, num_channels: of the
    input of the network.  center_share: share of the shorter side that the center crop for evaluation keeps.
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

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.numbers)

    @property
    def class_shares(self) -> Float[np.ndarray, "class"]:
        """The share of each class in all labels."""
        return np.bincount(self.classes, minlength=self.num_classes) / len(self.classes)

    def sources(self, indices: Int[np.ndarray, "some"]) -> list[bytes]:
        """Encoded bytes, or paths, of these images."""
        return self.sources_fn(self.numbers[indices])

    def where(self, index: int) -> str:
        """The name of this image in messages: its path, or its record."""
        return self.where_fn(int(self.numbers[index]))

    def labels_of(self, indices: Int[np.ndarray, "some"]) -> Float[np.ndarray, "some class"]:
        """Label distributions of these images, one-hot."""
        return one_hot(self.classes[indices], self.num_classes)

    def subset(self, indices: Int[np.ndarray, "some"]) -> "EncodedSplit":
        """Only these images, in this order."""
        return dataclasses.replace(
            self, numbers=self.numbers[indices], classes=self.classes[indices], headers=self.headers.subset(indices)
        )


AnySplit = Split | EncodedSplit


def one_hot(classes: Integer[np.ndarray, "example"], num_classes: int) -> Float[np.ndarray, "example class"]:
    """One row per image, 1 at its class."""
    distributions = np.zeros((len(classes), num_classes), np.float32)
    distributions[np.arange(len(classes)), classes] = 1
    return distributions
