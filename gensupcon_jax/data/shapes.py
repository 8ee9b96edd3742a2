"""What the rest must know of the data: its sizes and statistics, and what one batch holds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8


class DataShape(NamedTuple):
    """What the functions must know of the data: sizes and the training split's statistics, channel by channel, 0..1.

    stored_size: of images in memory, where the network sees another size; is_encoded: the host decodes and crops them.
    """

    image_size: int
    num_channels: int
    num_classes: int
    mean: np.ndarray
    std: np.ndarray
    name: str = ""
    stored_size: int | None = None
    is_encoded: bool = False

    @classmethod
    def of(cls, description: dict) -> "DataShape":
        """From a data set's description, `dataset.json`."""
        size, _, channels = description["image_shape"]
        mean, std = (np.array(description[key], np.float32) for key in ("mean", "std"))
        classes, stored = len(description["class_names"]), description.get("stored_size")
        return cls(size, channels, classes, mean, std, description["name"], stored, bool(description.get("encoded")))


class Batch(NamedTuple):
    """One step's images and label distributions, the batch axis spread over the devices.

    Images in memory come whole, and the device crops them; encoded ones come as one crop for each view.
    """

    images: UInt8[Array, "batch height width channel"] | UInt8[Array, "batch view size size channel"]
    labels: Float[Array, "batch class"]
