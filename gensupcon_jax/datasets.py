"""Labelled images in memory: the embedded digits, TFDS sets, or anyone's arrays, checked and split."""

import collections
import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax.errors import UserError

_SPLIT_SEED = 0  # of the cuts, not of the run: every run sees the same validation and test images
_SUM_TOLERANCE = 1e-3
_ALLOWED_LABELS = "[example] class numbers from 0, or [example, class] distributions"
# What a user hands over: checked here, with a sentence for every mistake.
FromUser = Any


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


def load(name: str, *, folder: str | None = None) -> Dataset:
    """The data set of `dataset.name`; folder: where TFDS keeps its sets; UserError for an unknown name (ours)."""
    if name == "digits":
        return digits()
    if name.startswith("tfds:"):
        return tfds_dataset(name.removeprefix("tfds:"), folder=folder)
    if name == "arrays":
        raise UserError(
            "dataset.name is 'arrays' but no arrays were handed over; "
            "call train_and_evaluate(config, workdir, dataset=from_arrays(images, labels)) from Python"
        )
    raise UserError(f"dataset.name is {name!r}; allowed: digits, tfds:<name>, arrays (from Python)")


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey, cut into 1,077 / 180 / 540 by class (ours)."""
    from sklearn.datasets import load_digits  # here and below: 2 seconds that a wrong setting need not wait for

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)
    return from_arrays(images, raw.target, name="digits", validation_fraction=180 / 1797, test_fraction=540 / 1797)


def tfds_dataset(name: str, *, folder: str | None = None, validation_fraction: float = 0.1) -> Dataset:
    """A classification set of TFDS whose images have one size, as a whole in memory; prepared first where it is not (ours).

    name: as TFDS takes it, fashion_mnist or fashion_mnist:3.0.1.  A set without a test split is tested on its validation
    split; validation images are cut from training, stratified and fixed, where there is no split of their own.
    Raises UserError for unknown sets, sets that cannot be fetched, and sets without images and labels of one size.
    """
    import tensorflow_datasets as tfds

    with _tfds_reasons(name):
        builder = tfds.builder(name, data_dir=folder)
    features = builder.info.features
    # Before gigabytes are fetched for nothing.
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise UserError(
            f"dataset.name is 'tfds:{name}', with {sorted(features)}; allowed: sets with `image` and classes as `label`"
        )
    if None in features["image"].shape:
        raise UserError(
            f"dataset.name is 'tfds:{name}', whose images differ in size; allowed: sets whose images have one size "
            "(reading others is not built yet), or dataset=from_arrays(...) from Python with images that you resized"
        )
    with _tfds_reasons(name):
        builder.download_and_prepare()
    splits = builder.info.splits
    if "train" not in splits:
        raise UserError(
            f"dataset.name is 'tfds:{name}', with the splits {sorted(splits)}; allowed: sets with a train split"
        )

    def arrays(split):
        read = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
        return read["image"], read["label"]

    test = next((split for split in ("test", "validation") if split in splits), None)
    own_validation = "validation" in splits and test == "test"
    return from_arrays(
        *arrays("train"),
        validation=arrays("validation") if own_validation else None,
        test=arrays(test) if test else None,
        class_names=features["label"].names,
        name=name,
        validation_fraction=validation_fraction,
    )


@contextlib.contextmanager
def _tfds_reasons(name: str) -> Iterator[None]:
    """TFDS has a dozen kinds of errors, from an unknown name to a refused download: one line for each."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"dataset.name is 'tfds:{name}', which TFDS cannot give ({reason}); "
            "see tensorflow.org/datasets/catalog for names, and dataset.folder for where prepared sets lie"
        ) from error


