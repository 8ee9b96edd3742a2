"""Sizes of known data sets, so that a plan does not download them."""

from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax.data.long_tail import long_tail_sizes
from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.errors import UserError


class DataSizes(NamedTuple):
    """Image size in pixels, as the network sees it, channels, classes and training images.

    is_encoded: files of any size, which the host decodes and crops to the size of the views.
    is_whole: the images are the published training split, from which `dataset.validation_fraction` is split off.
    num_cut: the number that is split off in place of that fraction, unless it is 0.
    """

    image_size: int
    num_channels: int
    num_classes: int
    num_images: int
    is_encoded: bool = False
    is_whole: bool = False
    num_cut: int | None = None

    def num_train_images(
        self, validation_fraction: float | int, train_images: int | None, imbalance_factor: float | None = None
    ) -> int:
        """The number of images to train on, at most `dataset.train_images`, long-tailed if there is a factor."""
        cut = round(self.num_images * validation_fraction) if self.is_whole else 0
        if self.num_cut is not None and self.is_whole and validation_fraction > 0:
            cut = self.num_cut
        num_images = min(self.num_images - cut, train_images or self.num_images)
        if imbalance_factor is None:
            return num_images
        return int(long_tail_sizes(num_images // self.num_classes, self.num_classes, imbalance_factor).sum())

    def shape(self, name: str) -> DataShape:
        """The shape for `assemble`; the statistics are placeholders, which change no cost."""
        middle = np.full(self.num_channels, 0.5, np.float32)
        return DataShape(
            self.image_size, self.num_channels, self.num_classes, middle, middle / 2, name, is_encoded=self.is_encoded
        )


KNOWN = {
    "digits": DataSizes(8, 1, 10, 1_257, is_whole=True, num_cut=180),
    "rotated_digits": DataSizes(16, 1, 64, 1_257, is_whole=True, num_cut=180),
    "digit_pairs": DataSizes(16, 1, 10, 2_450, is_whole=True, num_cut=350),
    "tfds:mnist": DataSizes(28, 1, 10, 60_000, is_whole=True),
    "tfds:fashion_mnist": DataSizes(28, 1, 10, 60_000, is_whole=True),
    "tfds:cifar10": DataSizes(32, 3, 10, 50_000, is_whole=True),
    "tfds:cifar100": DataSizes(32, 3, 100, 50_000, is_whole=True),
    "tfds:svhn_cropped": DataSizes(32, 3, 10, 73_257, is_whole=True),
    "tfds:imagenet2012": DataSizes(224, 3, 1000, 1_281_167, is_encoded=True, is_whole=True),
}


def data_sizes(name: str, **given: int | None) -> DataSizes:
    """The sizes of this data set; given values take precedence; UserError if one is unknown."""
    known = KNOWN.get(name)
    fields: dict[str, Any] = {
        field: value or (getattr(known, field) if known else None) for field, value in _asked(given).items()
    }
    missing = [field for field, value in fields.items() if value is None]
    if missing:
        raise UserError(
            f"dataset.name is {name!r}, whose sizes are not known here; known: {', '.join(KNOWN)}; give "
            + ", ".join(f"--{field}" for field in missing)
        )
    is_whole = known is not None and known.is_whole and not given.get("num_images")
    num_cut = known.num_cut if known is not None and is_whole else None
    return DataSizes(**fields, is_encoded=known.is_encoded if known else True, is_whole=is_whole, num_cut=num_cut)


def _asked(given: dict[str, int | None]) -> dict[str, int | None]:
    return {field: given.get(field) for field in ("image_size", "num_channels", "num_classes", "num_images")}
