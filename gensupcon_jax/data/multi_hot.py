"""Several labels per image as rows of 0 and 1: the checks of such rows, and stratified cuts of images that have them."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gensupcon_jax.data.cuts import SPLIT_SEED
from gensupcon_jax.errors import UserError

ALLOWED_ROWS = (
    "[example, label] rows of 0 and 1, any number of ones in each "
    "(sklearn.preprocessing.MultiLabelBinarizer().fit_transform(labels) turns lists of labels into such rows)"
)


def checked_rows(labels: np.ndarray, where: str) -> Float[np.ndarray, "example label"]:
    """float32 rows of 0 and 1 from what a user passed; UserError for anything else.

    A row of zeros is an image that has none of the labels.
    """
    if labels.dtype.kind not in "biuf" or labels.ndim != 2 or labels.size == 0:
        found = f"have shape {labels.shape}" if labels.dtype.kind in "biuf" else f"are of type {labels.dtype}"
        raise UserError(
            f"{where} labels {found}; allowed with dataset.label_kind several: {ALLOWED_ROWS}; for one class or "
            "distribution per image: dataset.label_kind class"
        )
    wrong = np.flatnonzero(~((labels == 0) | (labels == 1)).all(axis=1))
    if len(wrong):
        row = labels[wrong[0]]
        entry = row[(row != 0) & (row != 1)][0]
        raise UserError(
            f"{where} labels have entries other than 0 and 1 in {len(wrong)} of {len(labels)} rows, first in row {wrong[0]} "
            f"({entry:.4g}); allowed with dataset.label_kind several: {ALLOWED_ROWS}; for distributions: dataset.label_kind class"
        )
    return labels.astype(np.float32)


def are_several(labels: Shaped[np.ndarray, "example class"]) -> bool:
    """Whether rows can only mean several labels per image: all are 0 and 1, with more than one 1 in some."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) > 1).any())


def refuse_constant_labels(rows: Shaped[np.ndarray, "example label"], where: str) -> None:
    """UserError where every label belongs to all images or to none: nothing can be learned."""
    counts = rows.sum(axis=0)
    if not ((counts > 0) & (counts < len(rows))).any():
        raise UserError(
            f"{where} labels belong to all of its {len(rows)} images or to none of them, each of the {rows.shape[1]}; "
            "allowed: 1 or more labels that some images have and others lack"
        )


def cut_off_labels(split: Any, rows: Shaped[np.ndarray, "example label"], size: int, where: str) -> tuple[Any, Any]:
    """(rest, part): `size` images cut from a split that has `subset`, each label by about the same share.

    rows: the labels of its images.  Always the same images, each side in the order of the split.
    """
    if not 1 <= size < len(rows):
        raise UserError(
            f"{where} would be {size} of {len(rows)} images, but both sides need 1 or more; "
            f"pass {where}=(images, labels), more images, or another {where}_fraction"
        )
    in_part = stratified(rows, size)
    return split.subset(np.flatnonzero(~in_part)), split.subset(np.flatnonzero(in_part))


def stratified(rows: Shaped[np.ndarray, "example label"], size: int) -> Bool[np.ndarray, "example"]:
    """Whether each image belongs to the part of `size` images, so that each label has about its share of it.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML 2011): the rarest label among the images that are not yet
    placed is divided first, then the next; images without labels come last. A label with two or more images has one on each
    side, unless rarer labels of these images forbid it; that with one image stays outside of the part.
    """
    has = rows > 0
    order = np.random.Philox(key=[SPLIT_SEED, len(rows)]).random_raw(len(rows)).argsort(kind="stable")
    place = np.full(len(rows), -1)  # 1: in the part, 0: in the rest
    while len(free := order[place[order] < 0]):
        counts = has[free].sum(axis=0)
        if not counts.any():
            break
        label = int(np.argmin(np.where(counts > 0, counts, len(rows) + 1)))
        total = int(has[:, label].sum())
        wanted = np.clip(round(total * size / len(rows)), min(1, total - 1), total - 1) if total > 1 else 0
        missing = max(0, int(wanted) - int(has[place == 1, label].sum()))
        chosen = free[has[free, label]]
        place[chosen[:missing]], place[chosen[missing:]] = 1, 0
    free = order[place[order] < 0]
    missing = max(0, size - int((place == 1).sum()))
    place[free[:missing]], place[free[missing:]] = 1, 0
    return _with_size(place == 1, has, order, size)


def _with_size(
    in_part: Bool[np.ndarray, "example"],
    has: Bool[np.ndarray, "example label"],
    order: Int[np.ndarray, "example"],
    size: int,
) -> Bool[np.ndarray, "example"]:
    """The part with exactly this many images: those whose rarest label is the most frequent move first."""
    surplus = int(in_part.sum()) - size
    side = in_part if surplus > 0 else ~in_part
    rarest = np.where(has, has.sum(axis=0), len(has) + 1).min(axis=1, initial=len(has) + 1)
    movable = order[side[order]]
    movable = movable[np.argsort(-rarest[movable], kind="stable")]
    in_part = in_part.copy()
    in_part[movable[: abs(surplus)]] = surplus < 0
    return in_part
