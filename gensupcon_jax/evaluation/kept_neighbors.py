"""What a weighted k-NN needs, kept in the workdir of a run without probe and classifier: `neighbors.npz`.

Arrays of the file, for the network of step N (numpy's .npz, no pickle; a fingerprint of the content is checked):

    N/values         float32 [stored, feature]  features of the training images that the evaluation compared with
    N/class_numbers  int64 [stored]             their classes
    N/targets        float32 [stored, label]    only with several labels per image: rows of 0 and 1; of numbers [stored]
    N/neighbors      int64 []                   the k that was best on the validation split
    N/temperature    float64 []                 a neighbor's vote has the weight exp(cosine / temperature)

More than `MOST_BYTES` of features per step are not kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.knn import knn_means, knn_probabilities
from gensupcon_jax.evaluation.outcome import Number
from gensupcon_jax.paths import Path
from gensupcon_jax.store.kept_arrays import read_kept, write_kept
from gensupcon_jax.store.workdir import NEIGHBORS

MOST_BYTES = 2**28  # 256 MiB: 131,072 images with 512 features

_KIND = "nearest neighbors 1"


class KeptNeighbors(NamedTuple):
    """Features and classes of training images, the k and the temperature of a weighted k-NN, and the step of the network."""

    train: Features
    neighbors: int
    temperature: Number
    step: int

    def class_probabilities(
        self, features: Float[np.ndarray, "image feature"], num_classes: int
    ) -> Float[np.ndarray, "image {num_classes}"]:
        """The share of the weighted votes of the k nearest training images for each class.

        Rows sum to 1, except with several labels per image.
        """
        if self.train.targets is not None:
            return self.means(features)
        settings = {"neighbors": self.neighbors, "temperature": self.temperature, "num_classes": num_classes}
        return knn_probabilities(self.train, features, **settings)

    def means(self, features: Float[np.ndarray, "image feature"]) -> Float[np.ndarray, "image ..."]:
        """The weighted mean of the targets of the k nearest training images: of numbers, the predicted number."""
        k = min(self.neighbors, len(self.train.values))
        return knn_means(self.train, features, neighbors=(k,), temperature=self.temperature)[k]


def fits(train: Features) -> bool:
    """Whether features of this size are kept."""
    return train.values.nbytes <= MOST_BYTES


def write_neighbors(folder: Path, kept: Sequence[KeptNeighbors]) -> Path | None:
    """Keep these, of different steps, in the workdir; returns where a different `neighbors.npz` that was there is now."""
    arrays = {}
    for each in kept:
        named = {
            "values": each.train.values,
            "class_numbers": each.train.classes.astype(np.int64),
            "neighbors": np.array(each.neighbors, np.int64),
            "temperature": np.array(each.temperature, np.float64),
        }
        named |= {} if each.train.targets is None else {"targets": each.train.targets.astype(np.float32)}
        arrays |= {f"{each.step}/{name}": array for name, array in named.items()}
    return write_kept(folder / NEIGHBORS, _KIND, arrays)


def read_neighbors(folder: Path, step: int) -> KeptNeighbors | None:
    """Those of the network of this step, None if none were kept; UserError for a damaged or foreign file."""
    arrays = read_kept(folder / NEIGHBORS, _KIND)
    if arrays is None or f"{step}/values" not in arrays:
        return None
    values, classes, neighbors, temperature = (
        arrays[f"{step}/{name}"] for name in ("values", "class_numbers", "neighbors", "temperature")
    )
    train = Features(values, classes, arrays.get(f"{step}/targets"))
    return KeptNeighbors(train, int(neighbors), float(temperature), step)
