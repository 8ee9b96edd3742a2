"""Labels of a data set that are numbers: their checks, cuts that keep their spread, and their distributions over bins."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.data.cuts import SPLIT_SEED
from gensupcon_jax.data.splits import AnySplit, EncodedSplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.value_bins import ValueBins, bins_for

ALLOWED_VALUES = "[example] finite numbers"
DEFAULT_BINS = FIELDS["dataset.num_bins"].default
_GROUPS = 10  # of equally many images by their values, from each of which a cut takes its share


def checked_values(labels: np.ndarray, where: str) -> Float[np.ndarray, "example"]:
    """float64 values from what a user passed; UserError for anything else."""
    if labels.dtype.kind not in "iuf" or labels.ndim != 1 or labels.size == 0:
        numeric = labels.dtype.kind in "iuf"
        found = f"have shape {labels.shape}" if numeric else f"are of type {labels.dtype}"
        raise UserError(f"{where} labels {found}; allowed with dataset.label_kind value: {ALLOWED_VALUES}")
    values = labels.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise UserError(
            f"{where} labels are {values[wrong[0]]} in row {wrong[0]}, and not finite in {len(wrong)} of {len(values)} rows; "
            f"allowed with dataset.label_kind value: {ALLOWED_VALUES}"
        )
    return values


def cut_off_values(split: Any, values: Shaped[np.ndarray, "example"], size: int, where: str) -> tuple[Any, Any]:
    """(rest, part): `size` images cut from a split that has `subset`, from small to large values alike.

    Always the same images, each side in the order of the split.  UserError where a side would be empty.
    """
    if not 1 <= size < len(values):
        raise UserError(
            f"{where} would be {size} of {len(values)} images, but both sides need 1 or more; "
            f"pass {where}=(images, labels), more images, or another {where}_fraction"
        )
    in_part = np.zeros(len(values), bool)
    in_part[_spread(values, size)] = True
    return split.subset(np.flatnonzero(~in_part)), split.subset(np.flatnonzero(in_part))


def _spread(values: np.ndarray, size: int) -> np.ndarray:
    """`size` images, one drawn from each of as many ranges of the sorted values (or from each of `_GROUPS`, by their share)."""
    order = np.argsort(values, kind="stable")
    random_bits = np.random.Philox(key=[SPLIT_SEED, len(values)]).random_raw(len(values))
    chosen = []
    num_groups = min(_GROUPS, size)
    sizes = [len(part) for part in np.array_split(np.arange(size), num_groups)]
    for group, wanted in zip(np.array_split(order, num_groups), sizes, strict=True):
        chosen.append(group[np.argsort(random_bits[group], kind="stable")[:wanted]])
    return np.concatenate(chosen)


def over_bins(dataset: Any, bins: ValueBins) -> Any:
    """The data set with labels over these bins, one class for each; UserError for values that they do not cover."""
    splits = {}
    for name, split in dataset.splits.items():
        bins.check(split.values, f"the values of {name}")
        labels = bins.labels(split.values)
        splits[name] = with_rows(split, labels)
    return dataclasses.replace(dataset, **splits, class_names=bins.names, bins=bins)


def with_rows(split: AnySplit, rows: Float[np.ndarray, "example bin"]) -> AnySplit:
    """The split, in memory or encoded, with these label rows."""
    if isinstance(split, EncodedSplit):
        return dataclasses.replace(split, rows=rows, num_classes=rows.shape[1], classes=rows.argmax(1))
    return split._replace(labels=rows)


def rebinned(dataset: Any, *, num_bins: int = DEFAULT_BINS, width: Any = None, value_range: Any = None) -> Any:
    """The data set with labels over the bins that the config's `dataset` fields ask for.

    Without a range the bins reach from the smallest to the largest value of all splits. UserError for bins that do not fit.
    """
    values = np.concatenate([split.values for split in dataset.splits.values()])
    return over_bins(dataset, bins_for(values, num_bins=num_bins, width=width, value_range=value_range))
