"""Labeled images for training and evaluation, and SOURCES, the table of their sources."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gensupcon_jax.data import array_files, folders, lists, memory_cache, tfds_sets, value_labels
from gensupcon_jax.data.arrays import (
    Checked,
    FromUser,
    check_class_numbers,
    check_same_shape,
    checked_arrays,
    checked_pair,
    class_names_of,
    distributions,
)
from gensupcon_jax.data.center import center_share_of
from gensupcon_jax.data.channels import channel_statistics, converted
from gensupcon_jax.data.cuts import (
    check_fractions,
    chosen,
    cut,
    cut_sizes,
    is_useless,
    num_to_cut_from,
    rare_class,
    refuse_one_class,
)
from gensupcon_jax.data.digit_pairs import digit_pairs
from gensupcon_jax.data.encoded_sets import Reading, evaluated_splits, from_listings, is_labeled
from gensupcon_jax.data.label_kinds import check_kind, cut_by_labels, refuse_one_label, refuse_other_kinds
from gensupcon_jax.data.label_notes import label_notes
from gensupcon_jax.data.listing import Listing
from gensupcon_jax.data.multi_hot import refuse_constant_labels, stratified
from gensupcon_jax.data.splits import NO_CLASS, AnySplit, EncodedSplit, Split
from gensupcon_jax.data.turned_digits import turned_digits
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import require_tensorflow
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.text import listed
from gensupcon_jax.value_bins import ValueBins


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits, and the class names.

    validation: None where all images are trained on.
    Images are in memory, or encoded.  resized: input size of the network, where it differs from that of the images in memory.
    centered: share of the shorter side of images in memory that an evaluation keeps; None: it follows from their size.
    statistics: mean and std of the training images, where they are not computed from memory.  notes: sentences for the log.
    damaged: one line per image that was left out.  source_fingerprint: of the content of encoded images.
    label_kind: class: one class or distribution per image, or none; several: any number of classes; value: a number, whose
    distribution is over `bins`.
    """

    name: str
    train: AnySplit
    validation: AnySplit | None
    test: AnySplit
    class_names: tuple[str, ...]
    resized: int | None = None
    centered: float | int | None = None
    statistics: tuple[np.ndarray, np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    source_fingerprint: str = ""
    label_kind: str = "class"
    bins: ValueBins | None = None

    @property
    def splits(self) -> dict[str, AnySplit]:
        """The splits that there are, by name, train first."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def num_validation(self) -> int:
        """Number of validation images, 0 without a validation split."""
        return 0 if self.validation is None else self.validation.num_images

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
        """Height and width of the input of the network, in pixels."""
        return self.resized or self.stored_size

    @property
    def center_share(self) -> float:
        """Share of the shorter side that an evaluation keeps, of the center of each image."""
        if isinstance(self.train, EncodedSplit):
            return float(self.train.center_share)
        return center_share_of(self.centered, np.array([[self.stored_size] * 2]), self.image_size)

    @property
    def num_channels(self) -> int:
        """1 for gray, 3 for color."""
        return self.train.num_channels if isinstance(self.train, EncodedSplit) else self.train.images.shape[-1]

    @property
    def some_unlabeled(self) -> bool:
        """Whether training images have no label. With several labels per image, none of them is a label too."""
        return self.label_kind == "class" and not self.train.is_labeled.all()

    @property
    def has_labels(self) -> bool:
        """Whether some training image has a label; otherwise there is nothing to evaluate."""
        return self.label_kind != "class" or bool(self.train.is_labeled.any())

    def only_labeled(self) -> "Dataset":
        """The data set with the training images that have a label, which k-NN and probe compare with."""
        if not self.some_unlabeled:
            return self
        return dataclasses.replace(self, train=self.train.subset(np.flatnonzero(self.train.is_labeled)))

    def description(self) -> dict:
        """What identifies the data, for `dataset.json`: names, sizes, statistics, and a fingerprint.

        The fingerprint covers all bytes in memory; for encoded images, their names, sizes, classes and order.
        """
        statistics = self.statistics
        if statistics is None:
            assert not isinstance(self.train, EncodedSplit)  # those are handed over with their statistics
            statistics = channel_statistics(self.train.images)
        mean, std = statistics
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "num_train": self.train.num_images,
            "num_validation": self.num_validation,
            "num_test": self.test.num_images,
            "image_shape": [self.image_size, self.image_size, self.num_channels],
            "stored_size": self.stored_size,
            "center_share": self.center_share,
            "encoded": self.is_encoded,
            "num_damaged": len(self.damaged),
            "label_kind": self.label_kind,
            "bins": None if self.bins is None else self.bins._asdict(),
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
            "fingerprint": fingerprint(_content(self.source_fingerprint, *self.splits.values())),
        }


def load(name: str, **settings: Any) -> Dataset:
    """The data set of `dataset.name`; settings are fields of `Reading`; UserError for an unknown name."""
    reading = Reading(**settings)
    form, rest = source_of(name)
    dataset = in_channels(SOURCES[form](rest, reading), reading.channels)
    check_label_kind(dataset, reading.label_kind)
    return dataset if dataset.is_encoded else seen_at(dataset, reading.image_size, reading.center_share)


def check_label_kind(dataset: Dataset, wanted: str) -> None:
    """UserError where the labels of a data set are not of the kind that the config asks for."""
    if dataset.label_kind != wanted:
        raise UserError(
            f"dataset.label_kind is {wanted!r}, but the labels of {dataset.name} are of the kind {dataset.label_kind!r}; "
            f"allowed: dataset.label_kind={dataset.label_kind}, or another data set"
        )


def source_of(name: str) -> tuple[str, str]:
    """The form of SOURCES that a `dataset.name` has, and the value of its placeholder: ("tfds:<name>", "cifar10")."""
    for form in SOURCES:
        prefix, takes_rest, _ = form.partition("<")
        if name == form or (takes_rest and name.startswith(prefix) and name.removeprefix(prefix).strip()):
            return form, name.removeprefix(prefix)
    raise UserError(f"dataset.name is {name!r}; allowed: {', '.join(SOURCES)}")


def seen_at(dataset: Dataset, image_size: int | None, center_share: float | int | None = None) -> Dataset:
    """The data set with images that the device resizes to this size; None: not resized.

    center_share: see `Dataset.centered`.
    """
    return dataclasses.replace(dataset, resized=image_size, centered=center_share)


def in_channels(dataset: Dataset, num_channels: int | None) -> Dataset:
    """The data set with images of 1 or 3 channels, in the same order: color becomes gray, gray is repeated; None: unchanged.

    Raises UserError for encoded color images, whose gray statistics are measured only where they are read.
    """
    if num_channels in (None, dataset.num_channels):
        return dataset
    splits: dict[str, Any] = {}
    for name, split in dataset.splits.items():
        if isinstance(split, EncodedSplit):
            splits[name] = dataclasses.replace(split, num_channels=num_channels)
        else:
            splits[name] = split._replace(images=converted(split.images, num_channels))
    statistics = dataset.statistics
    if statistics is not None and num_channels == 1:
        raise UserError(
            f"dataset.channels is 1, but the encoded images of {dataset.name} have been read in 3 channels; "
            "pass Reading(channels=1) where they are read, or set dataset.channels to None"
        )
    if statistics is not None:
        statistics = (np.repeat(statistics[0], 3), np.repeat(statistics[1], 3))
    return dataclasses.replace(dataset, **splits, statistics=statistics)


def digits(*, is_validated: bool = True) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 gray, cut into 1,077 / 180 / 540 by class, or 1,257 / 0 / 540."""
    from sklearn.datasets import (
        load_digits,  # imported here and below, as it takes 2 s, which an error message need not wait for
    )

    pixels, classes = load_digits(return_X_y=True)  # 64 numbers in 0..16 per image
    images = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    validation_fraction = 180 / 1797 if is_validated else 0
    return from_arrays(
        images, classes, name="digits", validation_fraction=validation_fraction, test_fraction=540 / 1797
    )


def pairs_of_digits(*, is_validated: bool = True) -> Dataset:
    """3,500 images of two of scikit-learn's digits, 16 x 16 gray, with both digits as labels: 2,100 / 350 / 1,050.

    The digits of a split come from the same split of `digits`.
    """
    source = digits(is_validated=is_validated)
    sizes = {"train": 2_100 if is_validated else 2_450, "validation": 350, "test": 1_050}
    made = {
        name: digit_pairs(split.images, split.classes, sizes[name])
        for name, split in source.splits.items()
        if isinstance(split, Split)
    }
    names = [str(digit) for digit in range(10)]
    return from_arrays(
        *made.pop("train"), **made, validation_fraction=0, class_names=names, name="digit_pairs", label_kind="several"
    )


def rotated_digits(reading: Reading) -> Dataset:
    """scikit-learn's handwritten digits, 16 x 16 gray, turned by a random angle, which is their label: -45 to 45 degrees.

    The same angles at every start; positive is counterclockwise.  Cut into 1,077 / 180 / 540 from small to large angles alike.
    """
    from sklearn.datasets import load_digits

    refuse_other_kinds(reading.label_kind, "rotated_digits", "value")
    pixels, _ = load_digits(return_X_y=True)
    images, angles = turned_digits(np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8))
    fractions = {"validation_fraction": reading.validation_fraction, "test_fraction": 540 / 1797}
    return from_arrays(images, angles, name="rotated_digits", **fractions, label_kind="value")


