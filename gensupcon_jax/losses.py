"""The generalized supervised contrastive loss: its dense definition, and the factored, tiled form used in training."""

import functools
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int, Shaped

from gensupcon_jax.collectives import first_number, gather, sum_over, varying
from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.errors import UserError
from gensupcon_jax.instances import Instances, check_instances
from gensupcon_jax.similarities import LABEL_SIMILARITIES as LABEL_SIMILARITIES  # where users look for it
from gensupcon_jax.similarities import LabelSides, Similarity, far_similarity, near_weights, sides_of

Array = jax.Array | np.ndarray
Scalar = float | int | np.number | jax.Array | np.ndarray

NORMALIZERS = names_of("loss.normalizer")

# Rows of logits in memory at once. On a CPU 128 and 256 are the fastest (512 does not fit the cache), and they are enough
# work for an accelerator.
DEFAULT_TILE_SIZE = 256

# By default a TPU rounds the inputs of a float32 matmul to bfloat16; for logits of 1 / temperature that rounding would be
# larger than the differences that matter for the loss.
_PRECISION = jax.lax.Precision.HIGHEST

# An anchor has a similar contrast if its similarities sum to more than this. Float32 ends at 1e-38:
# above 1e-33 a flushed pair changes the sum by at most 1e-5 of it, and 1 / sum does not overflow in the gradient.
_SMALLEST_SIMILARITY = 1e-33


@functools.partial(jax.tree_util.register_dataclass, data_fields=("loss", "valid"), meta_fields=("axis_name",))
@dataclass(frozen=True, repr=False)
class AnchorLoss:
    """The loss of every anchor: `loss` [anchor] float32, `valid` [anchor] bool.

    An anchor without a contrast, or without a similar one, is not valid and its loss is 0: `mean()` excludes it,
    `loss.mean()` includes it, as the authors' code does. Unpacks as `loss, valid`. `axis_name` is static. It is not a number:
    arithmetic with it is a UserError.

    >>> anchor_loss = AnchorLoss(jnp.array([1.0, 3.0, 0.0]), jnp.array([True, True, False]))
    >>> float(anchor_loss.mean())
    2.0
    """

    # Not jaxtyped: jax also puts specs, shapes and placeholders in the fields when it rebuilds the tree.
    loss: Any
    valid: Any
    axis_name: str | None = field(default=None)

    def __iter__(self):
        """`loss, valid = anchor_loss`."""
        return iter((self.loss, self.valid))

    def __repr__(self) -> str:
        """A sentence instead of arrays: jax.grad prints it if `.mean()` was forgotten."""
        num = jnp.shape(self.loss)[0] if len(jnp.shape(self.loss)) == 1 else "all"
        return f"AnchorLoss: a loss for each of {num} anchors, not one number; allowed: .mean(), or .loss [anchor]"

    def _refuse(self, *_: Any) -> NoReturn:
        raise UserError(f"a number was expected, found {self!r}")

    __float__ = __neg__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse

    def mean(self, axis_name: str | None = None) -> Float[Array, ""]:
        """The mean over the valid anchors of all devices of `axis_name` or of the axis of the loss; 0 if there are none.

        Under `shard_map(check_vma=False)`, `pmap` and `vmap`, jax differentiates the sum of the values of all devices:
        there, gradients of this mean that are taken inside the mapped function must be averaged (`pmean`).
        """
        valid = jnp.asarray(self.valid)
        totals = jnp.stack([jnp.sum(jnp.where(valid, self.loss, 0.0)), jnp.sum(valid, dtype=jnp.float32)])
        total, count = sum_over(totals, _bound(axis_name or self.axis_name))
        return total / jnp.maximum(count, 1.0)


class ClassCenters(NamedTuple):
    """Learned centers of the classes, further contrasts of every anchor (PaCo, arXiv 2107.12028).

    logits [anchor, class]: in place of inner product / temperature; differentiable.  attraction [anchor, class]: similarity of
    the labels of anchor and center, times its weight (PaCo's beta), >= 0, a constant.  contrast_attraction: weight of the
    similarity to the other contrasts (PaCo's alpha), >= 0.  weights [class]: of the centers in the sum of the softmax; None: 1.
    """

    logits: Any
    attraction: Any
    contrast_attraction: Scalar = 1.0
    weights: Any = None


def label_similarity(
    anchor_labels: Shaped[Array, "anchor class"],
    contrast_labels: Shaped[Array, "contrast class"],
    *,
    name: str | Similarity = "cosine",
) -> Float[Array, "anchor contrast"]:
    """Similarity of label distributions: their cosine (paper; authors' code), another of LABEL_SIMILARITIES, or a given one.

    anchor_labels [anchor, class] and contrast_labels [contrast, class], any numeric type, >= 0; returns
    [anchor, contrast] in 0..1, float32. A row of zeros has similarity 0 to every row; values that float32 flushes to
    zero (below 1.2e-38) are zero. Negative entries are not checked. Raises UserError for mismatched shapes and unknown names.

    >>> label_similarity(jnp.array([[1, 0], [1, 1]]), jnp.array([[1, 0], [0, 1]])).round(3).tolist()
    [[1.0, 0.0], [0.7070000171661377, 0.7070000171661377]]
    """
    _check_axes("anchor_labels", anchor_labels, ("anchor", "class"))
    _check_axes("contrast_labels", contrast_labels, ("contrast", "class"))
    _check_size("contrast_labels", contrast_labels, 1, "anchor_labels", anchor_labels)
    anchors, contrasts = sides_of(anchor_labels, name), sides_of(contrast_labels, name)
    return _float32(far_similarity(anchors, contrasts))


