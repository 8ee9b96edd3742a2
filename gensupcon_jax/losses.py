"""The generalized supervised contrastive loss: its dense definition, and the factored, tiled form that training runs."""

import functools
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from gensupcon_jax.errors import UserError

Array = jax.Array | np.ndarray
Scalar = float | int | np.number | jax.Array | np.ndarray

NORMALIZERS = ("similarity", "count")

# Rows of logits held at once. On a CPU 128 and 256 are the fastest (512 leaves the cache), and an accelerator has enough
# to do in one step.
DEFAULT_TILE_SIZE = 256

# A TPU rounds the inputs of a float32 matmul to bfloat16 unless told otherwise; with logits of 1 / temperature that
# rounding would be larger than the differences the loss is about.
_PRECISION = jax.lax.Precision.HIGHEST

# An anchor counts as having a similar contrast when its similarities sum to more than this. Float32 ends at 1e-38:
# above 1e-33 a flushed pair changes the sum by at most 1e-5 of it, and 1 / sum does not overflow in the gradient.
_SMALLEST_SIMILARITY = 1e-33


@functools.partial(jax.tree_util.register_dataclass, data_fields=("loss", "valid"), meta_fields=("axis_name",))
@dataclass(frozen=True)
class AnchorLoss:
    """The loss of every anchor (ours): `loss` [anchor] float32, `valid` [anchor] bool.

    An anchor without a contrast, or without a similar one, is not valid and its loss is 0: `mean()` leaves it out,
    `loss.mean()` counts it, as the authors' code does. Unpacks as `loss, valid`. `axis_name` is static.
    """

    # Not jaxtyped: jax also puts specs, shapes and placeholders in the fields when it rebuilds the tree.
    loss: Any
    valid: Any
    axis_name: str | None = field(default=None)

    def __iter__(self):
        """`loss, valid = anchor_loss`."""
        return iter((self.loss, self.valid))

    def mean(self, axis_name: str | None = None) -> Float[Array, ""]:
        """The mean over the valid anchors, of all devices of `axis_name` or of the loss's own axis; 0 if there are none.

        Under `shard_map(check_vma=False)`, `pmap` and `vmap`, jax differentiates the sum over devices of what each
        of them returns: there, gradients of this mean taken inside the mapped function are to be averaged (`pmean`).
        """
        valid = jnp.asarray(self.valid)
        totals = jnp.stack([jnp.sum(jnp.where(valid, self.loss, 0.0)), jnp.sum(valid, dtype=jnp.float32)])
        total, count = _sum_over(totals, _bound(axis_name or self.axis_name))
        return total / jnp.maximum(count, 1.0)


def label_similarity(
    anchor_labels: Shaped[Array, "anchor class"], contrast_labels: Shaped[Array, "contrast class"]
) -> Float[Array, "anchor contrast"]:
    """Cosine similarity of label distributions (paper; authors' code).

    anchor_labels [anchor, class] and contrast_labels [contrast, class], any numeric type, >= 0; returns
    [anchor, contrast] in 0..1, float32. A row of zeros is similar to nothing.
    """
    return _inner_products(_unit_labels(anchor_labels), _unit_labels(contrast_labels))


def latent_similarity(
    anchors: Float[Array, "anchor dim"], contrasts: Float[Array, "contrast dim"], *, temperature: Scalar
) -> Float[Array, "anchor contrast"]:
    """Inner products of embeddings over the temperature: the logits of the contrastive softmax (paper).

    anchors [anchor, dim] and contrasts [contrast, dim] are taken as they are: normalise them first. Returns
    [anchor, contrast] float32. Raises UserError when temperature is a number <= 0.
    """
    _check_positive("temperature", temperature)
    return _inner_products(_float32(anchors), _float32(contrasts)) / temperature


