"""The data of a report, and the names of its classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8

from gensupcon_jax.report.findings import FeatureFindings
from gensupcon_jax.report.pictured import PicturedSplit
from gensupcon_jax.report.values import clean
from gensupcon_jax.score_names import COLUMN_WORDS, PREDICTOR_NAMES, SCORE_NAMES

# Predictors whose test predictions can be shown: key in the results -> name.
PREDICTORS = {
    f"{predictor}_{score.key}": name
    for score in SCORE_NAMES.values()
    for predictor, name in PREDICTOR_NAMES.items()
    if predictor != "raw_pixel_knn"
}


@dataclass(frozen=True, eq=False)
class ReportData:
    """The contents of the page; a field that is None (or empty) is reported as missing.

    Arrays are NumPy arrays (use `np.asarray` on jax arrays); names and values are plain Python or NumPy scalars.
    """

    title: str
    # The shell command that reproduces the run; may have several lines.
    command: str = ""
    dataset: str = ""
    # results.json: linear_top1, knn_top1, raw_pixel_knn_top1 [percent of the test split], num_test, seed, seconds, ...
    results: dict[str, Any] = field(default_factory=dict)
    # The account of the run's wall time until now (`time` of results.json), asked last; None: that of the results.
    account_fn: Callable[[], dict[str, Any]] | None = None
    # Rows of metrics.jsonl: "step", then names; the curves are .../loss, .../top1 [percent] and train/learning_rate.
    metrics: Sequence[dict[str, Any]] = ()
    # Loss of uninformative embeddings, in the unit of train/loss, and the share of it that perfect separation removes.
    chance_loss: float | None = None
    separable: float | None = None
    # The sentences of the run before training; those during training are in the metrics, as "advice".
    notes: Sequence[str] = ()
    class_names: Sequence[str] = ()
    # With several labels per image: their names. A class is then a set of labels that some image has.
    label_names: Sequence[str] = ()
    # Where labels are numbers: the true and the predicted ones of the test split. A class is then a bin of values.
    test_values: Float[np.ndarray, " test"] | None = None
    predicted_values: Float[np.ndarray, " test"] | None = None
    # One batch: cosine of its label distributions (0..1), cosine of its embeddings (-1..1), and the distributions. Of
    # more than similarity.HEAT_MAP_ANCHORS anchors only that many are used.
    label_similarity: Float[np.ndarray, "anchor anchor"] | None = None
    latent_similarity: Float[np.ndarray, "anchor anchor"] | None = None
    batch_labels: Float[np.ndarray, "anchor _"] | None = None
    # The test split in one order; predictions are those of `predictor`, a key of PREDICTORS.
    test_embeddings: Float[np.ndarray, "test _"] | None = None
    test_labels: Integer[np.ndarray, " test"] | None = None
    test_predictions: Integer[np.ndarray, " test"] | None = None
    predictor: str = "linear_top1"
    # Probability (0..1) that the predictor gives its prediction.
    test_confidences: Float[np.ndarray, " test"] | None = None
    # Key of PREDICTORS -> its comparison with the raw pixels on the test images: `evaluation.paired.Paired`.
    paired: dict[str, Any] = field(default_factory=dict)
    # "train", "validation", "test" -> their images; the test split in the order of the fields above.
    splits: dict[str, PicturedSplit] = field(default_factory=dict)
    # What the features of these splits tell: `feature_findings`.
    findings: FeatureFindings | None = None
    # Some training images, and the views of them as the network saw them, de-normalized and clipped to 0..255.
    original_images: UInt8[np.ndarray, "image _ _ _"] | None = None
    original_labels: Integer[np.ndarray, " image"] | None = None
    view_images: UInt8[np.ndarray, "image view _ _ _"] | None = None
    view_labels: Float[np.ndarray, "image view _"] | None = None
    # The same for the local views, which are smaller.
    local_images: UInt8[np.ndarray, "image local_view _ _ _"] | None = None
    local_labels: Float[np.ndarray, "image local_view _"] | None = None
    config: dict[str, Any] = field(default_factory=dict)


def class_count(data: ReportData) -> int:
    """Number of classes that are named or occur in any array."""
    counts = [len(data.class_names)]
    of_classes = (data.batch_labels, None if data.label_names else data.view_labels)
    counts += [labels.shape[-1] for labels in of_classes if labels is not None]
    of_splits = [split.classes for split in data.splits.values()]
    for labels in (data.test_labels, data.test_predictions, data.original_labels, *of_splits):
        counts += [int(labels.max()) + 1] if labels is not None and labels.size else []
    return max(counts)


def label_things(data: ReportData) -> str:
    """What the columns of the labels are, in words: classes, labels, or bins of values."""
    kind = "several" if data.label_names else "class" if data.test_values is None else "value"
    return COLUMN_WORDS[kind]


def class_names(data: ReportData) -> list[str]:
    """A name for every class index that occurs; a class without a name is named by its number."""
    names = [clean(name) or f"class {index}" for index, name in enumerate(data.class_names)]
    return names + [f"class {index}" for index in range(len(names), class_count(data))]