def latent_similarity(
    anchors: Float[Array, "anchor dim"], contrasts: Float[Array, "contrast dim"], *, temperature: Scalar
) -> Float[Array, "anchor contrast"]:
    """Inner products of embeddings over the temperature: the logits of the contrastive softmax (paper).

    anchors [anchor, dim] and contrasts [contrast, dim] must be normalized already. Returns
    [anchor, contrast] float32. Raises UserError for a temperature <= 0 (unless traced) and mismatched shapes.

    >>> latent_similarity(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]]), temperature=0.5).tolist()
    [[2.0, 0.0]]
    """
    _check_positive("temperature", temperature)
    _check_axes("anchors", anchors, ("anchor", "dim"))
    _check_axes("contrasts", contrasts, ("contrast", "dim"))
    _check_size("contrasts", contrasts, 1, "anchors", anchors)
    return _inner_products(_float32(anchors), _float32(contrasts)) / temperature


def dense_contrastive_loss(
    label_similarity: Float[Array, "anchor contrast"],
    latent_similarity: Float[Array, "anchor contrast"],
    *,
    contrast_weights: Shaped[Array, "anchor contrast"] | None = None,
    normalizer: str = "similarity",
    scale: Scalar = 1.0,
) -> AnchorLoss:
    """The loss by its definition: cross-entropy between label similarity and the softmax of latent similarity (paper, Eq. 2).

    Both matrices are [anchor, contrast]; so are contrast_weights >= 0, the weight of each pair in the sum of the softmax:
    0 or False leaves it out (None: all 1; pass `~jnp.eye(n, dtype=bool)` if the anchors are their own contrasts).
    normalizer: divide by the sum of similarities ("similarity", authors' code) or by the number of contrasts ("count", Eq. 2).
    scale multiplies the loss; the authors' is temperature / base_temperature. Label similarity and weights are constants.
    Raises UserError for another normalizer and for negative weights.

    >>> loss = dense_contrastive_loss(jnp.eye(2), jnp.zeros((2, 2)))
    >>> loss.loss.tolist() == [jnp.log(2.0)] * 2
    True
    """
    _check_normalizer(normalizer)
    _check_weights(contrast_weights)
    if contrast_weights is None:
        contrast_weights = jnp.ones(label_similarity.shape, bool)
    allowed, log_weights = _log_weights(contrast_weights)
    similarity = jnp.where(allowed, jax.lax.stop_gradient(_float32(label_similarity)), 0.0)
    log_probabilities = _weighted_log_softmax(_float32(latent_similarity), allowed, log_weights)
    valid, divisor = _validity(similarity.sum(axis=1), allowed.sum(axis=1), normalizer)
    loss = -scale * jnp.sum(similarity * log_probabilities, axis=1) / divisor
    return AnchorLoss(jnp.where(valid, loss, 0.0), valid)


def generalized_contrastive_loss(
    anchors: Float[Array, "anchor dim"],
    anchor_labels: Shaped[Array, "anchor class"],
    contrasts: Float[Array, "contrast dim"] | None = None,
    contrast_labels: Shaped[Array, "contrast class"] | None = None,
    *,
    temperature: Scalar,
    base_temperature: Scalar | None = None,
    normalizer: str = "similarity",
    label_similarity: str | Similarity = "cosine",
    contrast_weights: Shaped[Array, " weighted"] | None = None,
    centers: ClassCenters | None = None,
    instances: Instances | None = None,
    axis_name: str | None = None,
    tile_size: int = DEFAULT_TILE_SIZE,
) -> AnchorLoss:
    """The same loss as `dense_contrastive_loss`, without any matrix of anchors x contrasts (form: ours).

    anchors [anchor, dim] and contrasts [contrast, dim]: unit vectors, any float type; anchor_labels [anchor, class] and
    contrast_labels [contrast, class]: distributions >= 0, any numeric type, constants to the gradient. Without
    contrasts, every other anchor is a contrast. contrast_weights [contrast] (or [anchor]), >= 0 or booleans: the weight of
    each contrast in the sum of the softmax, a constant; 0 leaves the contrast out, also as an attraction, but such an anchor
    is still an anchor. Attraction is not weighted otherwise: the loss of anchor i is the mean over its similar contrasts of
    log sum_a v_a exp(s_ia) - s_ij (BCL, arXiv 2207.09052); a factor v_j in front of exp(s_ij) would only add a constant.
    The loss is multiplied by temperature / base_temperature (authors: 0.07), unless that is None. normalizer: see
    `dense_contrastive_loss`. label_similarity: a name of LABEL_SIMILARITIES, or a `similarities.Similarity`. centers: learned
    centers of the classes, which are further contrasts of every anchor on its own device; an anchor that is similar to one is
    valid. instances: images without a label, a row of zeros, which are similar to their own views only; without it, to none.
    axis_name: a mapped axis over which anchors and contrasts are sharded: each anchor is compared with the contrasts of all
    devices. tile_size: rows of logits in memory at once; it affects memory and speed, not the value.

    Returns AnchorLoss of the local anchors, float32; without anchors or contrasts none is valid. Differentiable once, in
    reverse mode, in anchors, contrasts, temperature and the logits of centers. Precision (128 dimensions, s: the largest
    logit): a loss to 1e-5 of itself or to 1.2e-6 s, whichever is more, and never below 0 unless there are weights other than
    0 and 1; a gradient to 5e-5 of its largest entry or to 4e-7 s of that of the attraction alone, nearly all of which the
    softmax cancels when the embeddings have converged. |z|^2 / temperature must stay below 1e38. Negative labels are not
    checked; their loss is meaningless.

    Raises UserError for unknown names, temperatures <= 0 and weights < 0 (traced ones cannot be checked), tile_size < 1,
    contrasts without labels, mismatched shapes, and a second derivative.

    >>> features = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])  # unit vectors
    >>> labels = jax.nn.one_hot(jnp.array([0, 1, 0, 1]), 2)  # or mixed labels, or the probabilities of a teacher
    >>> loss = generalized_contrastive_loss(features, labels, temperature=0.1)
    >>> f"{loss.mean():.6f}"
    '0.000091'
    """
    _check_settings(temperature, base_temperature, normalizer, tile_size)
    _check_shapes(anchors, anchor_labels, contrasts, contrast_labels, contrast_weights)
    _check_weights(contrast_weights)
    _check_centers(anchors, contrasts, centers)
    check_instances(instances, len(anchors), None if contrasts is None else len(contrasts))
    among_themselves = contrasts is None
    if contrasts is None or contrast_labels is None:
        contrasts, contrast_labels = anchors, anchor_labels
    if 0 in (len(anchors), len(contrasts)):
        loss, valid = varying((jnp.zeros(len(anchors)), jnp.zeros(len(anchors), bool)), axis_name)
        return AnchorLoss(loss, valid, axis_name)
    mask, penalty = jnp.ones(len(contrasts), bool), None
    if contrast_weights is not None:
        mask, penalty = _log_weights(contrast_weights)
    embeddings = varying((_float32(anchors), _float32(contrasts)), axis_name)
    other_labels = None if among_themselves else contrast_labels
    pairs = _label_pairs(anchor_labels, other_labels, label_similarity, instances, axis_name, tile_size)
    mask, penalty, tau = varying((mask, penalty, _float32(temperature)), axis_name)
    # The root of the temperature on either side: the logits are then plain inner products, equal for (i, j) and (j, i), and
    # attraction and softmax round the same numbers.
    anchors, contrasts = (each / jnp.sqrt(tau) for each in embeddings)

    points = anchors if among_themselves else contrasts
    attraction, similarity, num_contrasts = _attraction(anchors, points, pairs, mask)
    if centers is not None:
        centers = ClassCenters(*varying(centers, axis_name))
        attraction, similarity = _attraction_with_centers(attraction, similarity, centers)
    if among_themselves:
        excess = _log_sum_exp_among(anchors, penalty, attraction, tile_size, axis_name)
    else:
        excess = _log_sum_exp_over(anchors, contrasts, penalty, attraction, tile_size, axis_name)
    if centers is not None:
        excess, num_contrasts = _excess_with_centers(excess, num_contrasts, centers, attraction)

    valid, divisor = _validity(similarity, num_contrasts, normalizer)
    if _are_plain(contrast_weights) and (centers is None or centers.weights is None):
        excess = _never_negative(excess)
    loss = (similarity / divisor) * excess
    if base_temperature is not None:
        loss = loss * (tau / base_temperature)
    return AnchorLoss(jnp.where(valid, loss, 0.0), valid, axis_name)