def dense_contrastive_loss(
    label_similarity: Float[Array, "anchor contrast"],
    latent_similarity: Float[Array, "anchor contrast"],
    *,
    mask: Shaped[Array, "anchor contrast"] | None = None,
    normalizer: str = "similarity",
    scale: Scalar = 1.0,
) -> AnchorLoss:
    """The definition: cross-entropy between label similarity and the softmax of latent similarity (paper, Eq. 2).

    Both matrices are [anchor, contrast]; mask [anchor, contrast] is true for the pairs that count (None: all; pass
    `~jnp.eye(n, dtype=bool)` when the anchors are their own contrasts). normalizer: divide by the sum of similarities
    ("similarity", authors' code) or by the number of contrasts ("count", Eq. 2). scale multiplies the loss; the authors'
    is temperature / base_temperature. Label similarity is a constant. Raises UserError for another normalizer.
    """
    _check_normalizer(normalizer)
    allowed = jnp.ones(label_similarity.shape, bool) if mask is None else jnp.asarray(mask).astype(bool)
    weights = jnp.where(allowed, jax.lax.stop_gradient(_float32(label_similarity)), 0.0)
    log_probabilities = _masked_log_softmax(_float32(latent_similarity), allowed)
    valid, divisor = _validity(weights.sum(axis=1), allowed.sum(axis=1), normalizer)
    loss = -scale * jnp.sum(weights * log_probabilities, axis=1) / divisor
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
    contrast_mask: Shaped[Array, " masked"] | None = None,
    axis_name: str | None = None,
    tile_size: int = DEFAULT_TILE_SIZE,
) -> AnchorLoss:
    """The same loss as `dense_contrastive_loss`, without any matrix of anchors x contrasts (form: ours).

    anchors [anchor, dim] and contrasts [contrast, dim]: unit vectors, any float type; anchor_labels [anchor, class] and
    contrast_labels [contrast, class]: distributions >= 0, any numeric type, constants to the gradient. Without
    contrasts every other anchor is a contrast. contrast_mask [contrast] (or [anchor]) is false for contrasts to
    leave out; an anchor left out as a contrast is still an anchor. The loss is multiplied by
    temperature / base_temperature (authors: 0.07), or not when that is None. normalizer: see `dense_contrastive_loss`.
    axis_name: a mapped axis over which anchors and contrasts are spread: each anchor then meets the contrasts of all
    devices. tile_size: rows of logits held at once; it changes the memory and the speed, never the value.

    Returns AnchorLoss of the local anchors, float32. Differentiable (reverse mode) in anchors, contrasts and temperature.
    Raises UserError for another normalizer, temperatures <= 0, tile_size < 1, contrasts without labels, and lengths that
    do not fit.
    """
    _check_settings(temperature, base_temperature, normalizer, tile_size)
    _check_lengths(anchors, anchor_labels, contrasts, contrast_labels, contrast_mask)
    among_themselves = contrasts is None
    if among_themselves:
        contrasts, contrast_labels = anchors, anchor_labels
    mask = jnp.ones(len(contrasts), bool) if contrast_mask is None else jnp.asarray(contrast_mask).astype(bool)
    anchors, contrasts = _varying((_float32(anchors), _float32(contrasts)), axis_name)
    labels, contrast_labels = _varying((_unit_labels(anchor_labels), _unit_labels(contrast_labels)), axis_name)
    mask, tau = _varying((mask, _float32(temperature)), axis_name)
    penalty = None if contrast_mask is None else jnp.where(mask, 0.0, -jnp.inf)

    num_contrasts = _sum_over(mask.sum(), axis_name)
    if among_themselves:
        pull, similarity = _label_sums_among(labels, anchors, mask, axis_name)
        log_sum_exp = _log_sum_exp_among(anchors, penalty, tau, tile_size, axis_name)
        num_contrasts = num_contrasts - mask
    else:
        pull, similarity = _label_sums_over(labels, contrast_labels, contrasts, mask, axis_name)
        log_sum_exp = _log_sum_exp_over(anchors, contrasts, penalty, tau, tile_size, axis_name)

    valid, divisor = _validity(similarity, num_contrasts, normalizer)
    # pull / divisor is, for "similarity", the mean of the contrasts weighted by their similarity to the anchor.
    attraction = jnp.sum(anchors * (pull / divisor[:, None]), axis=1) / tau
    loss = (similarity / divisor) * log_sum_exp - attraction
    if base_temperature is not None:
        loss = loss * (tau / base_temperature)
    return AnchorLoss(jnp.where(valid, loss, 0.0), valid, axis_name)