def tfds_dataset(name: str, reading: Reading | None = None) -> Dataset:
    """An image-classification data set of TFDS, downloaded and prepared if necessary.

    name: a name of TFDS, fashion_mnist or fashion_mnist:3.0.1.  Square images of one size that fit `memory_limit` are kept in
    memory; otherwise they are read record by record.  Without labeled test images, the validation split is the test split;
    without a validation split, it is cut from the training split, stratified and always the same.
    Several labels per image come from a sequence of class labels, also of the objects in an image, or from a row of 0 and 1.
    Raises UserError for unknown data sets, failed downloads, and data sets that are not images with labels of this kind.
    """
    require_tensorflow(f"dataset.name is 'tfds:{name}'")
    reading = reading or Reading()
    if reading.label_kind == "several":
        return _several_of_tfds(name, reading)
    refuse_other_kinds(reading.label_kind, f"tfds:{name}")
    decoded = memory_cache.read_decoded(name, reading)
    if decoded is None:
        builder, keys = tfds_sets.open_prepared(name, reading.folder)
        splits = tfds_sets.choose_splits(builder, name, reading.split_names)
        class_names = tuple(builder.info.features[keys.label].names)
        if not tfds_sets.fits_memory(builder, keys, splits, reading.memory_limit):
            return _read_by_record(builder, keys, splits, class_names, name, reading)
        arrays = {split: tfds_sets.read_arrays(builder, keys, name, text) for split, text in splits.items()}
        decoded = memory_cache.Decoded(class_names, arrays, os.fspath(builder.data_path))
        memory_cache.keep_decoded(name, reading, decoded)
    given = {split: pair for split, pair in decoded.splits.items() if split == "train" or is_labeled(pair[1])}
    given = evaluated_splits(given)
    fractions = {"validation_fraction": reading.validation_fraction, "test_fraction": reading.test_fraction}
    return from_arrays(*given.pop("train"), **given, **fractions, class_names=decoded.class_names, name=name)


