"""Diagnostics of a step: chance level, accuracy, similar contrasts, spread, rank, entropies."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from gensupcon_jax import losses
from gensupcon_jax.collectives import first_number, max_over, mean_over, num_devices, sum_over
from gensupcon_jax.instances import Instances
from gensupcon_jax.method.attraction import unrelated_attraction
from gensupcon_jax.similarities import Pairwise, Similarity, far_similarity, near_weights, resolved, sides_of

# A contrast is similar if its label similarity is above one half. For hard labels that is the same class; for an anchor
# mixed from two classes it is every class with a share of more than 37 % (0.37 / |(0.37, 0.63)| = 0.5).
SIMILAR = 0.5

# Inner products of float32 unit vectors have rounding errors of about 1e-7, which depend on the number of devices:
# contrasts within this distance of the most similar one are ties.
_TIE = 1e-6

# Collapsed embeddings differ by rounding only, in all directions: that is not a rank.
_SMALLEST_SPREAD = 1e-9

# An anchor has a similar contrast if its similarities sum to more than their rounding error.
_SMALLEST_MASS = 1e-4

_PRECISION = jax.lax.Precision.HIGHEST


class Labeled(NamedTuple):
    """Unit embeddings and the label distribution of each.

    instances: of anchors, where images have no label: the part of the labels of anchors and contrasts that stands for them.
    """

    embeddings: Float[Array, "row dim"]
    labels: Shaped[Array, "row class"]
    instances: Instances | None = None


def batch_diagnostics(
    anchors: Labeled,
    contrasts: Labeled | None = None,
    *,
    contrast_weights: Shaped[Array, " masked"] | None = None,
    teacher: tuple[Float[Array, "anchor class"], Float[Array, "contrast class"] | None] | None = None,
    label_similarity: str | Similarity = "cosine",
    axis_name: str | None = None,
    num_anchors: int = 64,
) -> dict[str, Float[Array, ""]]:
    """Diagnostics of a batch, as float32 scalars without gradient, the same on any number of devices.

    Arguments as for `losses.generalized_contrastive_loss`. `pair_diagnostics` of the first num_anchors anchors of all
    devices, `embedding_diagnostics` of all; similarity_mass, the mean over all anchors of the sum of label similarities
    to the contrasts; label_entropy: a mean in nats. teacher: its predictions for the anchors and the contrasts; with it also
    teacher_entropy and, of the first num_anchors anchors, unrelated_attraction, see `attraction.unrelated_attraction`.
    """
    arrays = (anchors[:2], contrasts, contrast_weights, teacher)
    fixed, contrasts, contrast_weights, teacher = jax.lax.stop_gradient(arrays)
    instances, anchors = anchors.instances, Labeled(*fixed, anchors.instances)
    metrics = pair_diagnostics(
        anchors,
        contrasts,
        contrast_weights=contrast_weights,
        label_similarity=label_similarity,
        axis_name=axis_name,
        num_anchors=num_anchors,
    )
    metrics |= embedding_diagnostics(anchors.embeddings, axis_name=axis_name)
    contrast_labels = None if contrasts is None else contrasts.labels
    labels = (anchors.labels, contrast_labels, contrast_weights, instances)
    mass, _ = _similarity_masses(*labels, label_similarity, axis_name)
    metrics["similarity_mass"] = mean_over(mass, axis_name)
    rows = anchors.labels if instances is None else jnp.concatenate([anchors.labels, instances.anchors], axis=1)
    metrics["label_entropy"] = mean_entropy(rows, axis_name=axis_name)
    if teacher is not None:
        of_anchors, of_contrasts = teacher
        metrics["teacher_entropy"] = mean_entropy(of_anchors, axis_name=axis_name)
        among_themselves = contrasts is None
        queries = _first_rows((anchors.labels, of_anchors), num_anchors, axis_name)
        others = (anchors.labels, of_anchors)
        if contrasts is not None and of_contrasts is not None:
            others = (contrasts.labels, of_contrasts)
        pairs = (len(queries[0]), len(others[0]))
        metrics["unrelated_attraction"] = unrelated_attraction(
            queries,
            others,
            _allowed_pairs(*pairs, contrast_weights, among_themselves, axis_name),
            label_similarity=label_similarity,
            axis_name=axis_name,
        )
    return metrics


def pair_diagnostics(
    anchors: Labeled,
    contrasts: Labeled | None = None,
    *,
    contrast_weights: Shaped[Array, " weighted"] | None = None,
    label_similarity: str | Similarity = "cosine",
    axis_name: str | None = None,
    num_anchors: int = 64,
) -> dict[str, Float[Array, ""]]:
    """contrastive_accuracy and similar_contrasts of the first num_anchors anchors of all devices.

    Accuracy: of the anchors with a similar contrast (label similarity above 0.5), the share whose most similar
    embedding is a similar contrast; contrasts at the same distance share the anchor; 0 if no anchor has one.
    similar_contrasts: their mean number per anchor.
    """
    queries, query_labels = _first_rows(anchors[:2], num_anchors, axis_name)
    among_themselves, instances = contrasts is None, anchors.instances
    others, other_labels = (anchors if contrasts is None else contrasts)[:2]
    allowed = _allowed_pairs(len(queries), len(others), contrast_weights, among_themselves, axis_name)
    similarity = _similarity_to(query_labels, other_labels, instances, label_similarity, axis_name)
    labels_alike = jnp.where(allowed, similarity, 0.0)
    embeddings_alike = jnp.where(allowed, losses.latent_similarity(queries, others, temperature=1.0), -jnp.inf)
    nearest = allowed & (embeddings_alike >= max_over(embeddings_alike.max(axis=1), axis_name)[:, None] - _TIE)
    similar = labels_alike > SIMILAR
    sums = jnp.stack([_count(similar), _count(nearest & similar), _count(nearest)])
    num_similar, hits, num_nearest = sum_over(sums, axis_name)
    has_similar = num_similar > 0.0
    # hits is 0 where no contrast is similar.
    correct = jnp.sum(hits / jnp.maximum(num_nearest, 1.0))
    return {
        "contrastive_accuracy": correct / jnp.maximum(jnp.sum(has_similar), 1),
        "similar_contrasts": num_similar.mean(),
    }


def _similarity_to(
    query_labels, other_labels, instances: Instances | None, label_similarity: str | Similarity, axis_name: str | None
) -> Float[Array, "query contrast"]:
    """The label similarity of the first anchors of all devices to this device's contrasts."""
    if instances is None:
        return jnp.asarray(losses.label_similarity(query_labels, other_labels, name=label_similarity))
    num_queries, num_contrasts = len(query_labels), len(other_labels)
    (query_places,) = _first_rows((instances.anchors,), num_queries, axis_name)
    places = instances.anchors if instances.contrasts is None else instances.contrasts
    queries, others = (
        sides_of(labels, label_similarity, own)
        for labels, own in ((query_labels, query_places), (other_labels, places))
    )
    same_block = instances.same_block(num_queries, num_contrasts, axis_name)
    return far_similarity(queries, others) + jnp.where(same_block, near_weights(queries, others), 0.0)


