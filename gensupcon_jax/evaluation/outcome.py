"""The result of a classifier on frozen features: the setting is chosen on validation, the test split is used once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from gensupcon_jax.evaluation.kept_probe import FittedProbe

Number = float | int


class Outcome(NamedTuple):
    """A setting chosen on validation, its main score on validation, and its test predictions.

    validation_score: None without a validation split; the setting is then the only candidate.
    test_predictions: the class of each image; with several labels per image, the probability of each label; or its number.
    test_confidences: probability (0..1) of each prediction, where the outcome has them.
    """

    setting: Number
    validation_score: float | None
    test_predictions: Shaped[np.ndarray, "example ..."]
    test_confidences: Float[np.ndarray, "example"] | None = None


class LinearProbe(NamedTuple):
    """The outcome of the probe with the penalty that was chosen, and the probe itself."""

    outcome: Outcome
    fitted: FittedProbe


def top1(predictions: Int[np.ndarray, "example"], classes: Int[np.ndarray, "example"]) -> float:
    """Share of correct predictions, in percent."""
    return 100.0 * float(np.mean(predictions == classes))


def per_class_top1(
    predictions: Int[np.ndarray, "example"], classes: Int[np.ndarray, "example"], num_classes: int
) -> list[float | None]:
    """For each class, the share of its images that are predicted right, in percent (recall); None for a class without images.

    >>> per_class_top1(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    [50.0, 100.0, None]
    """
    shares = (predictions[classes == number] == number for number in range(num_classes))
    return [100.0 * float(share.mean()) if len(share) else None for share in shares]
