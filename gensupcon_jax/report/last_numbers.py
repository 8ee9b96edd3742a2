"""Tables of numbers: the last values of training metrics, and further measures of the features."""

from collections.abc import Sequence
from typing import Any

from gensupcon_jax.report.values import clean, is_number, number, shown

MEANINGS = {
    "train/chance_loss": ("chance-level loss", "of uninformative embeddings; the loss should be below it"),
    "train/label_loss": ("loss of the labels", "the part without the teacher"),
    "train/teacher_loss": ("loss of the teacher's predictions", "the part with the predictions as labels"),
    "train/contrastive_accuracy": (
        "contrastive accuracy",
        "share of anchors whose nearest contrast has a similar label",
    ),
    "train/valid_anchors": ("valid anchors", "share of anchors with at least one similar contrast"),
    "train/similar_contrasts": ("similar contrasts", "per anchor, with a label similarity above 0.5"),
    "train/similarity_mass": ("similarity mass", "sum of label similarities per anchor"),
    "train/embedding_spread": ("spread of the embeddings", "0: all equal (collapse), 1: uniform in all directions"),
    "train/effective_rank": ("effective rank", "directions that the embeddings use"),
    "train/label_entropy": ("entropy of the labels", "nats; 0: one class each"),
    "train/teacher_entropy": ("entropy of the teacher", "nats; 0: one class each, ln(classes): uninformative"),
    "train/unrelated_attraction": (
        "attraction without a common class",
        "share of the teacher's attraction; high where the teacher gives all classes some probability",
    ),
    "train/classifier_accuracy": (
        "accuracy of the classifier",
        "share of the images of the last batch, or of the decisions on their labels",
    ),
    "train/gradient_norm": ("gradient norm", ""),
    "train/skipped_steps": ("skipped steps", "values that were not finite, and spikes; the step changed nothing"),
    "train/spikes": (
        "spikes",
        "steps that were skipped as their loss or gradient was far above that of the steps before",
    ),
}


def last_numbers(metrics: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Name, last value and meaning of each metric that was logged."""
    rows = []
    for key, (name, meaning) in MEANINGS.items():
        values = [number(row[key]) for row in metrics if is_number(row.get(key))]
        if values:
            rows.append({"name": name, "value": f"{values[-1]:.4g}", "meaning": meaning})
    return rows


def measure_rows(results: dict[str, Any]) -> list[dict[str, str]]:
    """Name, value on test and value on validation of each further measure."""
    on_test, on_validation = results.get("measures") or {}, results.get("validation_measures") or {}
    return [
        {"name": clean(name), "test": shown(value), "validation": shown(on_validation.get(name))}
        for name, value in on_test.items()
    ]