# ---- labels: sum_j w_ij z_j and sum_j w_ij, w_ij = y_i . y_j, without the matrix w


def _label_sums_over(anchor_labels, contrast_labels, contrasts, mask, axis_name):
    """-> sum_j w_ij z_j [anchor, dim] and sum_j w_ij [anchor] over the allowed contrasts of all devices.

    w_ij is an inner product, so contrasts are summed per class first: Y_a (Y_c^T Z) instead of (Y_a Y_c^T) Z.
    """
    per_class = _sum_over(_matmul(contrast_labels.T, _with_count(contrasts, mask)), axis_name)
    return _without_count(_matmul(anchor_labels, per_class))


def _label_sums_among(labels, embeddings, mask, axis_name):
    """-> the same with every other anchor as a contrast: sums over j != i of all devices.

    "Sum of all, minus oneself" would cancel: with a peaked teacher the others may hold 1e-9 of what the anchor itself
    holds of a class. So the one row that holds most of a class (its leader) is kept apart from the rest: a leader
    meets only the rest, with nothing to subtract, and for any other row oneself is at most half of the class. Hence
    the sums keep their relative precision and are exactly 0 for an anchor with no similar contrast.
    """
    values = _with_count(embeddings, mask)
    leader, share = _class_leaders(labels * mask[:, None], axis_name)
    rest = labels.at[leader, jnp.arange(labels.shape[1])].add(-share)
    rest_sum = _sum_over(_matmul(rest.T, values), axis_name)
    leader_sum = _sum_over(share[:, None] * values[leader], axis_name)
    of_rest = _matmul(rest, rest_sum + leader_sum) - jnp.sum(rest**2, axis=1, keepdims=True) * values
    return _without_count(of_rest.at[leader].add(share[:, None] * rest_sum))


def _class_leaders(
    labels: Float[Array, "row class"], axis_name: str | None
) -> tuple[Int[Array, " class"], Float[Array, " class"]]:
    """Of each class the local row that holds most of it, and how much (0 where the leader is on another device)."""
    share = labels.max(axis=0)
    rows = jnp.arange(labels.shape[0])[:, None]
    leader = jnp.where(labels == share, rows, labels.shape[0] - 1).min(axis=0)
    if axis_name is None:
        return leader, share
    device = jax.lax.axis_index(axis_name)
    leads = share == jax.lax.pmax(share, axis_name)
    first = jax.lax.pmin(jnp.where(leads, device, jax.lax.axis_size(axis_name)), axis_name)
    return leader, jnp.where(device == first, share, 0.0)


def _with_count(embeddings, mask):
    """Masked embeddings with a column of ones: one matmul then sums the vectors and counts their weights."""
    return jnp.concatenate([embeddings, jnp.ones_like(embeddings[:, :1])], axis=1) * mask[:, None]


def _without_count(sums):
    return sums[:, :-1], jax.lax.stop_gradient(sums[:, -1])


# ---- embeddings: log sum_j exp(s_ij) in tiles of rows, recomputed for the gradient


class _Points(NamedTuple):
    """Embeddings with what one side of the pairs must know of them."""

    embeddings: Float[Array, "point dim"]
    number: Int[Array, " point"]  # consecutive, in the array of all devices
    penalty: Float[Array, " point"] | None  # as a contrast: 0, or -inf when it is left out; None: none is
    log_sum_exp: Float[Array, " point"] | None = None  # as an anchor
    weight: Float[Array, " point"] | None = None  # as an anchor: the cotangent of its log_sum_exp