def _several_of_tfds(name: str, reading: Reading) -> Dataset:
    builder, keys = tfds_sets.open_prepared(name, reading.folder, "several")
    assert keys.several is not None  # or it was an error
    splits = tfds_sets.choose_splits(builder, name, reading.split_names)
    return _read_by_record(builder, keys, splits, keys.several.names, name, reading)


def _read_by_record(
    builder: Any,
    keys: tfds_sets.Keys,
    splits: dict[str, str],
    class_names: tuple[str, ...],
    name: str,
    reading: Reading,
) -> Dataset:
    listings = {
        split: tfds_sets.list_records(builder, keys, name, text, reading.cache_folder) for split, text in splits.items()
    }
    notes = []
    if builder.info.file_format.value == "tfrecord":
        notes.append(
            f"tfds:{name} is prepared as tfrecord, which is read by an index made at the first start; array_record is faster "
            f"to read: {tfds_sets.conversion_command(name, reading.folder)} converts it"
        )
    unlabeled = [split for split, listing in listings.items() if split != "train" and not is_labeled(listing.classes)]
    notes += [f"the split {splits[split]} of tfds:{name} has no labels and is not used" for split in unlabeled]
    labeled = {split: listing for split, listing in listings.items() if split not in unlabeled}
    return _encoded(name, labeled, class_names, reading, notes)


