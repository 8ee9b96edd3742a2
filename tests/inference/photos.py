"""A folder of photos as they come: every format, size, orientation and mode that is decoded."""

import numpy as np
from PIL import Image

from tests.encoded import picture
from tests.odd_images import transparent


def write_photos(root, *, splits=None, classes=("ash", "birch")):
    """<root>/<split>/<class>/<name>, the images of a split all different; splits: name -> how many of `KINDS`."""
    for split, kinds in (splits or {"train": 11, "validation": 4, "test": 11}).items():
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, (suffix, save) in enumerate(KINDS[:kinds]):
                save(
                    picture(label, 100 * len(split) + number, (20 + 6 * number, 31 + 3 * number)),
                    folder / f"{number:02}.{suffix}",
                )
    return root


def _turned(orientation):
    def save(image, path):
        exif = Image.Exif()
        exif[274] = orientation
        image.save(path, exif=exif)

    return save


def _of_16_bits(image, path):
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)


KINDS = (
    ("jpg", lambda image, path: image.save(path)),
    ("png", lambda image, path: image.save(path)),
    ("jpg", _turned(6)),
    ("jpeg", lambda image, path: image.convert("CMYK").save(path)),
    ("png", lambda image, path: image.convert("L").save(path)),
    ("webp", lambda image, path: image.save(path, lossless=True)),
    ("gif", lambda image, path: image.save(path)),
    ("bmp", lambda image, path: image.save(path)),
    ("png", lambda image, path: transparent(image).save(path)),
    ("JPG", _turned(3)),
    ("png", _of_16_bits),
)