def _log_sum_exps(anchors: _Points, contrasts: _Points, temperature, tile_size: int, with_self: bool):
    """log of the sum over the contrasts of exp(s_ij) [anchor]; 0 for an anchor that has none."""

    def tile(rows: _Points):
        # The mask comes before the maximum: after it, a small temperature would leave only exp(-large) = 0.
        logits = _penalized(_logits(rows, contrasts, temperature, with_self), contrasts.penalty)
        largest = logits.max(axis=1)
        some = largest > -jnp.inf
        largest = jnp.where(some, largest, 0.0)
        total = jnp.exp(logits - largest[:, None]).sum(axis=1)
        return jnp.where(some, largest + jnp.log(jnp.where(some, total, 1.0)), 0.0)

    return _map_tiles(tile, anchors, tile_size)


def _log_sum_exp_gradients(points: _Points, others: _Points, temperature, tile_size: int, with_self: bool):
    """Gradient for `points` [point, dim] of sum_i weight_i log_sum_exp_i, i over the anchors of either side.

    A pair pulls on a point twice: in the softmax of the point (as an anchor) and in that of the other. A side without
    weights has no anchors.
    """

    def tile(rows: _Points):
        logits = _logits(rows, others, temperature, with_self)
        pull = 0.0
        if rows.weight is not None:
            as_anchor = _penalized(logits - rows.log_sum_exp[:, None], others.penalty)
            pull += rows.weight[:, None] * jnp.exp(as_anchor)
        if others.weight is not None:
            as_contrast = _penalized(logits - others.log_sum_exp, rows.penalty, axis=1)
            pull += others.weight * jnp.exp(as_contrast)
        return _matmul(pull, others.embeddings) / temperature

    return _map_tiles(tile, points, tile_size)


def _logits(rows: _Points, columns: _Points, temperature, with_self: bool):
    """s_ij; -inf where both are the same image, unless with_self."""
    logits = _inner_products(rows.embeddings / temperature, columns.embeddings)
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
    # Most batches leave out nothing, and a pass over all logits is not free.
    return logits if penalty is None else logits + jnp.expand_dims(penalty, axis)