def folder_dataset(path: str, reading: Reading | None = None) -> Dataset:
    """A folder of images, <path>/<split>/<class>/<image>; missing splits are cut from training.

    Classes are the folders of the training split, sorted; a folder of images without class folders has no labels.  Raises
    UserError for folders without images, for classes that training does not have, and, unless `skip_damaged`, for images that
    cannot be decoded and classes without images.
    """
    require_tensorflow(f"dataset.name is 'folder:{path}'")
    reading = reading or Reading()
    refuse_other_kinds(reading.label_kind, f"folder:{path}")
    listings, names, notes, empty = folders.list_folder(
        path, split_names=reading.split_names, cache_folder=reading.cache_folder
    )
    if empty and not reading.skip_damaged:
        raise UserError(
            f"{listed(empty)}: class folders without images; allowed: 1 or more images per class, "
            "or dataset.skip_damaged=True, which keeps the class without images"
        )
    if names != (NO_CLASS,):
        folders.refuse_small_classes(listings, names, is_validated=reading.validation_fraction > 0)
    notes += [f"{folder} has no images: the class is kept without training images" for folder in empty]
    return _encoded(f"folder:{path}", listings, names, reading, notes)


def list_dataset(form: str, path: str, reading: Reading | None = None) -> Dataset:
    """The images that a CSV or Parquet file lists, with their labels and splits; missing splits are cut from training.

    form: "csv" or "parquet".  Raises UserError for a list that cannot be read, labels that do not parse, and files that do not
    exist.
    """
    require_tensorflow(f"dataset.name is '{form}:{path}'")
    reading = reading or Reading()
    found = lists.list_images(form, path, list_settings(reading))
    lists.refuse_small_labels(found, reading.label_kind, is_validated=reading.validation_fraction > 0)
    dataset = _encoded(f"{form}:{path}", found.listings, found.class_names, reading, found.notes)
    return value_labels.rebinned(dataset) if reading.label_kind == "value" else dataset


def array_file_dataset(path: str, reading: Reading | None = None) -> Dataset:
    """The arrays in an .npz file: images, labels, optional validation_images, test_images, class_names; see `from_arrays`.

    Raises UserError for a file that cannot be read or lacks images and labels.
    """
    reading = reading or Reading()
    found = array_files.read_array_file(path, reading.label_kind)
    dataset = from_arrays(
        *found.splits["train"],
        validation=found.splits.get("validation"),
        test=found.splits.get("test"),
        class_names=found.class_names,
        name=f"arrays:{path}",
        validation_fraction=reading.validation_fraction,
        test_fraction=reading.test_fraction,
        label_kind=reading.label_kind,
    )
    return dataclasses.replace(dataset, notes=(*found.notes, *dataset.notes))


def list_settings(reading: Reading) -> lists.ListSettings:
    """What a list needs of the fields of `dataset`."""
    return lists.ListSettings(
        folder=reading.folder,
        columns=lists.Named(reading.path_column, reading.label_columns, reading.split_column),
        splits=reading.split_names,
        label_kind=reading.label_kind,
        skip_damaged=reading.skip_damaged,
        cache_folder=reading.cache_folder,
    )


def _encoded(
    name: str, listings: dict[str, Listing], class_names: tuple[str, ...], reading: Reading, notes: Sequence[str]
) -> Dataset:
    found = from_listings(name, listings, len(class_names), reading)
    return Dataset(
        name,
        found.splits["train"],
        found.splits.get("validation"),
        found.splits["test"],
        class_names,
        statistics=found.statistics,
        notes=tuple(notes),
        damaged=found.damaged,
        source_fingerprint=found.fingerprint,
        label_kind=reading.label_kind,
    )