def with_fewer_images(dataset: Dataset, num_images: int) -> Dataset:
    """The data set with only so many training images, the same share of each class, the same ones each time (ours)."""
    found = len(dataset.train.images)
    if num_images == found:
        return dataset
    classes = _most_likely(dataset.train.labels)
    smallest, largest = _cut_sizes(classes)
    problem = _rare_class(classes)
    if problem:
        raise UserError(f"dataset.train_images is {num_images}, but {problem}; allowed: {found}, or None")
    if not smallest <= num_images <= largest:
        raise UserError(
            f"dataset.train_images is {num_images}; allowed: {smallest} to {largest} "
            f"(as many as there are classes must be kept, and left out), {found}, or None"
        )
    _, kept = _cut(*dataset.train, num_images)
    _refuse_one_class(kept.labels, f"dataset.train_images is {num_images}: the train")
    return dataclasses.replace(dataset, train=kept)


def from_arrays(
    images: FromUser,
    labels: FromUser,
    *,
    validation: FromUser = None,
    test: FromUser = None,
    class_names: FromUser = None,
    name: str = "arrays",
    validation_fraction: FromUser = 0.1,
    test_fraction: FromUser = 0.2,
) -> Dataset:
    """A data set from arrays; splits that are not given as (images, labels) are cut from it, stratified and fixed (ours).

    images: [example, height, width, channel], uint8 in 0..255 or float in 0..1; square; grey ones may lack the channel.
    labels: [example] class numbers from 0, or [example, class] distributions.  class_names may name classes without images.
    Raises UserError for arrays of different length, values out of range, labels that are no distribution, and splits that
    cannot be cut or judged.
    """
    given = {"train": (images, labels), "validation": validation, "test": test}
    given = {where: _pair(pair, where) for where, pair in given.items() if pair is not None}
    fractions = {"test": test_fraction, "validation": validation_fraction}
    fractions = {where: fraction for where, fraction in fractions.items() if where not in given}
    _check_fractions(fractions)
    splits = {where: _checked_arrays(*pair, where) for where, pair in given.items()}
    _check_same_shape([split.images for split in splits.values()])
    names = _names_of(class_names, [split.labels for split in splits.values()], len(splits["train"].images))
    for where, split in splits.items():
        _check_classes(split.labels, len(names), where)
    num_images = len(splits["train"].images)
    for where, fraction in fractions.items():
        # Fractions are of what was handed over, also when the test images were already taken out of it.
        splits["train"], splits[where] = _cut_off(splits["train"], round(fraction * num_images), where)
    _refuse_one_class(splits["train"].labels, "train")
    # Last: as distributions, many classes take much memory, which a wrong class number should not cost.
    splits = {where: Split(split.images, _distributions(split.labels, len(names))) for where, split in splits.items()}
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


def label_distributions(labels: FromUser, num_classes: int, where: str) -> Float[np.ndarray, "example class"]:
    """Label distributions, float32 [example, class], from class numbers or distributions; UserError otherwise (ours)."""
    labels = _checked_labels(_array(labels, f"{where} labels", _ALLOWED_LABELS), where)
    _check_classes(labels, num_classes, where)
    return _distributions(labels, num_classes)


def _distributions(labels: np.ndarray, num_classes: int) -> np.ndarray:
    if labels.ndim == 2:
        return labels
    one_hot = np.zeros((len(labels), num_classes), np.float32)
    one_hot[np.arange(len(labels)), labels] = 1
    return one_hot


def _pair(pair: FromUser, where: str) -> tuple:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        length = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise UserError(f"{where} is {type(pair).__name__}{length}; allowed: a pair, {where}=(images, labels)")
    return tuple(pair)


def _check_fractions(fractions: dict[str, FromUser]) -> None:
    for where, fraction in fractions.items():
        if isinstance(fraction, bool) or not isinstance(fraction, Real) or not 0 < fraction < 1:
            raise UserError(
                f"{where}_fraction is {fraction!r}; allowed: a number above 0 and below 1, "
                f"or hand over {where}=(images, labels)"
            )
    if sum(fractions.values()) >= 1:
        found = " and ".join(f"{where}_fraction {fraction:g}" for where, fraction in fractions.items())
        raise UserError(f"{found} sum to {sum(fractions.values()):g}; allowed: a sum below 1, the rest is for training")


