"""Checks of the images and labels that a user passes as arrays."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gensupcon_jax.data.multi_hot import ALLOWED_ROWS, are_several, checked_rows
from gensupcon_jax.data.splits import NO_CLASS, one_hot
from gensupcon_jax.data.unit_floats import ALLOWED_FLOATS, are_divided_twice, gray_levels, in_numpys_floats, is_float
from gensupcon_jax.data.value_labels import ALLOWED_VALUES, checked_values
from gensupcon_jax.errors import UserError

_SUM_TOLERANCE = 1e-3
_BFLOAT16_SUM_TOLERANCE = 1e-2  # it has 8 bits of precision
_FROM_ONE = "class numbers begin at 0: where they were counted from 1, pass labels - 1"
_ALLOWED_LABELS = "[example] class numbers from 0, or [example, class] distributions"
_UNLABELED = "; train images without a label: class number -1, or a row of zeros"
# What a user passes: not yet checked.
FromUser = Any


class Checked(NamedTuple):
    """uint8 images, and labels that are integer class numbers or distributions."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The most likely class of each image."""
        return most_likely(self.labels)

    def subset(self, indices: np.ndarray) -> "Checked":
        """Only these images, in this order."""
        return Checked(self.images[indices], self.labels[indices])


def distributions(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """One row per image: the distributions themselves, or one-hot rows of class numbers."""
    if labels.ndim == 2:
        return labels
    return one_hot(labels, num_classes)


def checked_pair(pair: FromUser, where: str) -> tuple:
    """(images, labels); UserError for anything else."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        length = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise UserError(f"{where} is {type(pair).__name__}{length}; allowed: a pair, {where}=(images, labels)")
    return tuple(pair)


def check_same_shape(images: list[np.ndarray]) -> None:
    """UserError for splits whose images have different shapes."""
    shapes = {part.shape[1:] for part in images}
    if len(shapes) > 1:
        raise UserError(f"the splits' images have shapes {sorted(shapes)}; allowed: one shape for all of them")


def checked_arrays(images: FromUser, labels: FromUser, where: str, label_kind: str = "class") -> Checked:
    """uint8 images, and labels that are integer class numbers, distributions, or rows of 0 and 1; the number of classes is
    checked later."""
    images = _array(images, f"{where} images", "[example, size, size, channel]")
    allowed, check_labels_fn = _LABELS[label_kind]
    labels = _array(labels, f"{where} labels", allowed)
    if len(images) != len(labels):
        raise UserError(f"{where} has {len(images)} images and {len(labels)} labels; allowed: one label per image")
    if len(images) == 0:
        raise UserError(f"{where} has 0 images; allowed: 1 or more")
    return Checked(_uint8_images(images, where), check_labels_fn(_in_numpys_type(labels), where))


def _array(values: FromUser, what: str, allowed: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise UserError(f"{what} have entries of different lengths; allowed: {allowed}") from error
    except (TypeError, RuntimeError) as error:  # torch's, for GPU tensors and gradients: it names the method to call
        raise UserError(f"{what} are not an array ({' '.join(str(error).split())}); allowed: {allowed}") from error
    if array.ndim == 0:
        raise UserError(f"{what} are {str(values)[:40]!r}, not an array; allowed: {allowed}")
    return array


def _checked_labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "biuf":
        kind = "text" if labels.dtype.kind in "SU" else f"of type {labels.dtype}"
        raise UserError(
            f"{where} labels are {kind}, first {str(labels.flat[0])[:40]!r}; allowed: {_ALLOWED_LABELS} "
            "(class_names, labels = np.unique(labels, return_inverse=True) turns names into numbers)"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        raise UserError(
            f"{where} labels have shape {labels.shape}, one column; "
            f"allowed: {_ALLOWED_LABELS} of 2 or more classes (labels[:, 0] selects the column)"
        )
    if labels.ndim > 2 or labels.size == 0:
        raise UserError(f"{where} labels have shape {labels.shape}; allowed: {_ALLOWED_LABELS}")
    return _class_numbers(labels, where) if labels.ndim == 1 else _checked_distributions(labels, where)


def _class_numbers(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        missing = int(np.isnan(labels).sum())
        found = f"{labels.dtype} class numbers" + (f", {missing} of {len(labels)} NaN" if missing else "")
        raise UserError(f"{where} labels are {found}; allowed: integers from 0, or [example, class] distributions")
    if labels.min() < (-1 if where == "train" else 0):
        raise UserError(
            f"{where} labels lie in {labels.min()}..{labels.max()}; allowed: class numbers from 0{_UNLABELED}"
        )
    return labels.astype(np.int64) if labels.min() < 0 else labels


def _checked_distributions(labels: np.ndarray, where: str) -> np.ndarray:
    labels = labels.astype(np.float32)
    if are_several(labels):
        raise UserError(
            f"{where} labels are rows of 0 and 1 with up to {labels.sum(1).max():g} ones, several labels per image, where "
            "dataset.label_kind class allows one class or distribution; set dataset.label_kind to several "
            "(from_arrays: label_kind='several')"
        )
    wrong = ~np.isfinite(labels).all(1) | (labels < 0).any(1) | (np.abs(labels.sum(1) - 1) > _SUM_TOLERANCE)
    if where == "train":
        wrong &= labels.any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{where} labels are not a distribution in {int(wrong.sum())} of {len(labels)} rows, first in row {row} "
            f"(sum {labels[row].sum():.4g}, smallest {labels[row].min():.4g}); allowed: entries >= 0 that sum to 1{_UNLABELED}"
        )
    return labels


# dataset.label_kind -> what is allowed, and the check of labels
_LABELS = {
    "class": (_ALLOWED_LABELS, _checked_labels),
    "several": (ALLOWED_ROWS, checked_rows),
    "value": (ALLOWED_VALUES, checked_values),
}


def check_class_numbers(labels: np.ndarray, num_classes: int, where: str) -> None:
    """UserError for labels whose class numbers or columns do not match this number of classes."""
    if labels.ndim == 1 and labels.max() >= num_classes:
        from_one = f"; {_FROM_ONE}" if labels.min() > 0 and labels.max() == num_classes else ""
        raise UserError(
            f"{where} labels lie in {labels.min()}..{labels.max()}; allowed: 0..{num_classes - 1} "
            f"({num_classes} classes; see class_names){from_one}"
        )
    if labels.ndim == 2 and labels.shape[1] != num_classes:
        raise UserError(
            f"{where} labels have shape {labels.shape} for {num_classes} classes (see class_names); "
            f"allowed: [example] class numbers, or [example, {num_classes}] distributions"
        )


def class_names_of(class_names: FromUser, all_labels: list[np.ndarray], num_images: int) -> tuple[str, ...]:
    """The given class names, or the class numbers as strings."""
    if class_names is not None:
        return _checked_names(class_names)
    columns = [labels.shape[1] for labels in all_labels if labels.ndim == 2]
    if not columns and all((labels < 0).all() for labels in all_labels):
        return (NO_CLASS,)
    num_classes = columns[0] if columns else _num_numbered(np.concatenate(all_labels), num_images)
    return tuple(str(index) for index in range(num_classes))


def _checked_names(class_names: FromUser) -> tuple[str, ...]:
    listed = isinstance(class_names, Sequence) and not isinstance(class_names, str | bytes)
    if not listed and not (isinstance(class_names, np.ndarray) and class_names.ndim == 1):
        raise UserError(
            f"class_names is {str(class_names)[:40]!r} ({type(class_names).__name__}); "
            "allowed: a list of names, one per class"
        )
    names = tuple(str(name) for name in class_names)
    if not names:
        raise UserError("class_names is empty; allowed: a list of names, one per class")
    most = collections.Counter(names).most_common(1)
    if most[0][1] > 1:
        raise UserError(
            f"class_names contains {most[0][0]!r} {most[0][1]} times; allowed: a different name for each class"
        )
    return names


def _num_numbered(class_numbers: np.ndarray, num_images: int) -> int:
    """Number of classes that the class numbers imply; UserError where most of them have no image."""
    present = np.unique(class_numbers[class_numbers >= 0])
    num_classes, num_present = int(class_numbers.max()) + 1, len(present)
    if num_classes > min(num_images, 2 * num_present):
        raise UserError(
            f"labels go up to {num_classes - 1}, which implies {num_classes} classes, but there are only {num_images} train "
            f"images, of {num_present} classes; "
            "allowed: class numbers 0, 1, 2, ... without large gaps, or class_names with one name per class"
        )
    if num_present and present[0] > 0:
        raise UserError(
            f"labels lie in {present[0]}..{present[-1]}, and no image has the class 0; {_FROM_ONE}; where class "
            f"0 is meant to be without images, pass class_names with {num_classes} names"
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
    if images.dtype != np.uint8 and not is_float(images.dtype):
        raise UserError(f"{where} images are {images.dtype}; allowed: uint8 in 0..255, or float in 0..1")
    values = images if images.dtype == np.uint8 else in_numpys_floats(images)
    found = images if images.dtype == np.uint8 else gray_levels(values)
    value_range = f"{values.min():.4g}..{values.max():.4g}"
    if found is None:
        raise UserError(f"{where} images lie in {value_range}; allowed for float images: {ALLOWED_FLOATS}")
    if are_divided_twice(values):
        raise UserError(
            f"{where} images are {images.dtype} in {value_range}, all but black, as where they were "
            f"divided by 255 twice; allowed: uint8 in 0..255, or float in {ALLOWED_FLOATS}. Pass them as they were before the "
            "last division, or, where they are as they should be, multiply them by 255"
        )
    return found


def _in_numpys_type(labels: np.ndarray) -> np.ndarray:
    """Labels of bfloat16 in a type that NumPy knows; distributions, which it rounds, sum to 1 again."""
    if labels.dtype.kind != "V" or not is_float(labels.dtype):
        return labels
    values = in_numpys_floats(labels)
    if values.ndim != 2:
        return values
    sums = values.sum(1, keepdims=True)
    return np.where(np.abs(sums - 1) < _BFLOAT16_SUM_TOLERANCE, values / sums, values)


def most_likely(labels: np.ndarray) -> np.ndarray:
    """The class number of each label: itself, or the most likely class of a distribution; -1: no label."""
    return labels if labels.ndim == 1 else np.where(labels.any(axis=1), labels.argmax(1), -1)
