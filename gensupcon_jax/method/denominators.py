"""Weights of contrasts that make every class count alike in the sum of the softmax, however many contrasts it has."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Shaped

from gensupcon_jax.collectives import sum_over
from gensupcon_jax.configs.fields import names_of

Array = jax.Array | np.ndarray

DENOMINATORS = names_of("loss.denominator")


def class_balanced_weights(
    labels: Shaped[Array, "contrast class"],
    allowed: Bool[Array, " contrast"] | None = None,
    *,
    num_centers: int = 0,
    unlabeled: Float[Array, " contrast"] | None = None,
    axis_name: str | None = None,
) -> Float[jax.Array, " contrast"]:
    """Weight of each contrast: 1 / the number of contrasts of its class on all devices (class averaging, arXiv 2207.09052).

    labels [contrast, class] >= 0; allowed [contrast]: the others have weight 0 and are not counted. A mixed label counts to each
    of its classes by its share of it: v_j = sum_c y_jc / n_c with n_c = sum_j y_jc. So the weights of a class add up to 1, and
    all weights to the number of classes that are present. num_centers: learned centers of each class, which count too.
    unlabeled [contrast]: the share of images without a label in each row, which has the mean weight of the labeled shares; None:
    a row of zeros has weight 0. Float32, constants to the gradient.

    >>> class_balanced_weights(jnp.array([[1, 0], [1, 0], [1, 0], [0, 1]])).round(3).tolist()
    [0.3330000042915344, 0.3330000042915344, 0.3330000042915344, 1.0]
    """
    shares = _shares(labels, allowed, unlabeled)
    counts = class_counts(labels, allowed, unlabeled=unlabeled, axis_name=axis_name) + num_centers
    weights = jnp.sum(shares / jnp.where(counts > 0.0, counts, 1.0), axis=1)
    if unlabeled is None:
        return weights
    total, labeled = sum_over(jnp.stack([weights.sum(), shares.sum()]), axis_name)
    usual = jnp.where(labeled > 0.0, total / jnp.where(labeled > 0.0, labeled, 1.0), 1.0)
    weights = weights + usual * (1.0 - shares.sum(axis=1))
    return weights if allowed is None else jnp.where(allowed, weights, 0.0)


def class_counts(
    labels: Shaped[Array, "contrast class"],
    allowed: Bool[Array, " contrast"] | None = None,
    *,
    unlabeled: Float[Array, " contrast"] | None = None,
    axis_name: str | None = None,
) -> Float[jax.Array, " class"]:
    """The number of contrasts of each class on all devices; a mixed label counts by its shares."""
    return sum_over(_shares(labels, allowed, unlabeled).sum(axis=0), axis_name)


def _shares(labels, allowed, unlabeled):
    labels = jax.lax.stop_gradient(jnp.asarray(labels).astype(jnp.float32))
    total = labels.sum(axis=1, keepdims=True)
    if unlabeled is not None:
        total = total + jax.lax.stop_gradient(jnp.asarray(unlabeled))[:, None]
    shares = labels / jnp.where(total > 0.0, total, 1.0)
    return shares if allowed is None else jnp.where(allowed[:, None], shares, 0.0)
