"""What the features of all splits tell, computed once: neighbors, suspicious labels and near-duplicates."""

from typing import NamedTuple

import numpy as np

from gensupcon_jax.report.duplicates import NearDuplicate, near_duplicates
from gensupcon_jax.report.nearest import Nearest, nearest_images
from gensupcon_jax.report.pictured import PicturedSplit
from gensupcon_jax.report.suspicious import SuspiciousLabel, suspicious_labels

_NEIGHBORS = 10


class FeatureFindings(NamedTuple):
    """among_train: of each split, the nearest training images; of training images, the nearest others."""

    among_train: dict[str, Nearest]
    suspicious: list[SuspiciousLabel]
    duplicates: list[NearDuplicate]


def feature_findings(splits: dict[str, PicturedSplit], features: dict[str, np.ndarray]) -> FeatureFindings | None:
    """Compare the features of the splits; None if any of them is not finite.

    splits: "train" and others, in the order of the page.  features: of each, float32 [image, feature].
    """
    if not all(np.isfinite(features[name]).all() for name in splits):
        return None
    among_train = {
        name: nearest_images(features[name], None if name == "train" else features["train"], _NEIGHBORS)
        for name in splits
    }
    return FeatureFindings(
        among_train, suspicious_labels(splits, among_train), near_duplicates(splits, features, among_train)
    )