def _refuse_arrays(_rest: str, _reading: Reading) -> Dataset:
    raise UserError(
        "dataset.name is 'arrays' but no arrays were passed; "
        "call train_and_evaluate(config, workdir, dataset=from_arrays(images, labels)) from Python"
    )


# The form of a `dataset.name` -> builder(value of the placeholder, reading) -> Dataset. To add a source, add an entry,
# also from outside the package: SOURCES["blobs:<classes>"] = lambda classes, reading: from_arrays(...).
SOURCES: dict[str, Callable[[str, Reading], Dataset]] = {
    "digits": lambda _rest, reading: digits(is_validated=reading.validation_fraction > 0),
    "digit_pairs": lambda _rest, reading: pairs_of_digits(is_validated=reading.validation_fraction > 0),
    "rotated_digits": lambda _rest, reading: rotated_digits(reading),
    "tfds:<name>": tfds_dataset,
    "folder:<path>": folder_dataset,
    "csv:<file>": lambda path, reading: list_dataset("csv", path, reading),
    "parquet:<file>": lambda path, reading: list_dataset("parquet", path, reading),
    "arrays:<file>": lambda path, reading: array_file_dataset(path, reading),
    "arrays": _refuse_arrays,
}


def with_fewer_images(dataset: Dataset, num_images: int) -> Dataset:
    """The data set with only `num_images` training images, a stratified and deterministic choice."""
    found = dataset.train.num_images
    if num_images == found:
        return dataset
    if dataset.label_kind == "several":
        return _with_fewer_labeled(dataset, num_images)
    if dataset.train.values is not None:
        if not 1 <= num_images < found:
            raise UserError(f"dataset.train_images is {num_images}; allowed: 1 to {found}, or None")
        _, kept = value_labels.cut_off_values(dataset.train, dataset.train.values, num_images, "dataset.train_images")
        return dataclasses.replace(dataset, train=kept)
    classes = dataset.train.classes
    _check_size(f"dataset.train_images is {num_images}", num_images, classes, found, "be kept, and one left out")
    _, kept = cut(dataset.train, classes, num_images)
    refuse_one_class(kept.classes, f"dataset.train_images is {num_images}: the train")
    return dataclasses.replace(dataset, train=kept)


def _check_size(asked: str, size: int, classes: np.ndarray, found: int, must: str) -> None:
    """UserError for a size that a stratified choice among images of these classes cannot have.

    asked: the field and its value.  found: the size that changes nothing.  must: what has to happen to an image of each class.
    """
    smallest, largest = cut_sizes(classes)
    problem = rare_class(classes)
    if problem:
        raise UserError(f"{asked}, but {problem}; allowed: {found}, or None")
    if not smallest <= size <= largest:
        raise UserError(
            f"{asked}; allowed: {smallest} to {largest} (at least one image per class must {must}), {found}, or None"
        )


def _with_fewer_labeled(dataset: Dataset, num_images: int) -> Dataset:
    """The same for images with several labels each."""
    train, found = dataset.train, dataset.train.num_images
    if not 1 <= num_images < found:
        raise UserError(f"dataset.train_images is {num_images}; allowed: 1 to {found}, or None")
    rows = train.labels_of(np.arange(found))
    kept = train.subset(np.flatnonzero(stratified(rows, num_images)))
    refuse_constant_labels(kept.labels_of(np.arange(num_images)), f"dataset.train_images is {num_images}: the train")
    return dataclasses.replace(dataset, train=kept)


