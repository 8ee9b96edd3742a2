"""The quick checks at the top of the report."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax import verdicts
from gensupcon_jax.report.data import PREDICTORS, ReportData, class_count, class_names
from gensupcon_jax.report.labels import label_check
from gensupcon_jax.report.scatter import SCATTER_POINTS, unit_rows
from gensupcon_jax.report.similarity import similarity_correlation, similarity_missing, sorted_batch
from gensupcon_jax.report.values import clean, is_number, number, short

# Equal embeddings differ by rounding only, in all directions: that is not a rank.
_SMALLEST_SPREAD = 1e-9


class Check(NamedTuple):
    """One line of the quick checks."""

    state: str  # "ok", "warning" or "unknown"
    name: str
    text: str
    section: str  # id of the section with the details


def quick_checks(data: ReportData) -> list[Check]:
    """All checks, in the order of the page."""
    return [
        _check_finite(data.metrics),
        _check_loss(data),
        _check_similarity(data),
        _check_spread(data),
        _check_predictions(data),
        _check_labels(data),
        _check_views(data),
    ]


def sentences(data: ReportData) -> list[tuple[str, str]]:
    """(when, sentence) of all that the run said: before training, then by step."""
    said = [(f"step {clean(row.get('step'))}", clean(text)) for row in data.metrics for text in row.get("advice") or ()]
    return [("before training", clean(note)) for note in data.notes] + said


def _check_finite(metrics: Sequence[dict[str, Any]]) -> Check:
    name, section = "Logged numbers", "curves"
    values = [
        (row.get("step"), key, number(value))
        for row in metrics
        for key, value in row.items()
        if key != "step" and (value is None or is_number(value))
    ]
    bad = [(step, key) for step, key, value in values if not math.isfinite(value)]
    if not values:
        return Check("unknown", name, "Nothing was logged.", section)
    if not bad:
        return Check("ok", name, f"All {len(values):,} are finite.", section)
    step, key = bad[0]
    text = f"Not finite: {len(bad):,} of {len(values):,}. The first is {clean(key)} at step {clean(step)}."
    return Check("warning", name, text, section)


def _check_loss(data: ReportData) -> Check:
    name, section = "Training loss", "curves"
    numbers = verdicts.end_of_training(data.metrics, data.chance_loss)
    loss, chance, step = verdicts.label_loss(numbers), numbers["chance_loss"], numbers["step"]
    if not math.isfinite(loss):
        return Check("unknown", name, "No logged values.", section)
    if not math.isfinite(chance):
        return Check("unknown", name, f"{loss:.4f} at step {step:g}; the chance level is not known.", section)
    if not verdicts.is_at_chance(numbers, data.separable):
        text = f"{loss:.4f} at step {step:g}, below the {chance:.4f} of a network that has learned nothing."
        return Check("ok", name, text, section)
    text = verdicts.at_chance(numbers, data.results.get("objective", "contrastive"))
    if step < verdicts.EARLIEST_STEP:
        return Check("unknown", name, f"{text}; {step:g} steps are too few to learn.", section)
    return Check("warning", name, f"{text}.", section)


def _check_similarity(data: ReportData) -> Check:
    name, section = "Embeddings and labels", "similarity"
    if similarity_missing(data):
        return Check("unknown", name, "No batch to compare.", section)
    correlation = similarity_correlation(*sorted_batch(data)[:2])
    if correlation is None:
        return Check("warning", name, "One of the two similarities is constant.", section)
    state = "ok" if correlation >= 0.3 else "warning"
    return Check(state, name, f"Their similarities correlate with r = {correlation:.2f} (1 is perfect).", section)


def _check_spread(data: ReportData) -> Check:
    name, section = "Collapse", "scatter"
    embeddings = data.test_embeddings
    if embeddings is None or len(embeddings) < 2:
        return Check("unknown", name, "No test embeddings.", section)
    if not np.isfinite(embeddings).all():
        return Check("warning", name, "Some test embeddings are not finite.", section)
    numbers = verdicts.end_of_training(data.metrics, data.chance_loss)
    is_settled = numbers["step"] >= verdicts.EARLIEST_STEP
    if is_settled and verdicts.is_collapsed(numbers, class_count(data), data.separable):
        return Check("warning", name, f"{verdicts.collapsed(numbers)}.", section)
    spread, rank = spread_and_rank(embeddings[:: math.ceil(len(embeddings) / SCATTER_POINTS)])
    of_test = {
        "loss": numbers["loss"],
        "chance_loss": numbers["chance_loss"],
        "embedding_spread": spread,
        "effective_rank": rank,
    }
    if verdicts.is_collapsed(of_test | {"label_loss": verdicts.label_loss(numbers)}, class_count(data), data.separable):
        return Check("warning", name, f"{verdicts.collapsed(of_test)}.", section)
    text = f"The test embeddings have spread {spread:.4f} (0: all alike) and effective rank {rank:.1f}."
    return Check("ok", name, text, section)


def spread_and_rank(embeddings: Float[np.ndarray, "test dim"]) -> tuple[float, float]:
    """1 - |mean|^2 of the unit embeddings, and the number of directions that they use (0 if all are equal)."""
    centered = unit_rows(embeddings).astype(np.float64)
    centered -= centered.mean(0)
    covariance = centered.T @ centered / len(centered)
    spread = float(np.trace(covariance))
    return spread, float(spread**2 / np.square(covariance).sum()) if spread > _SMALLEST_SPREAD else 0.0


def _check_predictions(data: ReportData) -> Check:
    name, section = "Predictions", "confusion"
    labels, predictions = data.test_labels, data.test_predictions
    if data.label_names:
        return Check(*label_check(data), "labels")
    if data.test_values is not None:
        return _check_values(data)
    if labels is None or predictions is None or not len(labels):
        return Check("unknown", name, "No test predictions.", section)
    percent, stated = 100 * float((labels == predictions).mean()), number(data.results.get(data.predictor))
    if abs(percent - stated) > 0.06:
        return Check(
            "warning", name, f"Their accuracy is {percent:.1f} %, but the results list {stated:.1f} %.", section
        )
    unused = np.setdiff1d(labels, predictions)
    if unused.size:
        some = ", ".join(short(class_names(data)[index]) for index in unused[:3])
        more = f" and {unused.size - 3} more" if unused.size > 3 else ""
        return Check("warning", name, f"The {PREDICTORS[data.predictor]} never predicts {some}{more}.", section)
    found = f"predicts all {np.unique(labels).size} classes of the test split."
    return Check("ok", name, f"The {PREDICTORS[data.predictor]} {found}", section)


def _check_values(data: ReportData) -> Check:
    name, section = "Predictions", "fitted_values"
    if data.predicted_values is None:
        return Check("unknown", name, "No predicted values.", section)
    found, mean = number(data.results.get(data.predictor)), PREDICTORS[data.predictor]
    if not found > 0:
        return Check("warning", name, f"The {mean} predicts no better than the mean value.", section)
    return Check("ok", name, f"The {mean} explains {found:.1f} % of the variance of the values.", section)


def _check_labels(data: ReportData) -> Check:
    name, section = "Labels", "sheet"
    given = (data.view_labels, data.batch_labels, data.local_labels)
    labels = [labels for labels in given if labels is not None and labels.size]
    if not labels:
        return Check("unknown", name, "No training labels.", section)
    if data.label_names:
        return _check_several(labels[0])
    lowest = np.concatenate([rows.min(-1).ravel() for rows in labels])
    total = np.concatenate([rows.sum(-1).ravel() for rows in labels])
    # A mixed or smoothed label in bfloat16 sums to 1 within 1 %.
    good = (lowest >= -1e-6) & (np.abs(total - 1) < 0.01)
    if not good.all():
        text = (
            f"{(~good).sum():,} of {good.size:,} rows are not distributions: negative, or with a sum other than 100 %."
        )
        return Check("warning", name, text, section)
    return Check("ok", name, f"All {good.size:,} rows are distributions with a sum of 100 %.", section)


def _check_several(labels: Float[np.ndarray, "... label"]) -> Check:
    name, section = "Labels", "sheet"
    bad = int(((labels < -1e-6) | (labels > 1 + 1e-6)).any(-1).sum())
    rows = labels[..., 0].size
    if bad:
        return Check("warning", name, f"{bad:,} of {rows:,} rows have entries outside 0 to 100 %.", section)
    return Check("ok", name, f"All entries of {rows:,} rows lie between 0 and 100 %.", section)


def _check_views(data: ReportData) -> Check:
    name, section = "Augmented images", "sheet"
    if data.view_images is None or not data.view_images.size:
        return Check("unknown", name, "No augmented images.", section)
    views = data.view_images.reshape(-1, math.prod(data.view_images.shape[2:])).astype(np.float32)
    flat = int((views.std(-1) < 1).sum())
    clipped = 100 * float(((views == 0) | (views == 255)).mean())
    extent = f"{clipped:.0f} % of all values are pure black or white"
    if flat:
        return Check("warning", name, f"{flat} of {len(views)} views have a single color; {extent}.", section)
    return Check("ok", name, f"None of {len(views)} views has a single color; {extent}.", section)
