"""Section 2: label similarity and latent similarity of one batch, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from gensupcon_jax.report.data import ReportData, class_names
from gensupcon_jax.report.drawing import BLUE, EDGE, NAMED_CLASSES, drawable_name, new_figure, png, tidy

HEAT_MAP_ANCHORS = 512  # about the screen pixels per side of a heat map


def similarity_section(data: ReportData) -> dict[str, Any] | str:
    """Both heat maps, the picture of pairs and the correlation, or why they are not shown."""
    reason = similarity_missing(data)
    if reason:
        return reason
    label_similarity, latent_similarity, classes = sorted_batch(data)
    names = [drawable_name(name, index) for index, name in enumerate(class_names(data))]
    correlation = similarity_correlation(label_similarity, latent_similarity)
    return {
        "picture": _similarity_picture(label_similarity, latent_similarity, classes, names),
        "follow_picture": _follow_picture(label_similarity, latent_similarity),
        "correlation": None if correlation is None else f"{correlation:.2f}".replace("-", "\N{MINUS SIGN}"),
        "anchors": 0 if data.batch_labels is None else len(data.batch_labels),
        "kept": len(classes),
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


def _similarity_picture(
    label_similarity: Float[np.ndarray, "anchor anchor"],
    latent_similarity: Float[np.ndarray, "anchor anchor"],
    classes: Integer[np.ndarray, " anchor"],
    names: Sequence[str],
) -> str:
    """The two heat maps with a common color scale: PNG as a data URI."""
    figure = new_figure(10.6, 5.0)
    panels = figure.subplots(1, 2)
    titles = ("Label similarity: the target", "Latent similarity: the encoder")
    for axes, matrix, title in zip(panels, (label_similarity, latent_similarity), titles, strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, aspect="equal")
        axes.set_title(title)
        _mark_blocks(axes, classes, names, axes is panels[0])
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02, ticks=(-1, -0.5, 0, 0.5, 1))
    bar.set_label("cosine similarity", fontsize=9)
    bar.outline.set_visible(False)
    return png(figure)


def _mark_blocks(axes: Any, classes: Integer[np.ndarray, " anchor"], names: Sequence[str], first: bool) -> None:
    """Lines between the classes of a sorted heat map, and the names of classes with enough space."""
    present, starts = np.unique(classes, return_index=True)
    ends = np.append(starts[1:], len(classes))
    if len(present) <= 60:
        for start in starts[1:]:
            axes.axhline(start - 0.5, color=EDGE, linewidth=0.5)
            axes.axvline(start - 0.5, color=EDGE, linewidth=0.5)
    # A name needs about 1/30 of the side; names of smaller blocks would overlap.
    is_wide = (ends - starts) / len(classes) > 1 / 30
    labels = [names[index] if wide else "" for index, wide in zip(present, is_wide, strict=True)]
    short = max(map(len, labels)) <= 3
    ticks, nothing = ((starts + ends - 1) / 2, labels), ([], [])
    if len(present) > NAMED_CLASSES:
        ticks = nothing
    # Rows and columns are the same classes: long names are written only at the left.
    axes.set_xticks(*(ticks if short else nothing), fontsize=8)
    axes.set_yticks(*(ticks if short or first else nothing), fontsize=8)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_color(EDGE)


def _follow_picture(
    label_similarity: Float[np.ndarray, "anchor anchor"], latent_similarity: Float[np.ndarray, "anchor anchor"]
) -> str:
    """Median and 10..90 % range of the latent similarity per tenth of label similarity: PNG as a data URI."""
    off_diagonal = ~np.eye(len(label_similarity), dtype=bool)
    labels, latents = label_similarity[off_diagonal], latent_similarity[off_diagonal]
    tenths = np.clip((labels * 10).round().astype(int), 0, 10)
    figure = new_figure(5.2, 2.7)
    axes = figure.add_subplot()
    axes.axhline(0, color="#b6bfcb", linewidth=1)
    for tenth in np.unique(tenths):
        low, middle, high = np.percentile(latents[tenths == tenth], (10, 50, 90))
        axes.plot([tenth / 10] * 2, [low, high], color=BLUE, alpha=0.35, linewidth=7, solid_capstyle="round")
        axes.plot([tenth / 10], [middle], color=BLUE, marker="o", markersize=6)
    axes.set_xlim(-0.08, 1.08)
    axes.set_ylim(-1.08, 1.08)
    axes.set_xlabel("label similarity of a pair")
    axes.set_ylabel("latent similarity")
    axes.set_title("Pairs of the batch")
    tidy(axes)
    return png(figure)
