"""Several labels per image in a TFDS data set: which feature has them, and the row of 0 and 1 of a record."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from gensupcon_jax.errors import UserError

_USUAL = ("labels", "objects/label", "label", "attributes")  # the first of these that fits is taken


class SeveralLabels(NamedTuple):
    """The feature with the labels of a record, by its name in the record, and the names of the labels.

    is_row: whether it is a row with an entry for each label, not 0 where the image has it; else it lists their numbers.
    """

    key: str
    names: tuple[str, ...]
    is_row: bool

    def row(self, feature: Any) -> UInt8[np.ndarray, "label"]:
        """The row of 0 and 1 of a record, from its `tf.train.Feature` of that name."""
        values = np.array(feature.int64_list.value or feature.float_list.value)
        if self.is_row:
            return (values != 0).astype(np.uint8)
        row = np.zeros(len(self.names), np.uint8)
        row[values[values >= 0].astype(np.int64)] = 1
        return row


def several_labels_of(features: Any, name: str) -> SeveralLabels:
    """The feature with several labels per image: a sequence of class labels, also of objects in the image, or a row.

    Raises UserError for a data set without such a feature.
    """
    found = {labels.key: labels for labels in _candidates(features)}
    for key in (*_USUAL, *found):
        if key in found:
            return found[key]
    raise UserError(
        f"dataset.label_kind is several, but dataset.name 'tfds:{name}' has the features {sorted(features)}, none of them a "
        "sequence of class labels or a row of 0 and 1; allowed: dataset.label_kind=class, or another data set"
    )


def _candidates(features: Any) -> Iterator[SeveralLabels]:
    import tensorflow_datasets as tfds

    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, tfds.features.Sequence) else None
        if isinstance(inner, tfds.features.ClassLabel):
            yield SeveralLabels(name, tuple(inner.names), is_row=False)
        for part, labels in inner.items() if isinstance(inner, tfds.features.FeaturesDict) else ():
            if isinstance(labels, tfds.features.ClassLabel):
                yield SeveralLabels(f"{name}/{part}", tuple(labels.names), is_row=False)
        shape: Any = feature.shape if type(feature) is tfds.features.Tensor else ()
        if len(shape) == 1 and shape[0] and name in _USUAL:
            yield SeveralLabels(name, tuple(str(number) for number in range(shape[0])), is_row=True)
