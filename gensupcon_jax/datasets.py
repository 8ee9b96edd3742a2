"""Labelled images for training and judging: the embedded digits, TFDS sets, folders, or anyone's arrays; checked and split."""

import collections
import dataclasses
import hashlib
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax import folders, tfds_sets
from gensupcon_jax.cache import cached
from gensupcon_jax.errors import UserError
from gensupcon_jax.inspection import examine
from gensupcon_jax.listing import Listing
from gensupcon_jax.splits import AnySplit, EncodedSplit, Split, one_hot

_SPLIT_SEED = 0  # of the cuts, not of the run: every run sees the same validation and test images
_SUM_TOLERANCE = 1e-3
_ALLOWED_LABELS = "[example] class numbers from 0, or [example, class] distributions"
_STATISTICS_IMAGES = 10_000  # mean and standard deviation of larger encoded sets are those of so many, drawn once
_USUAL_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)  # of what the network sees, for images that differ in size
_MOST_LISTED = 5
# What a user hands over: checked here, with a sentence for every mistake.
FromUser = Any


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Train, validation and test split with the names of the classes (ours).

    Images in memory, or encoded.  resized: the size that the network sees, where it is not that of the images in memory.
    statistics: mean and std of the training images, where they are not computed from memory.  notes: sentences for the log.
    damaged: a line for each image that was left out.  identity: stands for the content of encoded images.
    """

    name: str
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    resized: int | None = None
    statistics: tuple[np.ndarray, np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    identity: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def is_encoded(self) -> bool:
        """Whether the host decodes and crops the images; otherwise they are in memory, and the device crops them."""
        return isinstance(self.train, EncodedSplit)

    @property
    def stored_size(self) -> int:
        """Height and width of the images that reach the device, in pixels."""
        return self.train.image_size if isinstance(self.train, EncodedSplit) else self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of what the network sees, in pixels."""
        return self.resized or self.stored_size

    @property
    def num_channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train.num_channels if isinstance(self.train, EncodedSplit) else self.train.images.shape[-1]

    def description(self) -> dict:
        """What identifies the data, for `dataset.json`: names, sizes, statistics, and a fingerprint.

        It is of all bytes in memory; of encoded images, of their names, sizes, classes and order.
        """
        mean, std = self.statistics or channel_statistics(self.train.images)
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "num_train": self.train.num_images,
            "num_validation": self.validation.num_images,
            "num_test": self.test.num_images,
            "image_shape": [self.image_size, self.image_size, self.num_channels],
            "stored_size": self.stored_size,
            "encoded": self.is_encoded,
            "num_damaged": len(self.damaged),
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "fingerprint": _fingerprint(self.identity, self.train, self.validation, self.test),
        }


class Reading(NamedTuple):
    """How a set of encoded images is read; names are those of the config's `dataset` fields (ours).

    cache_folder: where sizes, labels and statistics are kept for the next start; None: nowhere.
    """

    folder: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    validation_fraction: float | int = 0.1
    test_fraction: float | int = 0.2
    image_size: int | None = None
    center_share: float | int = 0.875
    memory_limit: float | int = 2048
    skip_damaged: bool = False
    max_damaged_share: float | int = 0.01
    num_threads: int | None = None
    cache_folder: Path | None = None

    @property
    def split_names(self) -> dict[str, str | None]:
        """By split, what the source calls it; None: the usual name."""
        return {"train": self.train_split, "validation": self.validation_split, "test": self.test_split}


def load(name: str, **settings: Any) -> Dataset:
    """The data set of `dataset.name`; settings are fields of `Reading`; UserError for an unknown name (ours)."""
    reading = Reading(**settings)
    if name == "digits":
        dataset = digits()
    elif name.startswith("tfds:"):
        dataset = tfds_dataset(name.removeprefix("tfds:"), reading)
    elif name.startswith("folder:"):
        dataset = folder_dataset(name.removeprefix("folder:"), reading)
    elif name == "arrays":
        raise UserError(
            "dataset.name is 'arrays' but no arrays were handed over; "
            "call train_and_evaluate(config, workdir, dataset=from_arrays(images, labels)) from Python"
        )
    else:
        raise UserError(f"dataset.name is {name!r}; allowed: digits, tfds:<name>, folder:<path>, arrays (from Python)")
    return dataset if dataset.is_encoded else seen_at(dataset, reading.image_size)