def embedding_diagnostics(
    embeddings: Float[Array, "row dim"], *, axis_name: str | None = None
) -> dict[str, Float[Array, ""]]:
    """embedding_spread and effective_rank of unit vectors [row, dim] over all devices.

    Spread: 1 - |mean|^2, from 0 (all equal) to 1. Rank: (tr C)^2 / tr(C^2) of the covariance C, the number of
    directions that the embeddings use (a participation ratio), 1 to dim; 0 if all are equal.
    """
    embeddings = embeddings.astype(jnp.float32)
    num_rows = embeddings.shape[0] * num_devices(axis_name)
    # In two passes: E[z z'] - m m' would cancel for nearly collapsed embeddings.
    centered = embeddings - sum_over(embeddings.sum(axis=0), axis_name) / num_rows
    moments = jnp.einsum("ni,nj->ij", centered, centered, precision=_PRECISION)
    covariance = sum_over(moments, axis_name) / num_rows
    spread = jnp.trace(covariance)  # of unit vectors: mean |z|^2 - |m|^2 = 1 - |m|^2
    some = spread > _SMALLEST_SPREAD
    shape = covariance / jnp.where(some, spread, 1.0)
    rank = 1.0 / jnp.where(some, jnp.sum(shape**2), 1.0)
    return {"embedding_spread": spread, "effective_rank": jnp.where(some, rank, 0.0)}


def mean_entropy(distributions: Shaped[Array, "row class"], *, axis_name: str | None = None) -> Float[Array, ""]:
    """Mean entropy in nats of distributions [row, class] >= 0 over all devices; rows are scaled to a sum of 1.

    A row of zeros counts as 0.
    """
    distributions = jnp.asarray(distributions).astype(jnp.float32)
    total = distributions.sum(axis=1, keepdims=True)
    entropies = jax.scipy.special.entr(distributions / jnp.where(total > 0.0, total, 1.0)).sum(axis=1)
    return mean_over(entropies, axis_name)


def chance_losses(
    anchor_labels: Shaped[Array, "anchor class"],
    contrast_labels: Shaped[Array, "contrast class"] | None = None,
    *,
    contrast_weights: Shaped[Array, " weighted"] | None = None,
    normalizer: str = "similarity",
    label_similarity: str | Similarity = "cosine",
    centers: losses.ClassCenters | None = None,
    instances: Instances | None = None,
    axis_name: str | None = None,
) -> losses.AnchorLoss:
    """The loss of this batch's labels if all embeddings were equal: ln of the sum of the contrasts' weights.

    Without weights that is their number. For the normalizer "count" it is multiplied by the mean label similarity. centers: with
    the logits that all embeddings would have. The loss itself has the factor temperature / base_temperature, too. Arguments as
    for `losses.generalized_contrastive_loss`; `batch_chance_loss` is the mean.
    """
    arrays = jax.lax.stop_gradient((anchor_labels, contrast_labels, contrast_weights))
    mass, num_contrasts = _similarity_masses(*arrays, instances, label_similarity, axis_name)
    weight = num_contrasts
    if contrast_weights is not None:
        weights = jax.lax.stop_gradient(jnp.asarray(contrast_weights).astype(jnp.float32))
        weight = sum_over(weights.sum(), axis_name) - (weights if contrast_labels is None else 0.0)
    mean_logit = 0.0
    if centers is not None:
        mass, weight, mean_logit = _with_centers(mass, weight, centers)
        num_contrasts = num_contrasts + centers.logits.shape[1]
    valid = mass > _SMALLEST_MASS
    loss = jnp.where(valid, jnp.log(jnp.where(weight > 0.0, weight, 1.0)) - mean_logit, 0.0)
    if normalizer == "count":
        loss = loss * mass / jnp.maximum(num_contrasts, 1.0)
    return losses.AnchorLoss(loss, valid, axis_name)


