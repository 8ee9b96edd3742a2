"""Where a teacher's labels pull: the share of its attraction that goes to images without a class in common."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from gensupcon_jax import losses
from gensupcon_jax.collectives import sum_over
from gensupcon_jax.similarities import Similarity


def unrelated_attraction(
    queries: tuple[Float[Array, "query class"], Float[Array, "query class"]],
    contrasts: tuple[Float[Array, "contrast class"], Float[Array, "contrast class"]],
    allowed: Shaped[Array, "query contrast"],
    *,
    label_similarity: str | Similarity = "cosine",
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Share, 0 to 1, of the similarity of predictions that belongs to pairs whose labels have no class in common.

    queries, contrasts: labels and the teacher's predictions; queries are the same on every device, contrasts are its own.
    allowed: weight of each pair, 0 or more. A floor of probability under all classes makes every image attract every other: of
    labels smoothed by 0.1 the share is 19 %, by 0.5 it is 75 %, with one contrast per class and many classes.
    """
    queries, contrasts, allowed = jax.lax.stop_gradient((queries, contrasts, allowed))
    (query_labels, query_predictions), (contrast_labels, contrast_predictions) = queries, contrasts
    attraction = losses.label_similarity(query_predictions, contrast_predictions, name=label_similarity) * allowed
    in_common = jnp.matmul(query_labels, contrast_labels.T, precision=jax.lax.Precision.HIGHEST)
    unrelated = jnp.sum(jnp.where(in_common > 0.0, 0.0, attraction))
    unrelated, total = sum_over(jnp.stack([unrelated, attraction.sum()]), axis_name)
    return unrelated / jnp.maximum(total, 1e-12)
