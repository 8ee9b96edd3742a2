"""The shape of the data: sizes and statistics, and the arrays of one batch."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8


def device_center_share(description: dict) -> float:
    """The share of the shorter side that an evaluation cuts out of the images that reach the device: encoded ones come cut."""
    return 1.0 if description.get("encoded") else float(description.get("center_share", 1.0))


class DataShape(NamedTuple):
    """Sizes of the data, and mean and std of the training split per channel, 0..1.

    stored_size: of images in memory, where the input size differs; is_encoded: the host decodes and crops the images.
    center_share: of the shorter side of images in memory, what an evaluation keeps.
    class_shares [class]: of what training draws, where it is known.  some_unlabeled: whether training images have no label.
    """

    image_size: int
    num_channels: int
    num_classes: int
    mean: np.ndarray
    std: np.ndarray
    name: str = ""
    stored_size: int | None = None
    is_encoded: bool = False
    class_shares: np.ndarray | None = None
    center_share: float = 1.0
    some_unlabeled: bool = False

    @classmethod
    def of(cls, description: dict) -> "DataShape":
        """From the description of a data set, `dataset.json`."""
        size, _, channels = description["image_shape"]
        mean, std = (np.array(description[key], np.float32) for key in ("mean", "std"))
        classes, stored = len(description["class_names"]), description.get("stored_size")
        return cls(
            size,
            channels,
            classes,
            mean,
            std,
            description["name"],
            stored,
            bool(description.get("encoded")),
            center_share=device_center_share(description),
        )


class LocalCrops(NamedTuple):
    """The small crops of each image besides its views: their number, size in pixels, and the range of their areas.

    scale: smallest and largest share of the area of the image.
    """

    num_views: int
    size: int
    scale: tuple[float | int, float | int]


class Batch(NamedTuple):
    """Images and label distributions of one step, the batch axis sharded over the devices.

    Images in memory come whole, and the device crops them; encoded images come as one crop per view, and one per local view
    where there are any.
    """

    images: UInt8[Array, "batch height width channel"] | UInt8[Array, "batch view size size channel"]
    labels: Float[Array, "batch class"]
    local_images: UInt8[Array, "batch local_view local_size local_size channel"] | None = None
