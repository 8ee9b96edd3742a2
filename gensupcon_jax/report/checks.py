"""The quick checks: what a person would look at first, looked at already."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax.report.curves import curve, training_loss
from gensupcon_jax.report.data import PREDICTORS, ReportData, class_names
from gensupcon_jax.report.scatter import SCATTER_POINTS, unit_rows
from gensupcon_jax.report.similarity import similarity_correlation, similarity_missing, sorted_batch
from gensupcon_jax.report.values import clean, is_number, number, short


class Check(NamedTuple):
    """One line of the quick checks."""

    state: str  # "ok", "look" or "unknown"
    name: str
    text: str
    section: str  # the id of the section that shows more


def quick_checks(data: ReportData) -> list[Check]:
    """All of them, in the order of the page."""
    return [
        _check_finite(data.metrics),
        _check_loss(data),
        _check_similarity(data),
        _check_spread(data),
        _check_predictions(data),
        _check_labels(data),
        _check_views(data),
    ]


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
    return Check("look", name, text, section)


def _check_loss(data: ReportData) -> Check:
    name, section = "Training loss", "curves"
    _, values = curve(data.metrics, training_loss(data.metrics))
    finite = values[np.isfinite(values)]
    if finite.size < 1 + (data.chance_loss is None):
        return Check("unknown", name, "Too few logged values to judge.", section)
    last = float(finite[-max(1, finite.size // 10) :].mean())
    chance = data.chance_loss
    aim = float(finite[0]) if chance is None else chance
    against = f"the first value was {aim:.3g}" if chance is None else f"knowing nothing gives {aim:.3g}"
    verb = "Ended at" if last < aim else "Did not fall: ended at"
    return Check("ok" if last < aim else "look", name, f"{verb} {last:.3g}; {against}.", section)


def _check_similarity(data: ReportData) -> Check:
    name, section = "Embeddings and labels", "similarity"
    if similarity_missing(data):
        return Check("unknown", name, "No batch to compare.", section)
    correlation = similarity_correlation(*sorted_batch(data)[:2])
    if correlation is None:
        return Check("look", name, "One of the two similarities is the same everywhere.", section)
    state = "ok" if correlation >= 0.3 else "look"
    return Check(state, name, f"Their similarities correlate with r = {correlation:.2f} (1 is perfect).", section)


def _check_spread(data: ReportData) -> Check:
    name, section = "Collapse", "scatter"
    embeddings = data.test_embeddings
    if embeddings is None or len(embeddings) < 2:
        return Check("unknown", name, "No test embeddings.", section)
    if not np.isfinite(embeddings).all():
        return Check("look", name, "Some test embeddings are not finite.", section)
    cosine = _mean_cosine(embeddings[:: math.ceil(len(embeddings) / SCATTER_POINTS)])
    text = f"Two test images have a cosine similarity of {cosine:.2f} on average"
    if cosine > 0.98:
        return Check("look", name, f"{text}: all images look alike to the encoder.", section)
    return Check("ok", name, f"{text} (collapse would be 1.00).", section)


def _mean_cosine(embeddings: Float[np.ndarray, "test dim"]) -> float:
    """The mean cosine over all pairs, without forming the pairs."""
    units = unit_rows(embeddings)
    count = len(units)
    return float((np.square(units.sum(0)).sum() - np.square(units).sum()) / (count * (count - 1)))


def _check_predictions(data: ReportData) -> Check:
    name, section = "Predictions", "confusion"
    labels, predictions = data.test_labels, data.test_predictions
    if labels is None or predictions is None or not len(labels):
        return Check("unknown", name, "No test predictions.", section)
    percent, stated = 100 * float((labels == predictions).mean()), number(data.results.get(data.predictor))
    if abs(percent - stated) > 0.06:
        return Check("look", name, f"They give {percent:.1f} %, but the results say {stated:.1f} %.", section)
    forgotten = np.setdiff1d(labels, predictions)
    if forgotten.size:
        some = ", ".join(short(class_names(data)[index]) for index in forgotten[:3])
        more = f" and {forgotten.size - 3} more" if forgotten.size > 3 else ""
        return Check("look", name, f"The {PREDICTORS[data.predictor]} never says {some}{more}.", section)
    uses = f"uses all {np.unique(labels).size} classes of the test split."
    return Check("ok", name, f"The {PREDICTORS[data.predictor]} {uses}", section)


def _check_labels(data: ReportData) -> Check:
    name, section = "Labels", "sheet"
    labels = [labels for labels in (data.view_labels, data.batch_labels) if labels is not None and labels.size]
    if not labels:
        return Check("unknown", name, "No training labels to look at.", section)
    lowest = np.concatenate([rows.min(-1).ravel() for rows in labels])
    total = np.concatenate([rows.sum(-1).ravel() for rows in labels])
    # A mixed or smoothed label in bfloat16 sums to 1 within a per cent.
    good = (lowest >= -1e-6) & (np.abs(total - 1) < 0.01)
    if not good.all():
        text = f"{(~good).sum():,} of {good.size:,} rows are no distribution: negative, or not 100 % in sum."
        return Check("look", name, text, section)
    return Check("ok", name, f"All {good.size:,} rows seen here are distributions: shares of 100 %.", section)


def _check_views(data: ReportData) -> Check:
    name, section = "Augmented images", "sheet"
    if data.view_images is None or not data.view_images.size:
        return Check("unknown", name, "No augmented images to look at.", section)
    views = data.view_images.reshape(-1, math.prod(data.view_images.shape[2:])).astype(np.float32)
    flat = int((views.std(-1) < 1).sum())
    clipped = 100 * float(((views == 0) | (views == 255)).mean())
    extent = f"{clipped:.0f} % of all values are pure black or white"
    if flat:
        return Check("look", name, f"{flat} of {len(views)} views are one flat color; {extent}.", section)
    return Check("ok", name, f"None of {len(views)} views is one flat color; {extent}.", section)