def _map_tiles(function: Callable, rows: _Points, tile_size: int):
    """function over equal tiles of at most tile_size rows, one after another; rows that fill the last are cut off."""
    num_rows = rows.embeddings.shape[0]
    num_tiles = max(1, -(-num_rows // tile_size))
    size = -(-num_rows // num_tiles)

    def tiles(array):
        padding = [(0, num_tiles * size - num_rows)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(num_tiles, size, *array.shape[1:])

    results = jax.lax.map(function, jax.tree.map(tiles, rows))
    return results.reshape(num_tiles * size, *results.shape[2:])[:num_rows]


def _log_sum_exp_among(embeddings, penalty, temperature, tile_size: int, axis_name: str | None):
    """log_sum_exp [anchor] of the local anchors over all other anchors of all devices."""
    points = _points(embeddings, penalty, axis_name)
    everyone = _gather(points, axis_name)
    log_sum_exp = _log_sum_exps(points, everyone, jax.lax.stop_gradient(temperature), tile_size, with_self=False)
    points = points._replace(log_sum_exp=log_sum_exp)
    everyone = everyone._replace(log_sum_exp=_gather(log_sum_exp, axis_name))
    return _own_part(_among_with_gradient(embeddings, temperature, points, everyone, tile_size), axis_name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _among_with_gradient(embeddings, temperature, points: _Points, everyone: _Points, tile_size: int):
    """The local log_sum_exp, among zeros for the anchors of the other devices, differentiable in the first two.

    No collective stands in here or in its gradient: jax loses the name of the axis there under `grad(vmap(...))`.
    """
    return jnp.zeros_like(everyone.log_sum_exp).at[points.number].set(points.log_sum_exp)


def _among_forward(embeddings, temperature, points, everyone, tile_size):
    value = _among_with_gradient(embeddings, temperature, points, everyone, tile_size)
    return value, (temperature, points, everyone)


def _among_backward(tile_size, residuals, weights):
    temperature, points, everyone = residuals
    points, everyone = points._replace(weight=weights[points.number]), everyone._replace(weight=weights)
    gradients = _log_sum_exp_gradients(points, everyone, temperature, tile_size, with_self=False)
    # The logits are bilinear in the embeddings and go with 1 / temperature: both gradients hold sum_ij ds_ij s_ij.
    of_temperature = -jnp.sum(points.embeddings * gradients) / (2.0 * temperature)
    return gradients, of_temperature, None, None


_among_with_gradient.defvjp(_among_forward, _among_backward)


def _log_sum_exp_over(anchors, contrasts, penalty, temperature, tile_size: int, axis_name: str | None):
    """log_sum_exp [anchor] of the local anchors over the contrasts of all devices."""
    anchor_points = _points(anchors, None, axis_name)
    contrast_points = _points(contrasts, penalty, axis_name)
    every_contrast = _gather(contrast_points, axis_name)
    temperature_now = jax.lax.stop_gradient(temperature)
    log_sum_exp = _log_sum_exps(anchor_points, every_contrast, temperature_now, tile_size, with_self=True)
    anchor_points = anchor_points._replace(log_sum_exp=log_sum_exp)
    sides = (anchor_points, _gather(anchor_points, axis_name)), (contrast_points, every_contrast)
    return _own_part(_over_with_gradient(anchors, contrasts, temperature, *sides, tile_size), axis_name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _over_with_gradient(anchors, contrasts, temperature, anchor_points, contrast_points, tile_size: int):
    """As `_among_with_gradient`, differentiable in the first three; points are pairs of local and all."""
    local, everyone = anchor_points
    return jnp.zeros_like(everyone.log_sum_exp).at[local.number].set(local.log_sum_exp)


def _over_forward(anchors, contrasts, temperature, anchor_points, contrast_points, tile_size):
    value = _over_with_gradient(anchors, contrasts, temperature, anchor_points, contrast_points, tile_size)
    return value, (temperature, anchor_points, contrast_points)


def _over_backward(tile_size, residuals, weights):
    temperature, (anchors, every_anchor), (contrasts, every_contrast) = residuals
    anchors, every_anchor = anchors._replace(weight=weights[anchors.number]), every_anchor._replace(weight=weights)
    of_anchors = _log_sum_exp_gradients(anchors, every_contrast, temperature, tile_size, with_self=True)
    # Its own loop, so that the compiler drops all of it where nobody asks for it (keys of a momentum encoder).
    of_contrasts = _log_sum_exp_gradients(contrasts, every_anchor, temperature, tile_size, with_self=True)
    of_temperature = -jnp.sum(anchors.embeddings * of_anchors) / temperature
    return of_anchors, of_contrasts, of_temperature, None, None


_over_with_gradient.defvjp(_over_forward, _over_backward)


def _own_part(values, axis_name: str | None):
    """Of one vector [all anchors] a device, zero but for its own: the own part [anchor].

    A sum in form, so that its gradient hands every device the weights of all anchors: with them a device computes the
    whole gradient of its own embeddings (s_ij = s_ji), and no gradient has to be sent.
    """
    return values if axis_name is None else jax.lax.psum_scatter(values, axis_name, tiled=True)


def _points(embeddings, penalty, axis_name: str | None) -> _Points:
    """The local embeddings, constants to the gradient, with their numbers in the array of all devices."""
    start = 0 if axis_name is None else jax.lax.axis_index(axis_name) * embeddings.shape[0]
    number = start + jnp.arange(embeddings.shape[0])
    return _Points(jax.lax.stop_gradient(embeddings), number, penalty)


# ---- small parts


def _float32(array) -> jax.Array:
    return jnp.asarray(array).astype(jnp.float32)


def _matmul(left, right):
    return jnp.matmul(left, right, precision=_PRECISION)


def _inner_products(rows, columns):
    return jnp.einsum("id,jd->ij", rows, columns, precision=_PRECISION)


def _unit_labels(labels: Shaped[Array, "row class"]) -> Float[Array, "row class"]:
    """Rows of length 1, constants to the gradient; a zero row stays zero."""
    labels = jax.lax.stop_gradient(_float32(labels))
    # In units of the largest entry: the square of a small one would be flushed to zero.
    largest = jnp.abs(labels).max(axis=1, keepdims=True, initial=0.0)
    largest = jnp.where(largest > 0.0, largest, 1.0)
    length = jnp.sqrt(jnp.sum((labels / largest) ** 2, axis=1, keepdims=True))
    return labels / (largest * jnp.where(length > 0.0, length, 1.0))


def _masked_log_softmax(logits, allowed):
    """Row by row over the allowed entries; 0 for all others, so that rows without any have finite gradients."""
    largest = jax.lax.stop_gradient(jnp.where(allowed, logits, -jnp.inf).max(axis=1, keepdims=True))
    shifted = jnp.where(allowed, logits - jnp.where(largest > -jnp.inf, largest, 0.0), 0.0)
    total = jnp.sum(jnp.where(allowed, jnp.exp(shifted), 0.0), axis=1, keepdims=True)
    return jnp.where(allowed, shifted - jnp.log(jnp.where(total > 0.0, total, 1.0)), 0.0)


def _validity(similarity, num_contrasts, normalizer: str):
    """-> which anchors have a similar contrast [anchor], and what their sums are divided by (1 for the others)."""
    valid = similarity > _SMALLEST_SIMILARITY
    divisor = similarity if normalizer == "similarity" else num_contrasts.astype(jnp.float32)
    return valid, jnp.where(valid, divisor, 1.0)


def _sum_over(tree, axis_name: str | None):
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def _gather(tree, axis_name: str | None):
    """The arrays of all devices, one after another."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def _varying(tree, axis_name: str | None):
    """Inside `shard_map`: says that each device has its own values, which jax must know for a custom gradient."""

    def varying(array):
        known = axis_name in jax.typeof(array).manual_axis_type.varying
        return array if known else jax.lax.pcast(array, axis_name, to="varying")

    in_shard_map = axis_name in jax.sharding.get_abstract_mesh().manual_axes
    return jax.tree.map(varying, tree) if in_shard_map else tree


def _bound(axis_name: str | None) -> str | None:
    """axis_name, or None outside of the function that is mapped over it."""
    if axis_name is None:
        return None
    try:
        jax.lax.axis_size(axis_name)
    except NameError:
        # Out there the arrays are those of all devices already, and a sum over the axis is neither possible nor missing:
        # the loss itself could not have been computed without the axis.
        return None
    return axis_name


def _check_settings(temperature, base_temperature, normalizer: str, tile_size: int):
    _check_positive("temperature", temperature)
    if base_temperature is not None:
        _check_positive("base_temperature", base_temperature)
    _check_normalizer(normalizer)
    if tile_size < 1:
        raise UserError(f"tile_size is {tile_size}; allowed: 1 and more; change loss.tile_size")


def _check_positive(name: str, value):
    if isinstance(value, numbers.Real) and not 0.0 < value < float("inf"):
        raise UserError(f"{name} is {value}; allowed: above 0; change loss.{name}")


def _check_normalizer(normalizer: str):
    if normalizer not in NORMALIZERS:
        raise UserError(f"normalizer is {normalizer!r}; allowed: {', '.join(NORMALIZERS)}; change loss.normalizer")


def _check_lengths(anchors, anchor_labels, contrasts, contrast_labels, contrast_mask):
    if (contrasts is None) != (contrast_labels is None):
        missing, given = (
            ("contrast_labels", "contrasts") if contrast_labels is None else ("contrasts", "contrast_labels")
        )
        raise UserError(f"{missing} is None but {given} is not; allowed: both or neither; change {missing}")
    _check_length("anchor_labels", anchor_labels, "anchors", anchors)
    if contrasts is not None:
        _check_length("contrast_labels", contrast_labels, "contrasts", contrasts)
    if contrast_mask is not None:
        _check_length("contrast_mask", contrast_mask, "contrasts", anchors if contrasts is None else contrasts)


def _check_length(name: str, array, of_name: str, of_array):
    if len(array) != len(of_array):
        raise UserError(
            f"{name} has {len(array)} rows; allowed: {len(of_array)}, one for each of {of_name}; change {name}"
        )