def seen_at(dataset: Dataset, image_size: int | None) -> Dataset:
    """The set whose images in memory the device resizes to this size; None: as they are (ours)."""
    return dataclasses.replace(dataset, resized=image_size)


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 grey, cut into 1,077 / 180 / 540 by class (ours)."""
    from sklearn.datasets import load_digits  # here and below: 2 seconds that a wrong setting need not wait for

    raw = load_digits()
    images = np.round(raw.images * (255 / 16)).astype(np.uint8)
    return from_arrays(images, raw.target, name="digits", validation_fraction=180 / 1797, test_fraction=540 / 1797)


def tfds_dataset(name: str, reading: Reading | None = None) -> Dataset:
    """An image-classification set of TFDS, prepared first where it is not (ours).

    name: as TFDS takes it, fashion_mnist or fashion_mnist:3.0.1.  Squares of one size that fit `memory_limit` are read whole;
    others are read record by record.  A set without labelled test images is tested on its validation split; validation images
    are cut from training, stratified and fixed, where there is no split of their own.
    Raises UserError for unknown sets, sets that cannot be fetched, and sets that are no images with one class each.
    """
    reading = reading or Reading()
    builder, keys = tfds_sets.open_builder(name, reading.folder)
    if None in builder.info.features[keys.image].shape and tfds_sets.default_format(builder):
        builder, keys = tfds_sets.open_builder(name, reading.folder, file_format=tfds_sets.default_format(builder))
    tfds_sets.prepare(builder, name)
    splits = tfds_sets.choose_splits(builder, name, reading.split_names)
    class_names = tuple(builder.info.features[keys.label].names)
    fractions = {"validation_fraction": reading.validation_fraction, "test_fraction": reading.test_fraction}
    if tfds_sets.fits_memory(builder, keys, splits, reading.memory_limit):
        arrays = {split: tfds_sets.read_arrays(builder, keys, text) for split, text in splits.items()}
        given = _judged_splits(
            {split: pair for split, pair in arrays.items() if split == "train" or _is_labelled(pair[1])}
        )
        return from_arrays(*given.pop("train"), **given, **fractions, class_names=class_names, name=name)
    listings = {
        split: tfds_sets.list_records(builder, keys, name, text, reading.cache_folder) for split, text in splits.items()
    }
    notes = []
    if builder.info.file_format.value == "tfrecord":
        notes.append(
            f"tfds:{name} is prepared as tfrecord, which is read at random places by an index made at the first start; "
            "array_record is read faster: python -m gensupcon_jax.prepare --file_format=array_record converts it"
        )
    unlabelled = [
        split for split, listing in listings.items() if split != "train" and not _is_labelled(listing.classes)
    ]
    notes += [f"the split {splits[split]} of tfds:{name} has no labels and is not used" for split in unlabelled]
    labelled = {split: listing for split, listing in listings.items() if split not in unlabelled}
    return _encoded_dataset(name, labelled, class_names, reading, notes)


def folder_dataset(path: str, reading: Reading | None = None) -> Dataset:
    """A folder of images, <path>/<split>/<class>/<image>; splits that are not there are cut from training (ours).

    Classes are the folders of the training split, sorted.  Raises UserError for folders without images, for classes that
    training does not have, and, unless `skip_damaged`, for images that cannot be decoded and classes without images.
    """
    reading = reading or Reading()
    listings, names, notes, empty = folders.list_folder(
        path, split_names=reading.split_names, cache_folder=reading.cache_folder
    )
    if empty and not reading.skip_damaged:
        raise UserError(
            f"{_listed(empty)}: a class folder without images; allowed: 1 or more images a class, "
            "or dataset.skip_damaged=True, which keeps the class without images"
        )
    notes += [f"{folder} holds no image: its class is kept, and never seen" for folder in empty]
    return _encoded_dataset(f"folder:{path}", listings, names, reading, notes)


def _is_labelled(classes: np.ndarray) -> bool:
    return bool(len(classes) > 0 and classes.max() >= 0)


def _judged_splits(given: dict[str, Any]) -> dict[str, Any]:
    """Where there is no test split, validation is tested on, and validation is cut from training."""
    given = dict(given)
    if "test" not in given and "validation" in given:
        given["test"] = given.pop("validation")
    return given


def _encoded_dataset(
    name: str, listings: dict[str, Listing], class_names: tuple[str, ...], reading: Reading, notes: Sequence[str]
) -> Dataset:
    identity = " ".join(f"{split} {listing.identity}" for split, listing in sorted(listings.items()))
    for split, listing in listings.items():
        _check_class_range(listing, split, name, len(class_names))
    seen = {"center_share": reading.center_share, "num_threads": reading.num_threads}
    wholes = {
        split: dataclasses.replace(listing.split(len(class_names)), **seen) for split, listing in listings.items()
    }
    problems = {split: list(listing.problems) for split, listing in listings.items()}
    train = wholes["train"]
    grey = all(split.headers.grey[_sound(problems[where])].all() for where, split in wholes.items())
    size = reading.image_size or _usual_size(train.headers.sizes[_sound(problems["train"])])
    wholes = {
        where: dataclasses.replace(split, image_size=size, num_channels=1 if grey else 3)
        for where, split in wholes.items()
    }
    statistics, decoded = _examined(name, wholes, problems, reading, identity)
    for where, found in decoded.items():
        problems[where] = [old or new for old, new in zip(problems[where], found, strict=True)]
    damaged = tuple(
        f"{split.where(index)}: {problem}"
        for where, split in wholes.items()
        for index, problem in enumerate(problems[where])
        if problem
    )
    _judge_damage(damaged, sum(map(len, problems.values())), reading)
    given = _judged_splits({where: split.subset(_sound(problems[where])) for where, split in wholes.items()})
    given = _with_cuts(given, reading)
    _refuse_one_class(given["train"].classes, "train")
    return Dataset(
        name,
        **given,
        class_names=class_names,
        statistics=statistics,
        notes=tuple(notes),
        damaged=damaged,
        identity=identity,
    )


def _sound(problems: list[str | None]) -> np.ndarray:
    return np.flatnonzero([problem is None for problem in problems])


def _usual_size(sizes: np.ndarray) -> int:
    """The one size of square images; else the largest usual one that half of the images fill."""
    if len(sizes) == 0:
        return _USUAL_SIZES[-1]
    if (sizes == sizes[0, 0]).all() and sizes[0, 0] <= _USUAL_SIZES[-1]:
        return int(sizes[0, 0])
    median = np.median(sizes.min(1))
    return max([size for size in _USUAL_SIZES if size <= median], default=_USUAL_SIZES[0])


def _examined(
    name: str, wholes: dict[str, EncodedSplit], problems: dict[str, list], reading: Reading, identity: str
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, list[str | None]]]:
    """Statistics of training, and what decoding finds damaged: in all images where they may be skipped, else in those
    that the statistics rest on."""
    looked_at = {}
    for where, split in wholes.items():
        sound = _sound(problems[where])
        if where != "train" and not reading.skip_damaged:
            continue
        if not reading.skip_damaged and len(sound) > _STATISTICS_IMAGES:
            order = np.random.Philox(key=[_SPLIT_SEED, len(sound)]).random_raw(len(sound)).argsort(kind="stable")
            sound = np.sort(sound[order[:_STATISTICS_IMAGES]])
        looked_at[where] = (split, sound)

    def make() -> dict[str, np.ndarray]:
        arrays = {}
        for where, (split, indices) in looked_at.items():
            found = examine(split, indices, f"decoding {len(indices)} images of {where} once")
            arrays[where] = np.array([problem or "" for problem in found.problems], str)
            if where == "train":
                arrays |= {"mean": found.mean, "std": found.std}
        return arrays

    channels = wholes["train"].num_channels
    arrays = cached(reading.cache_folder, f"decoded_{name}", f"{identity} {reading.skip_damaged} {channels}", make)
    decoded = {}
    for where, (_, indices) in looked_at.items():
        decoded[where] = [None] * len(problems[where])
        for index, problem in zip(indices, arrays[where], strict=True):
            decoded[where][index] = str(problem) or None
    return (arrays["mean"], arrays["std"]), decoded


def _judge_damage(damaged: tuple[str, ...], num_images: int, reading: Reading) -> None:
    if not damaged:
        return
    found = f"{len(damaged)} of {num_images} images cannot be decoded: {_listed(damaged)}"
    if not reading.skip_damaged:
        raise UserError(f"{found}; repair or remove them, or leave them out with dataset.skip_damaged=True")
    if len(damaged) > reading.max_damaged_share * num_images:
        raise UserError(
            f"{found}; that is a share of {len(damaged) / num_images:.3g}, allowed by dataset.max_damaged_share: "
            f"up to {reading.max_damaged_share:g}"
        )


def _listed(lines: Sequence[str]) -> str:
    more = f", and {len(lines) - _MOST_LISTED} more" if len(lines) > _MOST_LISTED else ""
    return ", ".join(lines[:_MOST_LISTED]) + more


def _check_class_range(listing: Listing, where: str, name: str, num_classes: int) -> None:
    wrong = np.flatnonzero((listing.classes < 0) | (listing.classes >= num_classes))
    if len(wrong):
        raise UserError(
            f"{name}: {len(wrong)} labels of {where} lie outside 0..{num_classes - 1}, first {listing.classes[wrong[0]]} "
            f"of {listing.where_fn(int(wrong[0]))}; correct them, or choose another split"
        )


def _with_cuts(given: dict[str, EncodedSplit], reading: Reading) -> dict[str, EncodedSplit]:
    """With test and validation cut off training where there are none, stratified and always the same ones."""
    given = dict(given)
    fractions = {"test": reading.test_fraction, "validation": reading.validation_fraction}
    fractions = {where: fraction for where, fraction in fractions.items() if where not in given}
    _check_fractions(fractions)
    num_images = given["train"].num_images
    for where, fraction in fractions.items():
        given["train"], given[where] = _cut_off(given["train"], round(fraction * num_images), where)
    return given


def with_fewer_images(dataset: Dataset, num_images: int) -> Dataset:
    """The data set with only so many training images, the same share of each class, the same ones each time (ours)."""
    found = dataset.train.num_images
    if num_images == found:
        return dataset
    classes = dataset.train.classes
    smallest, largest = _cut_sizes(classes)
    problem = _rare_class(classes)
    if problem:
        raise UserError(f"dataset.train_images is {num_images}, but {problem}; allowed: {found}, or None")
    if not smallest <= num_images <= largest:
        raise UserError(
            f"dataset.train_images is {num_images}; allowed: {smallest} to {largest} "
            f"(as many as there are classes must be kept, and left out), {found}, or None"
        )
    _, kept = _cut(dataset.train, classes, num_images)
    _refuse_one_class(kept.classes, f"dataset.train_images is {num_images}: the train")
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
    return one_hot(labels, num_classes)


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


class _Checked(NamedTuple):
    """uint8 images, and labels that are whole class numbers or distributions."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        return _most_likely(self.labels)

    def subset(self, indices: np.ndarray) -> "_Checked":
        return _Checked(self.images[indices], self.labels[indices])