def with_fewer_labels(dataset: Dataset, num_labeled: int) -> Dataset:
    """The data set with the labels of only `num_labeled` training images, a stratified and deterministic choice.

    The other training images stay, without a label; validation and test images keep theirs.
    """
    if dataset.label_kind != "class":
        raise UserError(
            f"dataset.labeled_images is {num_labeled}; allowed with dataset.label_kind {dataset.label_kind}: None"
        )
    train, known = dataset.train, dataset.train.is_labeled
    found = int(known.sum())
    if num_labeled == found:
        return dataset
    asked = f"dataset.labeled_images is {num_labeled}"
    _check_size(asked, num_labeled, train.classes[known], found, "keep its label, and one lose it")
    kept = chosen(train.classes, num_labeled, known)
    note = (
        f"dataset.labeled_images is {num_labeled}: {train.num_images - num_labeled} of {train.num_images} training images "
        "have no label"
    )
    return dataclasses.replace(dataset, train=train.without_labels(~kept), notes=(*dataset.notes, note))


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
    label_kind: str = "class",
) -> Dataset:
    """A data set from arrays; splits that are not given as (images, labels) are cut from it, stratified and deterministic.

    validation_fraction: 0: no validation split, so that all of these images are trained on.

    images: [example, height, width, channel], uint8 in 0..255 or float in 0..1; square; gray images may lack the channel axis.
    labels: [example] class numbers from 0, or [example, class] distributions; training images without a label have -1 or a row of
    zeros. Only labeled ones are cut for other splits; where none has a label there is no validation split. With label_kind
    "several", [example, label] rows of 0 and 1, any number of ones in each; with "value", [example] numbers in any unit.
    class_names may name classes without images.
    Raises UserError for arrays of different lengths, values out of range or divided by 255 twice, class numbers from 1, labels
    that are not distributions, and splits that cannot be cut or evaluated.  What is allowed, and perhaps not meant, is in the
    data set's notes, which a run prints: tied distributions, and classes without training images.

    >>> images = np.zeros((40, 8, 8, 3), np.uint8)
    >>> dataset = from_arrays(images, np.arange(40) % 2, class_names=["cat", "dog"])
    >>> len(dataset.train.images), len(dataset.validation.images), len(dataset.test.images)
    (28, 4, 8)
    """
    check_kind(label_kind)
    given = {"train": (images, labels), "validation": validation, "test": test}
    given = {where: checked_pair(pair, where) for where, pair in given.items() if pair is not None}
    fractions = {"test": test_fraction, "validation": validation_fraction}
    fractions = {where: fraction for where, fraction in fractions.items() if where not in given}
    check_fractions(fractions)
    splits = {where: checked_arrays(pair[0], pair[1], where, label_kind) for where, pair in given.items()}
    check_same_shape([split.images for split in splits.values()])
    names = () if label_kind == "value" else _checked_names(class_names, splits)
    num_images = num_to_cut_from(splits["train"].classes) if label_kind == "class" else len(splits["train"].images)
    notes = label_notes({where: split.labels for where, split in splits.items()}, names, label_kind) if names else ()
    for where, fraction in fractions.items():
        if fraction == 0 or (where == "validation" and is_useless(splits["train"].classes, label_kind)):
            continue
        # Fractions of the images that were passed, also after the test images were cut from them.
        size, train = round(fraction * num_images), splits["train"]
        splits["train"], splits[where] = cut_by_labels(train, train.labels, size, where, label_kind)
    refuse_one_label(splits["train"].labels, "train", label_kind)
    if label_kind == "value":
        splits = {where: Split(split.images, split.labels[:, None], split.labels) for where, split in splits.items()}
        dataset = Dataset(name, splits["train"], splits.get("validation"), splits["test"], names, label_kind=label_kind)
        return value_labels.rebinned(dataset)
    # Last, because distributions over many classes take much memory: wrong class numbers are reported before.
    splits = {where: Split(split.images, distributions(split.labels, len(names))) for where, split in splits.items()}
    parts = (splits["train"], splits.get("validation"), splits["test"])
    return Dataset(name, *parts, names, notes=notes, label_kind=label_kind)


def _checked_names(class_names: FromUser, splits: dict[str, Checked]) -> tuple[str, ...]:
    """The class names; UserError for labels of other classes."""
    names = class_names_of(class_names, [split.labels for split in splits.values()], len(splits["train"].images))
    for where, split in splits.items():
        check_class_numbers(split.labels, len(names), where)
    return names


def _content(source_fingerprint: str, *splits: AnySplit) -> Iterator[str | memoryview]:
    """The parts that the fingerprint of a data set covers."""
    yield source_fingerprint
    for split in splits:
        numbers = (split.numbers,) if isinstance(split, EncodedSplit) else ()
        for array in (*numbers, *split.content):
            yield str((array.shape, array.dtype.str))
            yield np.ascontiguousarray(array).data
