"""The result of a classifier on frozen features: the setting is chosen on validation, the test split is used once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

Number = float | int


class Outcome(NamedTuple):
    """A setting chosen on validation, its validation accuracy, and its test predictions."""

    setting: Number
    validation_top1: float
    test_predictions: Int[np.ndarray, "example"]


def top1(predictions: Int[np.ndarray, "example"], classes: Int[np.ndarray, "example"]) -> float:
    """Share of correct predictions, in percent."""
    return 100.0 * float(np.mean(predictions == classes))