def flatten_views(
    features: Float[Array, "image view dim"], labels: Shaped[Array, "image class"]
) -> tuple[Float[Array, "anchor dim"], Shaped[Array, "anchor class"]]:
    """Anchors and their labels from features [image, view, dim], the layout of SupContrast, and labels [image, class].

    Every view becomes an anchor with the label of its image; the views of an image are consecutive: anchors
    [image * view, dim] and labels [image * view, class]. Raises UserError for mismatched shapes.

    >>> features = jnp.ones((8, 2, 16)) / 4  # 8 images, 2 views of each
    >>> anchors, anchor_labels = flatten_views(features, jax.nn.one_hot(jnp.arange(8) % 2, 2))
    >>> generalized_contrastive_loss(anchors, anchor_labels, temperature=0.1).loss.shape
    (16,)
    """
    _check_axes("features", features, ("image", "view", "dim"))
    _check_axes("labels", labels, ("image", "class"))
    _check_size("labels", labels, 0, "features", features)
    num_images, num_views, dim = features.shape
    return jnp.reshape(features, (num_images * num_views, dim)), jnp.repeat(jnp.asarray(labels), num_views, axis=0)


# ---- labels: sum_j w_ij z_j and sum_j w_ij, w_ij = y_i . y_j, without the matrix w


class _LabelPairs(NamedTuple):
    """The labels on both sides of the pairs; contrasts None: the anchors themselves, each without itself."""

    anchors: LabelSides
    contrasts: LabelSides | None
    axis_name: str | None
    tile_size: int
    instances: Instances | None = None


def _sides(labels, similarity: str | Similarity, places, axis_name: str | None) -> LabelSides:
    sides = sides_of(labels, similarity, places)
    as_anchor, as_contrast, *near = varying((sides.as_anchor, sides.as_contrast, *sides[3:]), axis_name)
    same = sides.as_contrast is sides.as_anchor
    return LabelSides(as_anchor, as_anchor if same else as_contrast, sides.block_fn, *near)


def _label_pairs(
    anchor_labels,
    contrast_labels,
    similarity: str | Similarity,
    instances: Instances | None,
    axis_name: str | None,
    tile_size: int,
) -> _LabelPairs:
    of_anchors, of_contrasts = (None, None) if instances is None else instances[:2]
    anchors = _sides(anchor_labels, similarity, of_anchors, axis_name)
    contrasts = None
    if contrast_labels is not None:
        contrasts = _sides(contrast_labels, similarity, of_contrasts, axis_name)
    return _LabelPairs(anchors, contrasts, axis_name, tile_size, instances)


