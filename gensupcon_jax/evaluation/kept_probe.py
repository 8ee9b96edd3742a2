"""The linear probe that a run fitted, kept in its workdir: `probe.npz`, one probe for each step that was evaluated.

Arrays of the file, for a probe of step N (numpy's .npz, no pickle; a fingerprint of the content is checked):

    N/weight         float64 [feature, class]   for the features as they are: the standardization is folded in
    N/bias           float64 [class]
    N/class_numbers  int64 [class]              the classes that the training images have, ascending
    N/output         text                       sigmoid with several labels per image, each by itself; value: the number itself;
                                                else left out

A workdir whose run fitted no probe and has no classifier has `neighbors.npz` instead, see `kept_neighbors`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from gensupcon_jax.paths import Path
from gensupcon_jax.store.kept_arrays import read_kept, write_kept
from gensupcon_jax.store.workdir import PROBE

_KIND = "linear probe 1"


class FittedProbe(NamedTuple):
    """A logistic regression on features as the network returns them, multinomial or of each label by itself, or a linear one.

    class_numbers: the class of each column, those that the training images have.  step: of the network that it was fitted on.
    output: softmax; sigmoid for several labels per image; value: one column that is the predicted number.
    """

    weight: Float[np.ndarray, "feature class"]
    bias: Float[np.ndarray, "class"]
    class_numbers: Int[np.ndarray, "class"]
    step: int
    output: str = "softmax"

    def probabilities(self, features: Float[np.ndarray, "image feature"]) -> Float[np.ndarray, "image class"]:
        """The probability of each of `class_numbers` for each image, in float64; rows sum to 1, except with several labels."""
        logits = features.astype(np.float64) @ self.weight + self.bias
        if self.output == "sigmoid":
            return scipy.special.expit(logits)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def values(self, features: Float[np.ndarray, "image feature"]) -> Float[np.ndarray, "image"]:
        """The number that each image has, of a data set whose labels are numbers."""
        return (features.astype(np.float64) @ self.weight + self.bias)[:, 0]

    def class_probabilities(
        self, features: Float[np.ndarray, "image feature"], num_classes: int
    ) -> Float[np.ndarray, "image {num_classes}"]:
        """The probability of each class of the data set: 0 for one without training images."""
        found = np.zeros((len(features), num_classes))
        found[:, self.class_numbers] = self.probabilities(features)
        return found


def write_probe(folder: Path, probes: Sequence[FittedProbe]) -> Path | None:
    """Keep these probes, of different steps, in the workdir; returns where a different `probe.npz` that was there is now."""
    arrays = {}
    for probe in probes:
        named = {"weight": probe.weight, "bias": probe.bias, "class_numbers": probe.class_numbers.astype(np.int64)}
        named |= {} if probe.output == "softmax" else {"output": np.array(probe.output)}
        arrays |= {f"{probe.step}/{name}": array for name, array in named.items()}
    return write_kept(folder / PROBE, _KIND, arrays)


def read_probe(folder: Path, step: int) -> FittedProbe | None:
    """The probe that was fitted on the network of this step, None if none was kept.

    Raises UserError for a file that is damaged or of another program.
    """
    arrays = read_kept(folder / PROBE, _KIND)
    if arrays is None or f"{step}/weight" not in arrays:
        return None
    output = str(arrays[f"{step}/output"]) if f"{step}/output" in arrays else "softmax"
    parts = (arrays[f"{step}/{name}"] for name in ("weight", "bias", "class_numbers"))
    return FittedProbe(*parts, step=step, output=output)