def _checked_arrays(images: FromUser, labels: FromUser, where: str) -> _Checked:
    """uint8 images, and labels that are whole class numbers or distributions; how many classes there are comes later."""
    images = _array(images, f"{where} images", "[example, size, size, channel]")
    labels = _array(labels, f"{where} labels", _ALLOWED_LABELS)
    if len(images) != len(labels):
        raise UserError(f"{where} has {len(images)} images and {len(labels)} labels; allowed: one label for each image")
    if len(images) == 0:
        raise UserError(f"{where} has 0 images; allowed: 1 or more")
    return _Checked(_uint8_images(images, where), _checked_labels(labels, where))


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


def _cut_off(split: AnySplit | _Checked, size: int, where: str) -> tuple[Any, Any]:
    classes = split.classes
    smallest, largest = _cut_sizes(classes)
    problem = _rare_class(classes)
    if not smallest <= size <= largest:
        problem = f"both sides need as many images as there are classes, {smallest}"
    if problem:
        raise UserError(
            f"{where} would be {size} of {len(classes)} images, but {problem}; "
            f"hand over {where}=(images, labels), more images, or another {where}_fraction"
        )
    return _cut(split, classes, size)


def _cut(split: AnySplit | _Checked, classes: np.ndarray, size: int) -> tuple[Any, Any]:
    from sklearn.model_selection import train_test_split

    rest, part = train_test_split(np.arange(len(classes)), test_size=size, stratify=classes, random_state=_SPLIT_SEED)
    return split.subset(np.sort(rest)), split.subset(np.sort(part))


def _fingerprint(identity: str, *splits: AnySplit) -> str:
    digest = hashlib.sha256(identity.encode())
    for split in splits:
        arrays = split if isinstance(split, Split) else (split.numbers, split.classes, split.headers.sizes)
        for array in arrays:
            digest.update(str((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