def _attraction(anchors, points, pairs: _LabelPairs, mask):
    """-> the mean logit of the contrasts weighted by their similarity, the sum of that and their number [anchor].

    points: the contrasts. Any common vector may be subtracted from them before they are summed: their mean minimizes rounding.
    """
    axis_name = pairs.axis_name
    num_contrasts = sum_over(mask.sum(), axis_name)
    total = sum_over(jax.lax.stop_gradient((points * mask[:, None]).sum(axis=0)), axis_name)
    center = total / jnp.maximum(num_contrasts, 1)
    if pairs.contrasts is None:
        num_contrasts = num_contrasts - mask
    pull, similarity = _label_sums(pairs, points - center, mask)
    mean = center + pull / jnp.where(_has_similar(similarity), similarity, 1.0)[:, None]
    return jnp.sum(anchors * mean, axis=1), similarity, num_contrasts


def _label_sums(pairs: _LabelPairs, points, mask):
    """-> sum_j w_ij z_j [anchor, dim] and sum_j w_ij [anchor] over the allowed contrasts j of all devices."""
    values = _with_count(points, mask)
    sums = _class_sums(pairs, values, mask)
    return _without_count(sums if pairs.instances is None else sums + _instance_sums(pairs, pairs.instances, values))


def _class_sums(pairs: _LabelPairs, values, mask):
    if pairs.anchors.block_fn is not None:
        return _pairwise_sums(pairs, values)
    if pairs.contrasts is None:
        return _label_sums_among(pairs.anchors, values, mask, pairs.axis_name)
    # w_ij is an inner product, so contrasts are summed per class first: Y_a (Y_c^T Z) instead of (Y_a Y_c^T) Z.
    per_class = sum_over(_sums_per_class(pairs.contrasts.as_contrast, values), pairs.axis_name)
    return _sums_per_row(pairs.anchors.as_anchor, per_class)


def _instance_sums(pairs: _LabelPairs, instances: Instances, values):
    """The same sums of what rows of one block have in common by images without a label; blocks never cross devices.

    The pairs of a block are few enough for their matrix, without the cancellation of "sum of all, minus the anchor itself".
    """

    block_fn = pairs.anchors.block_fn

    def of_block(anchors, contrasts, block_values):
        @jax.checkpoint
        def tile(rows):
            (number, *arrays), others = rows, _with_block_fn(contrasts, block_fn)
            weights = jax.lax.stop_gradient(_float32(near_weights(_with_block_fn(arrays, block_fn), others)))
            if pairs.contrasts is None:
                weights = jnp.where(number[:, None] == jnp.arange(weights.shape[1]), 0.0, weights)
            return _sums_per_row(weights, block_values)

        return _map_tiles(tile, (jnp.arange(len(anchors[0])), *anchors), pairs.tile_size)

    num_anchors = len(pairs.anchors.as_anchor)
    anchors = instances.in_blocks(_arrays(pairs.anchors), num_anchors)
    others = instances.in_blocks((_arrays(pairs.contrasts or pairs.anchors), values), instances.num_in_blocks)
    return jax.vmap(of_block)(anchors, *others).reshape(num_anchors, -1)


def _arrays(sides: LabelSides) -> tuple:
    return (*sides[:2], *sides[3:])


def _with_block_fn(arrays, block_fn: Callable | None) -> LabelSides:
    as_anchor, as_contrast, near_anchor, near_contrast = arrays
    return LabelSides(as_anchor, as_contrast, block_fn, near_anchor, near_contrast)


def similarity_masses(
    anchor_labels: Shaped[Array, "anchor class"],
    contrast_labels: Shaped[Array, "contrast class"] | None,
    mask: Shaped[Array, " contrast"],
    *,
    label_similarity: str | Similarity = "cosine",
    instances: Instances | None = None,
    axis_name: str | None = None,
    tile_size: int = DEFAULT_TILE_SIZE,
) -> Float[jax.Array, " anchor"]:
    """For each local anchor, the sum of its label similarities to the contrasts of all devices, times their mask.

    Without contrast labels, every other anchor is a contrast. Constants to the gradient.
    """
    mask = varying(_float32(jax.lax.stop_gradient(jnp.asarray(mask))), axis_name)
    pairs = _label_pairs(anchor_labels, contrast_labels, label_similarity, instances, axis_name, tile_size)
    return _label_sums(pairs, jnp.zeros((len(mask), 1)), mask)[1]


def _pairwise_sums(pairs: _LabelPairs, values):
    """The same sums for a similarity of two rows, in tiles of anchors that are computed again for the gradient."""
    block_fn, axis_name = pairs.anchors.block_fn, pairs.axis_name
    assert block_fn is not None  # asked for only then
    own = pairs.anchors.as_anchor
    others, other_values = gather(((pairs.contrasts or pairs.anchors).as_contrast, values), axis_name)
    numbers = first_number(len(own), axis_name) + jnp.arange(len(own))

    @jax.checkpoint
    def tile(rows):
        labels, number = rows
        weights = jax.lax.stop_gradient(_float32(block_fn(labels, others)))
        if pairs.contrasts is None:
            weights = jnp.where(number[:, None] == jnp.arange(len(others)), 0.0, weights)
        return _sums_per_row(weights, other_values)

    return _map_tiles(tile, (own, numbers), pairs.tile_size)


def _label_sums_among(sides: LabelSides, values, mask, axis_name):
    """The same sums with every other anchor as a contrast: over j != i of all devices.

    "Sum of all, minus the anchor itself" would cancel: with a peaked teacher the other rows may have 1e-9 of the mass that
    the anchor has in a class. So the row with the largest share of a class (its leader) is separated from the rest: for
    a leader nothing is subtracted, and any other row is at most half of the class. Hence the sums keep their relative
    precision and are exactly 0 for an anchor without a similar contrast.
    """
    labels = sides.as_contrast
    classes = jnp.arange(labels.shape[1])
    leader, share = _class_leaders(labels, mask, axis_name)
    rest = labels.at[leader, classes].add(-share)
    rest_sum = sum_over(_sums_per_class(rest, values), axis_name)
    leader_sum = sum_over(share[:, None] * values[leader], axis_name)
    of_leader, of_others = share, rest
    if sides.as_anchor is not sides.as_contrast:
        leads = share > 0.0
        of_leader = jnp.where(leads, sides.as_anchor[leader, classes], 0.0)
        of_others = sides.as_anchor.at[leader, classes].add(-of_leader)
    itself = jnp.sum(of_others * rest, axis=1, keepdims=True) * values
    sums = _sums_per_row(of_others, rest_sum + leader_sum) - itself
    return sums.at[leader].add(of_leader[:, None] * rest_sum)