def batch_chance_loss(
    anchor_labels: Shaped[Array, "anchor class"],
    contrast_labels: Shaped[Array, "contrast class"] | None = None,
    **settings: Any,
) -> Float[Array, ""]:
    """The mean of `chance_losses`, which has these arguments, over the valid anchors of all devices."""
    mean: Any = chance_losses(anchor_labels, contrast_labels, **settings).mean()
    return mean


def _with_centers(mass, weight, centers: losses.ClassCenters):
    """-> of contrasts and centers: the sum of similarities, the sum of weights x exp(logit), and the mean logit [anchor]."""
    logits, attraction = jax.lax.stop_gradient((centers.logits, centers.attraction))
    weights = 1.0 if centers.weights is None else centers.weights
    mass = centers.contrast_attraction * mass + attraction.sum(axis=1)
    mean_logit = jnp.sum(attraction * logits, axis=1) / jnp.maximum(mass, _SMALLEST_MASS)
    return mass, weight + jnp.sum(weights * jnp.exp(logits), axis=1), mean_logit


def _similarity_masses(
    anchor_labels,
    contrast_labels,
    contrast_weights,
    instances: Instances | None,
    label_similarity: str | Similarity,
    axis_name: str | None,
) -> tuple[Float[Array, " anchor"], Float[Array, " anchor"]]:
    """For each local anchor, the sum of label similarities to the contrasts of all devices, and their number."""
    rows = anchor_labels if contrast_labels is None else contrast_labels
    counts = jnp.ones(len(rows)) if contrast_weights is None else (jnp.asarray(contrast_weights) > 0) * 1.0
    itself = counts if contrast_labels is None else jnp.zeros(len(anchor_labels))
    if instances is not None or isinstance(resolved(label_similarity), Pairwise):
        arguments = {"label_similarity": label_similarity, "instances": instances, "axis_name": axis_name}
        mass = losses.similarity_masses(anchor_labels, contrast_labels, counts, **arguments)
        return mass, sum_over(counts.sum(), axis_name) - itself
    sides = sides_of(anchor_labels, label_similarity)
    others = sides if contrast_labels is None else sides_of(contrast_labels, label_similarity)
    per_class, number = sum_over((jnp.sum(others.as_contrast * counts[:, None], axis=0), counts.sum()), axis_name)
    # Sums of classes minus the anchor itself: exact for hard labels, rounded by about 1e-6 of the sum for others.
    mass = jnp.sum(sides.as_anchor * (per_class - sides.as_contrast * itself[:, None]), axis=1)
    return mass, number - itself


def _first_rows(arrays: tuple, num_rows: int, axis_name: str | None) -> tuple:
    """The first num_rows rows [<= num_rows, ...] of the arrays of all devices, on every device, float32.

    Each device contributes its rows among them: less traffic than a gather of all rows.
    """
    size = len(arrays[0])
    num_rows = min(num_rows, size * num_devices(axis_name))
    start = first_number(size, axis_name)

    def placed(array):
        own = jnp.asarray(array)[:num_rows].astype(jnp.float32)
        everyone = jnp.zeros((num_rows, *own.shape[1:]))
        return everyone.at[start + jnp.arange(len(own))].set(own, mode="drop")

    return sum_over(tuple(placed(array) for array in arrays), axis_name)


def _allowed_pairs(
    num_queries: int, num_contrasts: int, contrast_weights, among_themselves: bool, axis_name: str | None
) -> Bool[Array, "query contrast"]:
    """Which of this device's contrasts count for which of the first anchors of all devices."""
    allowed = jnp.ones(num_contrasts, bool) if contrast_weights is None else jnp.asarray(contrast_weights) > 0
    allowed = jnp.broadcast_to(allowed, (num_queries, num_contrasts))
    if not among_themselves:
        return allowed
    numbers = first_number(num_contrasts, axis_name) + jnp.arange(num_contrasts)
    return allowed & (jnp.arange(num_queries)[:, None] != numbers)


def _count(pairs: Bool[Array, "query contrast"]) -> Float[Array, " query"]:
    return pairs.sum(axis=1, dtype=jnp.float32)
