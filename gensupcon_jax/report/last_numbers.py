"""Numbers in tables: the last value of each that shows whether training goes well, and the measures of the features."""

from collections.abc import Sequence
from typing import Any

from gensupcon_jax.report.values import clean, is_number, number, shown

MEANINGS = {
    "train/chance_loss": ("chance-level loss", "of embeddings that know nothing; the loss should be below it"),
    "train/label_loss": ("loss of the labels", "the part without the teacher"),
    "train/teacher_loss": ("loss of the teacher's predictions", "the part with them as labels"),
    "train/contrastive_accuracy": (
        "contrastive accuracy",
        "share of anchors whose nearest contrast has a similar label",
    ),
    "train/valid_anchors": ("valid anchors", "share of anchors that have a similar contrast at all"),
    "train/similar_contrasts": ("similar contrasts", "an anchor, label similarity above one half"),
    "train/similarity_mass": ("similarity mass", "sum of label similarities an anchor"),
    "train/embedding_spread": ("spread of the embeddings", "0: all alike (collapse), 1: even in all directions"),
    "train/effective_rank": ("effective rank", "directions that the embeddings use"),
    "train/label_entropy": ("entropy of the labels", "nats; 0: one class each"),
    "train/teacher_entropy": ("entropy of the teacher", "nats; 0: one class each, ln(classes): it knows nothing"),
    "train/classifier_accuracy": ("accuracy of the classifier", "share of the training images of the last batch"),
    "train/gradient_norm": ("gradient norm", ""),
}


def last_numbers(metrics: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Name, value and meaning of each number that was logged, with its last value."""
    rows = []
    for key, (name, meaning) in MEANINGS.items():
        values = [number(row[key]) for row in metrics if is_number(row.get(key))]
        if values:
            rows.append({"name": name, "value": f"{values[-1]:.4g}", "meaning": meaning})
    return rows


def measure_rows(results: dict[str, Any]) -> list[dict[str, str]]:
    """Name, value on test and value on validation of each measure that was asked for."""
    on_test, on_validation = results.get("measures") or {}, results.get("validation_measures") or {}
    return [
        {"name": clean(name), "test": shown(value), "validation": shown(on_validation.get(name))}
        for name, value in on_test.items()
    ]
