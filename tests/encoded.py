"""Folders of small images of every kind, written by the tests that read them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(label, number, size=(20, 24)):
    """A noisy image whose class is a bright quarter: learnable in a few steps."""
    rng = np.random.default_rng([label, number])
    height, width = size
    pixels = rng.integers(0, 120, (height, width, 3), np.uint8)
    row, column = divmod(label % 4, 2)
    pixels[row * height // 2 : (row + 1) * height // 2, column * width // 2 : (column + 1) * width // 2] += 130
    return Image.fromarray(pixels)


def encode(image, kind="JPEG", **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def write_folder(root, *, splits=None, classes=("ash", "birch", "cedar", "date"), sizes=((20, 24), (30, 18), (24, 24))):
    """<root>/<split>/<class>/<number>.jpg|png; splits: name -> images of each class."""
    for split, num in (splits or {"train": 12, "validation": 3, "test": 4}).items():
        for label, name in enumerate(classes):
            folder = Path(root) / split / name
            folder.mkdir(parents=True)
            for number in range(num):
                image = picture(label, 1000 * len(split) + number, sizes[number % len(sizes)])
                kind, suffix = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
                (folder / f"{number:03}.{suffix}").write_bytes(encode(image, kind))
    return Path(root)


def write_tfds(
    root,
    splits,
    *,
    name="leaves",
    file_format="tfrecord",
    num_shards=1,
    classes=("ash", "birch", "cedar"),
    shape=(None, None, 3),
):
    """A prepared TFDS set without any code of its own; splits: name -> (encoded image, label) of each record."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=list(classes))}
    examples = {
        split: [(number, {"image": image, "label": label}) for number, (image, label) in enumerate(records)]
        for split, records in splits.items()
    }
    return tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=examples,
        data_dir=str(root),
        file_format=file_format,
        download_config=tfds.download.DownloadConfig(num_shards=num_shards),
    )


def records(num, start=0, num_classes=3):
    """(encoded image, label) of so many different images."""
    return [(encode(picture(number % num_classes, start + number)), number % num_classes) for number in range(num)]
