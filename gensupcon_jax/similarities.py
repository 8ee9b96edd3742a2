"""Similarities of labels: as products of row maps, so that no matrix of all pairs is needed, or of two rows at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from gensupcon_jax.errors import UserError

Array = jax.Array | np.ndarray


class RowMaps(NamedTuple):
    """A similarity that is the inner product of two maps of the labels, each [row, class] -> [row, feature] >= 0.

    anchor_fn is applied to the labels of anchors, contrast_fn to those of contrasts. The similarity must be symmetric. For images
    without a label the rows have further columns, one per image of a block: then feature k belongs to column k.
    """

    anchor_fn: Callable[[Any], Any]
    contrast_fn: Callable[[Any], Any]


class Pairwise(NamedTuple):
    """A similarity that is no such product: block_fn([row, class], [other, class]) -> [row, other] >= 0, for a tile of rows.

    It is computed again for the gradient: training never holds the matrix of all pairs. For images without a label the rows have
    further columns, one per image of a block.
    """

    block_fn: Callable[[Any, Any], Any]


# A function alone is both maps of `RowMaps`.
Similarity = Callable[[Any], Any] | RowMaps | Pairwise


def of_two_rows(similarity_fn: Callable[[Any, Any], Any]) -> Pairwise:
    """A similarity from any jax function of two label rows [class] -> a number >= 0, the same in either order.

    >>> overlap = of_two_rows(lambda left, right: jnp.minimum(left, right).sum())
    >>> overlap.block_fn(jnp.array([[0.5, 0.5]]), jnp.array([[1.0, 0.0], [0.25, 0.75]])).tolist()
    [[0.5, 0.75]]
    """
    return Pairwise(jax.vmap(jax.vmap(similarity_fn, in_axes=(None, 0)), in_axes=(0, None)))


def of_classes(matrix: Float[Array, "class other"]) -> RowMaps:
    """A similarity of labels from one of classes, the matrix S: y S y' / sqrt(y S y  y' S y'), for S = 1 the cosine.

    matrix [class, class]: symmetric, positive semidefinite, entries >= 0 (`run.class_similarity` reads and checks one). Further
    columns of labels, of images without one, are similar to themselves alone.
    """
    similarity = jnp.asarray(matrix, jnp.float32)

    def related(labels: Any) -> Any:
        known = len(similarity)
        if labels.shape[1] == known:
            return _product(labels, similarity)
        return jnp.concatenate([_product(labels[:, :known], similarity), labels[:, known:]], axis=1)

    def scaled(labels: Any) -> Any:
        length = jnp.sqrt(jnp.sum(related(labels) * labels, axis=1, keepdims=True))
        return labels / jnp.where(length > 0.0, length, 1.0)

    def of_anchor(labels: Any) -> Any:
        return related(scaled(_unit_rows(labels)))

    def of_contrast(labels: Any) -> Any:
        return scaled(_unit_rows(labels))

    return RowMaps(of_anchor, of_contrast)


def resolved(similarity: "str | Similarity") -> Similarity:
    """The similarity of this name in LABEL_SIMILARITIES, or the given one; UserError for an unknown name."""
    if not isinstance(similarity, str):
        return similarity
    if similarity not in LABEL_SIMILARITIES:
        allowed = ", ".join(LABEL_SIMILARITIES)
        raise UserError(f"label_similarity is {similarity!r}; allowed: {allowed}; change loss.label_similarity")
    return LABEL_SIMILARITIES[similarity]


class LabelSides(NamedTuple):
    """Labels as their similarity needs them: for the side of the anchors and that of the contrasts, float32 constants.

    block_fn: of a `Pairwise` similarity, else None; then the similarity is the inner product of the two sides.
    near_anchor, near_contrast: where there are images without a label, what the rows of one block have beyond that, see
    `near_weights`; None: nothing.
    """

    as_anchor: Float[jax.Array, "row feature"]
    as_contrast: Float[jax.Array, "row feature"]
    block_fn: Callable[[Any, Any], Any] | None
    near_anchor: Float[jax.Array, "row place"] | None = None
    near_contrast: Float[jax.Array, "row place"] | None = None


def sides_of(
    labels: Shaped[Array, "row class"],
    similarity: "str | Similarity",
    places: Shaped[Array, "row place"] | None = None,
) -> LabelSides:
    """The labels as this similarity needs them; UserError for an unknown name, or a map that does not return features.

    places: the shares of images without a label in each row, by their place in the row's block, see `instances`. The similarity
    is that of rows with these further columns; those of other blocks are others.
    """
    found = resolved(similarity)
    rows = jax.lax.stop_gradient(jnp.asarray(labels).astype(jnp.float32))
    if places is not None:
        places = jax.lax.stop_gradient(jnp.asarray(places).astype(jnp.float32))
        zeros = jnp.zeros_like(places)
        near, far = jnp.concatenate([rows, places], axis=1), jnp.concatenate([rows, zeros, places], axis=1)
        if isinstance(found, Pairwise):
            near = jnp.concatenate([near, zeros], axis=1)
            return LabelSides(near, far, found.block_fn, near, near)
        rows = near
    if isinstance(found, Pairwise):
        return LabelSides(rows, rows, found.block_fn)
    maps = found if isinstance(found, RowMaps) else RowMaps(found, found)
    as_anchor = _features(maps.anchor_fn, rows, similarity, places)
    same = maps.contrast_fn is maps.anchor_fn
    as_contrast = as_anchor if same else _features(maps.contrast_fn, rows, similarity, places)
    num = as_anchor.shape[1] if places is None else jnp.shape(labels)[1]
    of_anchor = _in_sixteens(as_anchor[:, :num])
    of_contrast = of_anchor if same else _in_sixteens(as_contrast[:, :num])
    near = (None, None) if places is None else (as_anchor[:, num:], as_contrast[:, num:])
    return LabelSides(of_anchor, of_contrast, None, *near)


def far_similarity(anchors: LabelSides, contrasts: LabelSides) -> Float[jax.Array, "anchor contrast"]:
    """The similarity by labels alone: of rows of different blocks."""
    if anchors.block_fn is not None:
        return anchors.block_fn(anchors.as_anchor, contrasts.as_contrast)
    return _product(anchors.as_anchor, contrasts.as_contrast.T)


def near_weights(anchors: LabelSides, contrasts: LabelSides) -> Float[jax.Array, "anchor contrast"]:
    """What rows of one block have in common beyond their labels: the part of their similarity by images without a label."""
    if anchors.block_fn is not None:
        return anchors.block_fn(anchors.near_anchor, contrasts.near_contrast) - far_similarity(anchors, contrasts)
    assert anchors.near_anchor is not None and contrasts.near_contrast is not None  # asked for only then
    return _product(anchors.near_anchor, contrasts.near_contrast.T)


def _features(map_fn: Callable[[Any], Any], labels: Any, similarity: Any, places: Any) -> Any:
    try:
        features = map_fn(labels)
    except (TypeError, ValueError) as error:
        if places is None:
            raise
        raise UserError(f"{_named(similarity)} {_NO_COLUMNS} ({str(error).splitlines()[0]})") from error
    if jnp.ndim(features) != 2 or len(features) != len(labels):
        raise UserError(
            f"{_named(similarity)} returns shape {list(jnp.shape(features))} for labels {list(jnp.shape(labels))}; "
            "allowed: [row, feature], as many rows as labels; change that function"
        )
    if places is not None and features.shape != labels.shape:
        raise UserError(f"{_named(similarity)} {_NO_COLUMNS} (it returns {features.shape[1]} features)")
    return jax.lax.stop_gradient(jnp.asarray(features).astype(jnp.float32))


def _in_sixteens(features: Float[Array, "row feature"]) -> Float[jax.Array, "row padded"]:
    """With features of 0 up to a multiple of 16: the loss sums in groups of 16, and a rest would be a copy of all others."""
    missing = -features.shape[1] % 16 if features.shape[1] > 16 else 0
    return jnp.pad(features, ((0, 0), (0, missing)))


_NO_COLUMNS = (
    "does not map each column of the labels to a feature, as images without a label need, which are further columns; change "
    "loss.label_similarity to cosine, or label all images"
)


def _named(similarity: Any) -> str:
    return f"LABEL_SIMILARITIES[{similarity!r}]" if isinstance(similarity, str) else "label_similarity"


def _unit_rows(labels: Float[Array, "row class"]) -> Float[Array, "row class"]:
    """Rows of length 1; a zero row stays zero."""
    # Relative to the largest entry: the square of a small entry would be flushed to zero, that of a large one would overflow.
    # Two roots, as XLA may divide by multiplying with 1 / largest, which is flushed to zero for the largest floats.
    largest = jnp.abs(labels).max(axis=1, keepdims=True, initial=0.0)
    inverse_root = jax.lax.rsqrt(jnp.where(largest > 0.0, largest, 1.0))
    labels = labels * inverse_root * inverse_root
    length = jnp.sqrt(jnp.sum(labels**2, axis=1, keepdims=True))
    return labels / jnp.where(length > 0.0, length, 1.0)


def _roots_of_shares(labels: Float[Array, "row class"]) -> Float[Array, "row class"]:
    """Roots of the probabilities, whose inner products are Bhattacharyya coefficients; a zero row stays zero."""
    total = labels.sum(axis=1, keepdims=True)
    return jnp.sqrt(labels / jnp.where(total > 0.0, total, 1.0))


def _as_they_are(labels: Float[Array, "row class"]) -> Float[Array, "row class"]:
    return labels


def _jaccard(rows: Float[Array, "row class"], others: Float[Array, "other class"]) -> Float[Array, "row other"]:
    """Classes in common over classes of either: y.y' / (y.y + y'.y' - y.y'), for sets and, as Tanimoto, for any labels.

    The products are those of one matrix multiplication: sums of minima and maxima would take 20 times as long.
    """
    common = _product(rows, others.T)
    union = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(others**2, axis=1) - common
    return common / jnp.where(union > 0.0, union, 1.0)


def _product(left: Any, right: Any) -> Any:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


# name -> similarity. To add one, add an entry, also from outside the package: LABEL_SIMILARITIES["overlap"] = lambda labels:
# labels, a map of labels [row, class] float32 >= 0 to features [row, feature] >= 0 whose inner products are the similarity;
# or LABEL_SIMILARITIES["mine"] = of_two_rows(function).
LABEL_SIMILARITIES: dict[str, Similarity] = {
    "cosine": _unit_rows,
    "dot": _as_they_are,
    "bhattacharyya": _roots_of_shares,
    "jaccard": Pairwise(_jaccard),
}