def _check_same_shape(images: list[np.ndarray]) -> None:
    shapes = {part.shape[1:] for part in images}
    if len(shapes) > 1:
        raise UserError(f"the splits' images have shapes {sorted(shapes)}; allowed: one shape for all of them")


def _checked_arrays(images: FromUser, labels: FromUser, where: str) -> Split:
    """uint8 images, and labels that are whole class numbers or distributions; how many classes there are comes later."""
    images = _array(images, f"{where} images", "[example, size, size, channel]")
    labels = _array(labels, f"{where} labels", _ALLOWED_LABELS)
    if len(images) != len(labels):
        raise UserError(f"{where} has {len(images)} images and {len(labels)} labels; allowed: one label for each image")
    if len(images) == 0:
        raise UserError(f"{where} has 0 images; allowed: 1 or more")
    return Split(_uint8_images(images, where), _checked_labels(labels, where))


def _array(values: FromUser, what: str, allowed: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(f"{what} have entries of different length; allowed: {allowed}") from error
    except (TypeError, RuntimeError) as error:  # torch's, for what lies on a GPU or has gradients: it says what to call
        raise UserError(f"{what} are no array ({' '.join(str(error).split())}); allowed: {allowed}") from error
    if array.ndim == 0:
        raise UserError(f"{what} are {str(values)[:40]!r}, no array; allowed: {allowed}")
    return array


def _checked_labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "biuf":
        kind = "text" if labels.dtype.kind in "SU" else f"of type {labels.dtype}"
        raise UserError(
            f"{where} labels are {kind}, first {str(labels.flat[0])[:40]!r}; allowed: {_ALLOWED_LABELS} "
            "(class_names, labels = np.unique(labels, return_inverse=True) numbers names)"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        raise UserError(
            f"{where} labels have shape {labels.shape}, one column; "
            f"allowed: {_ALLOWED_LABELS} of 2 or more classes (labels[:, 0] takes the column)"
        )
    if labels.ndim > 2 or labels.size == 0:
        raise UserError(f"{where} labels have shape {labels.shape}; allowed: {_ALLOWED_LABELS}")
    return _class_numbers(labels, where) if labels.ndim == 1 else _checked_distributions(labels, where)


def _class_numbers(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        missing = int(np.isnan(labels).sum())
        found = f"{labels.dtype} class numbers" + (f", {missing} of {len(labels)} NaN" if missing else "")
        raise UserError(f"{where} labels are {found}; allowed: integers from 0, or [example, class] distributions")
    if labels.min() < 0:
        raise UserError(f"{where} labels lie in {labels.min()}..{labels.max()}; allowed: class numbers from 0")
    return labels


def _checked_distributions(labels: np.ndarray, where: str) -> np.ndarray:
    labels = labels.astype(np.float32)
    wrong = ~np.isfinite(labels).all(1) | (labels < 0).any(1) | (np.abs(labels.sum(1) - 1) > _SUM_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{where} labels are no distribution in {int(wrong.sum())} of {len(labels)} rows, first in row {row} "
            f"(sum {labels[row].sum():.4g}, smallest {labels[row].min():.4g}); allowed: entries >= 0 that sum to 1"
        )
    return labels


def _check_classes(labels: np.ndarray, num_classes: int, where: str) -> None:
    if labels.ndim == 1 and labels.max() >= num_classes:
        raise UserError(
            f"{where} labels lie in {labels.min()}..{labels.max()}; allowed: 0..{num_classes - 1} "
            f"({num_classes} classes; see class_names)"
        )
    if labels.ndim == 2 and labels.shape[1] != num_classes:
        raise UserError(
            f"{where} labels have shape {labels.shape} for {num_classes} classes (see class_names); "
            f"allowed: [example] class numbers, or [example, {num_classes}] distributions"
        )


def _names_of(class_names: FromUser, all_labels: list[np.ndarray], num_images: int) -> tuple[str, ...]:
    if class_names is not None:
        return _checked_names(class_names)
    columns = [labels.shape[1] for labels in all_labels if labels.ndim == 2]
    num_classes = columns[0] if columns else _num_numbered(np.concatenate(all_labels), num_images)
    return tuple(str(index) for index in range(num_classes))


def _checked_names(class_names: FromUser) -> tuple[str, ...]:
    listed = isinstance(class_names, Sequence) and not isinstance(class_names, str | bytes)
    if not listed and not (isinstance(class_names, np.ndarray) and class_names.ndim == 1):
        raise UserError(
            f"class_names is {str(class_names)[:40]!r} ({type(class_names).__name__}); "
            "allowed: a list of names, one for each class"
        )
    names = tuple(str(name) for name in class_names)
    if not names:
        raise UserError("class_names holds no name; allowed: a list of names, one for each class")
    most = collections.Counter(names).most_common(1)
    if most[0][1] > 1:
        raise UserError(f"class_names holds {most[0][0]!r} {most[0][1]} times; allowed: another name for each class")
    return names


def _num_numbered(class_numbers: np.ndarray, num_images: int) -> int:
    """How many classes the class numbers stand for; UserError where most of those have no image."""
    num_classes, num_present = int(class_numbers.max()) + 1, len(np.unique(class_numbers))
    if num_classes > min(num_images, 2 * num_present):
        raise UserError(
            f"labels go up to {num_classes - 1}, which makes {num_classes} classes, but {num_images} train images and "
            f"only {num_present} classes with an image were found; "
            "allowed: class numbers 0, 1, 2, ... without large gaps, or class_names with a name for each class"
        )
    return num_classes


def _uint8_images(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] not in (1, 3) or images.size == 0:
        raise UserError(
            f"{where} images have shape {images.shape}; allowed: [example, size, size], "
            "or [example, size, size, channel] with 1 or 3 channels, and 1 or more pixels"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"{where} images are {images.dtype}; allowed: uint8 in 0..255, or float in 0..1")
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise UserError(f"{where} images lie in {images.min():.4g}..{images.max():.4g}; float ones must lie in 0..1")
    return np.round(images * 255).astype(np.uint8)


def _most_likely(labels: np.ndarray) -> np.ndarray:
    return labels if labels.ndim == 1 else labels.argmax(1)


def _refuse_one_class(labels: np.ndarray, where: str) -> None:
    classes = np.unique(_most_likely(labels))
    if len(classes) < 2:
        raise UserError(
            f"{where} labels name class {classes[0]} as the most likely one in all {len(labels)} images; "
            "allowed: 2 or more classes, each the most likely one of some image"
        )


def _rare_class(classes: np.ndarray) -> str | None:
    """What to say of a class that cannot be on both sides of a cut."""
    present, counts = np.unique(classes, return_counts=True)
    rare = present[counts < 2]
    others = f", as do {len(rare) - 1} more" if len(rare) > 1 else ""
    return f"class {rare[0]} has 1 image and needs 2{others}" if len(rare) else None


def _cut_sizes(classes: np.ndarray) -> tuple[int, int]:
    """Fewest and most images that a stratified cut can take: as many as there are classes, on both sides."""
    num_present = len(np.unique(classes))
    return num_present, len(classes) - num_present


def _cut_off(split: Split, size: int, where: str) -> tuple[Split, Split]:
    classes = _most_likely(split.labels)
    smallest, largest = _cut_sizes(classes)
    problem = _rare_class(classes)
    if not smallest <= size <= largest:
        problem = f"both sides need as many images as there are classes, {smallest}"
    if problem:
        raise UserError(
            f"{where} would be {size} of {len(classes)} images, but {problem}; "
            f"hand over {where}=(images, labels), more images, or another {where}_fraction"
        )
    return _cut(*split, size)


def _cut(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[Split, Split]:
    from sklearn.model_selection import train_test_split

    rest, part = train_test_split(
        np.arange(len(labels)), test_size=size, stratify=_most_likely(labels), random_state=_SPLIT_SEED
    )
    rest, part = np.sort(rest), np.sort(part)
    return Split(images[rest], labels[rest]), Split(images[part], labels[part])


def _fingerprint(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for array in split:
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
