"""Label similarity and latent similarity of one batch, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from gensupcon_jax.report.charts import range_chart
from gensupcon_jax.report.colors import NAMED_CLASSES
from gensupcon_jax.report.data import ReportData, class_names, label_things
from gensupcon_jax.report.heat import fitted_range, heat_uri
from gensupcon_jax.report.values import short

HEAT_MAP_ANCHORS = 512  # about the screen pixels per side of a heat map
_SORTED_BY = {"classes": "dominant class", "bins of values": "value", "labels": "strongest label"}


def similarity_section(data: ReportData) -> dict[str, Any] | str:
    """Both heat maps, the picture of pairs and the correlation, or why they are not shown."""
    reason = similarity_missing(data)
    if reason:
        return reason
    label_similarity, latent_similarity, classes = sorted_batch(data)
    blocks, things = _blocks(classes, class_names(data)), label_things(data)
    parts = f"{len(blocks)} {things}"
    correlation = similarity_correlation(label_similarity, latent_similarity)
    return {
        "maps": [
            _heat_map("Label similarity: the target", label_similarity, parts, "similarity of the labels"),
            _heat_map("Latent similarity: the encoder", latent_similarity, parts, "cosine of the embeddings"),
        ],
        "blocks": blocks,
        "pairs": range_chart("Pairs of the batch", pair_ranges(label_similarity, latent_similarity)),
        "correlation": None if correlation is None else f"{correlation:.2f}".replace("-", "\N{MINUS SIGN}"),
        "anchors": 0 if data.batch_labels is None else len(data.batch_labels),
        "kept": len(classes),
        "sorted_by": _SORTED_BY[things],
    }


def similarity_missing(data: ReportData) -> str:
    """Why the heat maps cannot be drawn; empty if they can."""
    given = (data.label_similarity, data.latent_similarity, data.batch_labels)
    matrices = [matrix for matrix in given if matrix is not None]
    if len(matrices) < len(given):
        return "The run has no batch with label and latent similarities (only contrastive training has them)."
    if len(matrices[-1]) < 2:
        return "The batch has fewer than two anchors: there is nothing to compare."
    if not all(np.isfinite(matrix).all() for matrix in matrices):
        return "The similarities of the batch contain values that are not finite: the run has diverged."
    return ""


def sorted_batch(data: ReportData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both similarities and the dominant classes in class order: at most HEAT_MAP_ANCHORS evenly spaced anchors."""
    labels, by_label, by_latent = data.batch_labels, data.label_similarity, data.latent_similarity
    assert labels is not None and by_label is not None and by_latent is not None  # see similarity_missing
    order = class_order(labels)
    kept = order[np.linspace(0, len(order) - 1, min(len(order), HEAT_MAP_ANCHORS)).round().astype(int)]
    square = np.ix_(kept, kept)
    return by_label[square], by_latent[square], labels[kept].argmax(1)


def class_order(batch_labels: Float[np.ndarray, "anchor class"]) -> Int[np.ndarray, " anchor"]:
    """Order of the anchors by dominant class, the purest label of each class first."""
    return np.lexsort((-batch_labels.max(1), batch_labels.argmax(1)))


def similarity_correlation(
    label_similarity: Float[np.ndarray, "anchor anchor"], latent_similarity: Float[np.ndarray, "anchor anchor"]
) -> float | None:
    """Pearson correlation (-1..1) of the off-diagonal entries; None if one of them is constant."""
    off_diagonal = ~np.eye(len(label_similarity), dtype=bool)
    labels, latents = (np.asarray(matrix, np.float64)[off_diagonal] for matrix in (label_similarity, latent_similarity))
    if labels.size < 2 or labels.std() < 1e-9 or latents.std() < 1e-9:
        return None
    return float(np.corrcoef(labels, latents)[0, 1])


def _heat_map(title: str, matrix: Float[np.ndarray, "anchor anchor"], parts: str, what: str) -> dict[str, Any]:
    """One matrix with a scale of its own, fitted to its values."""
    low, high = fitted_range(np.asarray(matrix, np.float64)[~np.eye(len(matrix), dtype=bool)])
    ends = [f"{end:.2f}".replace("-", "\N{MINUS SIGN}") for end in (low, high)]
    return {
        "title": title,
        "picture": heat_uri(np.asarray(matrix, np.float64), low, high),
        "low": ends[0],
        "high": ends[1],
        "alt": f"{title}: {what} of {len(matrix)} by {len(matrix)} images in {parts}, from {ends[0]} to {ends[1]}",
    }


def _blocks(classes: Integer[np.ndarray, " anchor"], names: Sequence[str]) -> list[dict[str, Any]]:
    """Where each class of a sorted heat map begins and ends, in percent, and its name where it has enough space."""
    present, starts = np.unique(classes, return_index=True)
    ends = np.append(starts[1:], len(classes))
    places = 100 / len(classes)
    return [
        {
            "start": round(float(start * places), 2),
            "size": round(float((end - start) * places), 2),
            # A name needs about 1/24 of the side; names of smaller blocks would overlap.
            "name": short(str(names[int(index)]), 12)
            if len(present) <= NAMED_CLASSES and (end - start) * places > 4
            else "",
        }
        for index, start, end in zip(present, starts.tolist(), ends.tolist(), strict=True)
    ]


def pair_ranges(
    label_similarity: Float[np.ndarray, "anchor anchor"], latent_similarity: Float[np.ndarray, "anchor anchor"]
) -> list[tuple[float, float, float, float]]:
    """For each tenth of label similarity that occurs: it, and the 10, 50 and 90 % points of the latent similarity."""
    off_diagonal = ~np.eye(len(label_similarity), dtype=bool)
    labels, latents = label_similarity[off_diagonal], latent_similarity[off_diagonal]
    tenths = np.clip((labels * 10).round().astype(int), 0, 10)
    ranges = []
    for tenth in np.unique(tenths):
        low, middle, high = np.percentile(latents[tenths == tenth], (10, 50, 90)).tolist()
        ranges.append((int(tenth) / 10, low, middle, high))
    return ranges