def _class_leaders(
    labels: Float[Array, "row class"], mask: Shaped[Array, " row"], axis_name: str | None
) -> tuple[Int[Array, " class"], Float[Array, " class"]]:
    """Per class, the local row with the largest share, and that share (0 if the leader is on another device or left out)."""
    share = (labels * mask[:, None]).max(axis=0)
    leader = _first_rows(labels, mask, share)
    if axis_name is None:
        return leader, share
    device = jax.lax.axis_index(axis_name)
    leads = share == jax.lax.pmax(share, axis_name)
    first = jax.lax.pmin(jnp.where(leads, device, jax.lax.axis_size(axis_name)), axis_name)
    return leader, jnp.where(device == first, share, 0.0)


def _first_rows(
    labels: Float[Array, "row class"],
    mask: Shaped[Array, " row"],
    share: Float[Array, " class"],
    tile_size: int = DEFAULT_TILE_SIZE,
) -> Int[Array, " class"]:
    """Per class, the first row with this share, else the last one; in tiles, as all at once is a matrix of rows x classes.

    Not `argmax`, which the TPU's compiler compares in bfloat16.
    """
    num_rows = labels.shape[0]
    size = min(tile_size, num_rows)

    def tile(start):
        rows = start + jnp.arange(size)[:, None]
        part = (
            jax.lax.dynamic_slice_in_dim(labels, start, size) * jax.lax.dynamic_slice_in_dim(mask, start, size)[:, None]
        )
        return jnp.where(part == share, rows, num_rows - 1).min(axis=0)

    starts = jnp.minimum(size * jnp.arange(-(-num_rows // size)), num_rows - size)
    return jax.lax.map(tile, starts).min(axis=0)


def _sums_per_class(labels, values):
    """labels^T values [class, dim + 1]; the weights in the last column, all of one sign, by `_sum_in_sixteens`."""
    vectors, weights = values[:, :-1], values[:, -1:]
    return jnp.column_stack([_matmul(labels.T, vectors), _sum_in_sixteens(labels * weights, axis=0)])


def _sums_per_row(labels, per_class):
    """labels @ per_class [row, dim + 1], with the same summation of weights."""
    vectors, weights = per_class[:, :-1], per_class[:, -1]
    return jnp.column_stack([_matmul(labels, vectors), _sum_in_sixteens(labels * weights, axis=1)])


def _sum_in_sixteens(array: Float[Array, "row column"], axis: int) -> Float[Array, " other"]:
    """A sum in groups of 16, recursively: in a long float32 sum of equal numbers, every addition is rounded the same way."""
    while array.shape[axis] > 16:
        size = array.shape[axis]
        whole, rest = jnp.split(array, [size // 16 * 16], axis=axis)
        sixteens = whole.reshape(*array.shape[:axis], size // 16, 16, *array.shape[axis + 1 :]).sum(axis=axis + 1)
        array = jnp.concatenate([sixteens, rest.sum(axis=axis, keepdims=True)], axis=axis)
    return array.sum(axis=axis)


def _with_count(embeddings, mask):
    """Masked embeddings with a column of ones: their sum is that of the vectors and that of the weights."""
    return jnp.concatenate([embeddings, jnp.ones_like(embeddings[:, :1])], axis=1) * mask[:, None]


def _without_count(sums):
    return sums[:, :-1], jax.lax.stop_gradient(sums[:, -1])


# ---- centers of the classes: few enough for a matrix of anchors x classes, as the labels are


def _attraction_with_centers(attraction, similarity, centers: ClassCenters):
    """The mean logit of contrasts and centers weighted by their similarity, and the sum of that [anchor]."""
    to_centers = jax.lax.stop_gradient(_float32(centers.attraction))
    of_contrasts = centers.contrast_attraction * similarity
    total = of_contrasts + to_centers.sum(axis=1)
    logits = of_contrasts * attraction + jnp.sum(to_centers * _float32(centers.logits), axis=1)
    return logits / jnp.where(_has_similar(total), total, 1.0), total


def _excess_with_centers(excess, num_contrasts, centers: ClassCenters, attraction):
    """log_sum_exp over contrasts and centers - attraction, from that over the contrasts; and the number of both [anchor]."""
    logits = _float32(centers.logits) - attraction[:, None]
    if centers.weights is not None:
        logits = logits + _log_weights(centers.weights)[1]
    of_centers = jax.nn.logsumexp(logits, axis=1)
    # An anchor without contrasts has an arbitrary sum of 1 over them.
    of_contrasts = jnp.where(num_contrasts > 0, excess, -jnp.inf)
    return jnp.logaddexp(of_contrasts, of_centers), num_contrasts + logits.shape[1]


# ---- embeddings: log sum_j exp(s_ij) in tiles of rows, recomputed for the gradient


class _Points(NamedTuple):
    """Embeddings (divided by the root of the temperature) with the values for one side of the pairs."""

    embeddings: Float[Array, "point dim"]
    number: Int[Array, " point"]  # consecutive, in the array of all devices
    penalty: Float[Array, " point"] | None  # as a contrast: the log of its weight, -inf if it is left out; None: all 0
    largest: Any = None  # [point], as an anchor: the largest of its logits, and
    total: Any = None  # [point], the sum of exp(s_ij - largest); 0 and 1 where there is no contrast
    weight: Float[Array, " point"] | None = None  # as an anchor: the cotangent of its log_sum_exp, over total


def _softmax_sums(anchors: _Points, contrasts: _Points, tile_size: int, with_self: bool):
    """-> `largest` and `total` [anchor] of the softmax over the contrasts.

    Both are returned, as log_sum_exp would be rounded to the precision of a logit, and exp(s_ij - log_sum_exp) with it.
    """

    def tile(rows: _Points):
        # The mask comes before the maximum: after it, a small temperature would leave only exp(-large) = 0.
        logits = _logits(rows, contrasts, with_self)
        largest = _penalized(logits, contrasts.penalty).max(axis=1)
        some = largest != -jnp.inf  # also true for NaN, which does not mean "no contrast"
        largest = jnp.where(some, largest, 0.0)
        # As one array for both sums, XLA on a CPU would first write it to memory, which costs a fifth of this pass.
        again = jax.lax.optimization_barrier(contrasts.penalty)
        total = jnp.exp(_penalized(logits - largest[:, None], again)).sum(axis=1)
        return largest, jnp.where(some, total, 1.0)

    return _map_tiles(tile, anchors, tile_size)


def _log_sum_exp_gradients(points: _Points, others: _Points, tile_size: int, with_self: bool):
    """Gradient for `points` [point, dim] of sum_i cotangent_i log_sum_exp_i, i over the anchors of either side.

    A pair contributes to the gradient of a point twice: in the softmax of the point (as an anchor) and in that of the other
    point. A side without weights has no anchors.
    """

    def tile(rows: _Points):
        logits = _logits(rows, others, with_self)
        pull = 0.0
        if rows.weight is not None:
            as_anchor = _penalized(logits - rows.largest[:, None], others.penalty)
            pull += rows.weight[:, None] * jnp.exp(as_anchor)
        if others.weight is not None:
            as_contrast = _penalized(logits - others.largest, rows.penalty, axis=1)
            pull += others.weight * jnp.exp(as_contrast)
        return _matmul(pull, others.embeddings)

    return _map_tiles(tile, points, tile_size)


def _logits(rows: _Points, columns: _Points, with_self: bool):
    """s_ij; -inf where both are the same image, unless with_self."""
    logits = _inner_products(rows.embeddings, columns.embeddings)
    if with_self:
        return logits
    # Numbers are consecutive, so only one square block of the tile can hold any: a comparison over the whole tile
    # keeps XLA on a CPU from fusing the exponentials with the matmul (a quarter of the time of the gradient).
    size = rows.number.shape[0]
    start = jnp.minimum(rows.number[0], columns.number.shape[0] - size)
    block = jax.lax.dynamic_slice(logits, (0, start), (size, size))
    same = rows.number[:, None] == start + jnp.arange(size)
    return jax.lax.dynamic_update_slice(logits, jnp.where(same, -jnp.inf, block), (0, start))


def _penalized(logits, penalty, axis: int = 0):
    # Most batches weight nothing: this saves a pass over all logits.
    return logits if penalty is None else logits + jnp.expand_dims(penalty, axis)


def _map_tiles(function: Callable, rows: Any, tile_size: int):
    """function applied to equal tiles of at most tile_size rows, sequentially; padding of the last tile is dropped."""
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    num_tiles = max(1, -(-num_rows // tile_size))
    size = -(-num_rows // num_tiles)

    def tiles(array):
        padding = [(0, num_tiles * size - num_rows)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(num_tiles, size, *array.shape[1:])

    def joined(array):
        return array.reshape(num_tiles * size, *array.shape[2:])[:num_rows]

    return jax.tree.map(joined, jax.lax.map(function, jax.tree.map(tiles, rows)))


def _log_sum_exp_among(embeddings, penalty, reference, tile_size: int, axis_name: str | None):
    """log sum_j exp(s_ij - reference_i) [anchor] of the local anchors over all other anchors of all devices."""
    points = _points(embeddings, penalty, axis_name)
    everyone = gather(points, axis_name)
    points, everyone = _with_sums(points, everyone, everyone, tile_size, axis_name, with_self=False)
    values = _among_with_gradient(embeddings, _above(reference, points), points, everyone, tile_size)
    return _own_part(values, axis_name) - _without_value(reference)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _among_with_gradient(embeddings, value, points: _Points, everyone: _Points, tile_size: int):
    """The local values, with zeros for the anchors of other devices, and the gradient of log_sum_exp for `embeddings`.

    Without collectives, also in the gradient: jax loses the axis name there under `grad(vmap(...))`.
    """
    return jnp.zeros_like(everyone.total).at[points.number].set(value)


def _among_forward(embeddings, value, points, everyone, tile_size):
    return _among_with_gradient(embeddings, value, points, everyone, tile_size), (embeddings, points, everyone)


def _among_backward(tile_size, residuals, cotangents):
    embeddings, points, everyone = residuals
    weights = cotangents / everyone.total
    points = points._replace(embeddings=_differentiable_once(embeddings), weight=weights[points.number])
    everyone = everyone._replace(weight=weights)
    return _log_sum_exp_gradients(points, everyone, tile_size, with_self=False), None, None, None


_among_with_gradient.defvjp(_among_forward, _among_backward)


def _log_sum_exp_over(anchors, contrasts, penalty, reference, tile_size: int, axis_name: str | None):
    """log sum_j exp(s_ij - reference_i) [anchor] of the local anchors over the contrasts of all devices."""
    contrast_points = _points(contrasts, penalty, axis_name)
    every_contrast = gather(contrast_points, axis_name)
    anchor_points = _points(anchors, None, axis_name)
    every_anchor = gather(anchor_points, axis_name)
    anchor_points, every_anchor = _with_sums(
        anchor_points, every_anchor, every_contrast, tile_size, axis_name, with_self=True
    )
    sides = (anchor_points, every_anchor), (contrast_points, every_contrast)
    values = _over_with_gradient(anchors, contrasts, _above(reference, anchor_points), *sides, tile_size)
    return _own_part(values, axis_name) - _without_value(reference)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _over_with_gradient(anchors, contrasts, value, anchor_points, contrast_points, tile_size: int):
    """As `_among_with_gradient`, differentiable in the first two; points are pairs of local and all."""
    local, everyone = anchor_points
    return jnp.zeros_like(everyone.total).at[local.number].set(value)


def _over_forward(anchors, contrasts, value, anchor_points, contrast_points, tile_size):
    values = _over_with_gradient(anchors, contrasts, value, anchor_points, contrast_points, tile_size)
    return values, (anchors, contrasts, anchor_points, contrast_points)


def _over_backward(tile_size, residuals, cotangents):
    anchors, contrasts, (local_anchors, every_anchor), (local_contrasts, every_contrast) = residuals
    weights = cotangents / every_anchor.total
    every_anchor = every_anchor._replace(weight=weights)
    local_anchors = local_anchors._replace(
        embeddings=_differentiable_once(anchors), weight=weights[local_anchors.number]
    )
    local_contrasts = local_contrasts._replace(embeddings=_differentiable_once(contrasts))
    of_anchors = _log_sum_exp_gradients(local_anchors, every_contrast, tile_size, with_self=True)
    # Its own loop, so that the compiler drops all of it where zeros asks for it (keys of a momentum encoder).
    of_contrasts = _log_sum_exp_gradients(local_contrasts, every_anchor, tile_size, with_self=True)
    return of_anchors, of_contrasts, None, None, None


_over_with_gradient.defvjp(_over_forward, _over_backward)


@jax.custom_jvp
def _differentiable_once(embeddings):
    """The embeddings in a gradient that must not be differentiated, as its other inputs are constants to jax."""
    return embeddings


@_differentiable_once.defjvp
def _refuse_second_derivative(primals, tangents):
    raise UserError(
        "a second derivative of generalized_contrastive_loss was asked for; allowed: the first, in reverse mode; "
        "change to dense_contrastive_loss, which has all derivatives"
    )


def _with_sums(
    anchors: _Points, every_anchor, every_contrast, tile_size: int, axis_name: str | None, *, with_self: bool
):
    """-> the local anchors and those of all devices, with the sums of their softmax."""
    sums = _softmax_sums(anchors, every_contrast, tile_size, with_self)
    largest, total = gather(sums, axis_name)
    return anchors._replace(largest=sums[0], total=sums[1]), every_anchor._replace(largest=largest, total=total)


def _above(reference, anchors: _Points):
    """log_sum_exp - reference: nearby logits cancel exactly, and later rounding is relative to the difference."""
    return (anchors.largest - jax.lax.stop_gradient(reference)) + jnp.log(anchors.total)


def _without_value(array):
    """0, with the gradient of array."""
    return array - jax.lax.stop_gradient(array)


def _own_part(values, axis_name: str | None):
    """The local part [anchor] of vectors [all anchors], one per device, that are zero except for the local part.

    It is written as a sum, so that its gradient gives every device the weights of all anchors: with them a device computes
    the full gradient of its local embeddings (s_ij = s_ji), without communication of gradients.
    """
    return values if axis_name is None else jax.lax.psum_scatter(values, axis_name, tiled=True)


def _points(embeddings, penalty, axis_name: str | None) -> _Points:
    """The local embeddings, constants to the gradient, with their numbers in the array of all devices."""
    number = first_number(embeddings.shape[0], axis_name) + jnp.arange(embeddings.shape[0])
    return _Points(jax.lax.stop_gradient(embeddings), number, penalty)


# ---- helpers


def _float32(array) -> jax.Array:
    return jnp.asarray(array).astype(jnp.float32)


def _matmul(left, right):
    return jnp.matmul(left, right, precision=_PRECISION)


def _inner_products(rows, columns):
    return jnp.einsum("id,jd->ij", rows, columns, precision=_PRECISION)


def _weighted_log_softmax(logits, allowed, log_weights):
    """logit - log of the weighted sum of exponentials, per row, for the allowed entries.

    0 elsewhere, so that rows without allowed entries have finite gradients.
    """
    weighted = jnp.where(allowed, logits + log_weights, -jnp.inf)
    largest = jax.lax.stop_gradient(weighted.max(axis=1, keepdims=True, initial=-jnp.inf))
    largest = jnp.where(largest == -jnp.inf, 0.0, largest)
    total = jnp.sum(
        jnp.where(allowed, jnp.exp(jnp.where(allowed, weighted - largest, 0.0)), 0.0), axis=1, keepdims=True
    )
    return jnp.where(allowed, logits - largest - jnp.log(jnp.where(total == 0.0, 1.0, total)), 0.0)


def _are_plain(weights) -> bool:
    """Whether a contrast either counts or not, so that no loss is below 0."""
    return weights is None or jnp.asarray(weights).dtype == bool


def _log_weights(weights):
    """-> which contrasts have a weight above 0, and the logs of the weights, -inf for the others; constants."""
    weights = jax.lax.stop_gradient(jnp.asarray(weights))
    if weights.dtype == bool:
        return weights, jnp.where(weights, 0.0, -jnp.inf)
    weights = _float32(weights)
    allowed = ~(weights <= 0.0)  # also true for NaN: it gives a NaN loss
    return allowed, jnp.where(allowed, jnp.log(jnp.where(allowed, weights, 1.0)), -jnp.inf)


def _never_negative(excess):
    """The values, at least 0 despite rounding; the gradient is unchanged."""
    return excess + jax.lax.stop_gradient(jnp.where(excess < 0.0, -excess, 0.0))


def _has_similar(similarity):
    return ~(similarity <= _SMALLEST_SIMILARITY)  # NaN labels give a NaN loss


def _validity(similarity, num_contrasts, normalizer: str):
    """-> which anchors have a similar contrast [anchor], and the divisor of their sums (1 for the others)."""
    valid = _has_similar(similarity)
    divisor = similarity if normalizer == "similarity" else num_contrasts.astype(jnp.float32)
    return valid, jnp.where(valid, divisor, 1.0)


def _bound(axis_name: str | None) -> str | None:
    """axis_name, or None outside of the function that is mapped over it."""
    if axis_name is None:
        return None
    try:
        jax.lax.axis_size(axis_name)
    except NameError:
        # Outside, the arrays are already those of all devices, so that a sum over the axis is neither possible nor needed.
        return None
    return axis_name


def _check_settings(temperature, base_temperature, normalizer: str, tile_size):
    _check_positive("temperature", temperature)
    if base_temperature is not None:
        _check_positive("base_temperature", base_temperature)
    _check_normalizer(normalizer)
    if not isinstance(tile_size, numbers.Integral) or tile_size < 1:
        raise UserError(f"tile_size is {tile_size}; allowed: 1 and more, without a fraction; change loss.tile_size")


def _check_positive(name: str, value):
    """UserError unless the value is one finite number above 0; for a traced value only the shape is checked."""
    if isinstance(value, Tracer):
        wrong, found = jnp.ndim(value) > 0, f"of shape {list(jnp.shape(value))}"
    else:
        wrong, found = not _is_positive(np.asarray(value)), value
    if wrong:
        raise UserError(f"{name} is {found}; allowed: one number above 0; change loss.{name}")


def _is_positive(value: np.ndarray) -> bool:
    return value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.number) and bool(0.0 < value < np.inf)


def _check_normalizer(normalizer: str):
    if normalizer not in NORMALIZERS:
        raise UserError(f"normalizer is {normalizer!r}; allowed: {', '.join(NORMALIZERS)}; change loss.normalizer")


def _check_weights(weights):
    """UserError for a weight below 0 or infinite; traced weights cannot be checked."""
    if weights is None or isinstance(weights, Tracer):
        return
    values = np.asarray(weights).astype(np.float32)
    wrong = values[(values < 0.0) | np.isinf(values)]
    if len(wrong):
        raise UserError(
            f"contrast_weights has {wrong[0]:g}; allowed: numbers from 0, or True and False; change contrast_weights"
        )


def _check_centers(anchors, contrasts, centers: ClassCenters | None):
    if centers is None:
        return
    if contrasts is not None and len(contrasts) == 0:
        raise UserError("contrasts has 0 rows; allowed with centers: 1 or more; change contrasts")
    for name in ("logits", "attraction"):
        array = getattr(centers, name)
        _check_axes(f"centers.{name}", array, ("anchor", "class"))
        _check_size(f"centers.{name}", array, 0, "anchors", anchors)
    _check_size("centers.attraction", centers.attraction, 1, "centers.logits", centers.logits)
    if centers.weights is not None:
        _check_axes("centers.weights", centers.weights, ("class",))
        _check_size("centers.weights", centers.weights, 0, "classes of centers.logits", jnp.transpose(centers.logits))


def _check_shapes(anchors, anchor_labels, contrasts, contrast_labels, contrast_weights):
    _check_axes("anchors", anchors, ("anchor", "dim"))
    _check_axes("anchor_labels", anchor_labels, ("anchor", "class"))
    _check_size("anchor_labels", anchor_labels, 0, "anchors", anchors)
    if (contrasts is None) != (contrast_labels is None):
        missing, given = (
            ("contrast_labels", "contrasts") if contrast_labels is None else ("contrasts", "contrast_labels")
        )
        raise UserError(f"{missing} is None but {given} is not; allowed: both or neither; change {missing}")
    if contrasts is not None:
        _check_axes("contrasts", contrasts, ("contrast", "dim"))
        _check_axes("contrast_labels", contrast_labels, ("contrast", "class"))
        _check_size("contrast_labels", contrast_labels, 0, "contrasts", contrasts)
        _check_size("contrasts", contrasts, 1, "anchors", anchors)
        _check_size("contrast_labels", contrast_labels, 1, "anchor_labels", anchor_labels)
    if contrast_weights is not None:
        _check_axes("contrast_weights", contrast_weights, ("contrast",))
        _check_size("contrast_weights", contrast_weights, 0, "contrasts", anchors if contrasts is None else contrasts)


def _check_axes(name: str, array, axes: tuple[str, ...]):
    found = jnp.shape(array)
    if len(found) != len(axes):
        hint = " (of class numbers: jax.nn.one_hot(numbers, num_classes))" if name.endswith("labels") else ""
        if name in ("anchors", "contrasts") and len(found) == 3:
            hint = " (of several views: losses.flatten_views(features, labels))"
        raise UserError(f"{name} has shape {list(found)}; allowed: [{', '.join(axes)}]; change {name}{hint}")


def _check_size(name: str, array, axis: int, of_name: str, of_array):
    found, allowed = jnp.shape(array)[axis], jnp.shape(of_array)[axis]
    if found != allowed:
        what, why = ("rows", "one for each of") if axis == 0 else ("columns", "as many as")
        raise UserError(f"{name} has {found} {what}; allowed: {allowed}, {why} {of_name}; change {name}")
