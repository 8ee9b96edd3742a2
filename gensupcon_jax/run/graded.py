"""What can be learned where labels are alike by degrees: several labels per image, and numbers."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from gensupcon_jax import losses, verdicts
from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.run import assemble
from gensupcon_jax.run.class_similarity import label_similarity_of

_IMAGES = 512  # evenly spaced ones stand for all


def alike_by_degrees(config: ConfigDict, dataset: Dataset) -> float:
    """The share of the chance-level loss that embeddings remove whose similarities follow those of the labels.

    The cross-entropy of an anchor is then the entropy of its label similarities to the contrasts, which sum to 1 after division.
    """
    chosen = np.linspace(0, dataset.train.num_images - 1, min(_IMAGES, dataset.train.num_images)).astype(np.int64)
    rows = jnp.asarray(dataset.train.labels_of(chosen))
    similarity, _ = label_similarity_of(config.loss.label_similarity, rows.shape[1])
    alike = np.asarray(losses.label_similarity(rows, rows, name=similarity))
    return verdicts.separable_share(information_of(alike), assemble.num_contrasts(config))


def information_of(similarities: Float[np.ndarray, "anchor anchor"]) -> float:
    """What a label tells about the contrasts: the mean over anchors of the divergence from equal similarities, in nats.

    For n anchors of equally frequent classes it is near ln of the number of classes.

    >>> round(float(information_of(np.kron(np.eye(4), np.ones((50, 50)))) / np.log(4)), 2)
    1.01
    """
    shares = np.array(similarities, np.float64)
    np.fill_diagonal(shares, 0.0)
    sums = shares.sum(axis=1, keepdims=True)
    shares = shares[sums[:, 0] > 0] / sums[sums[:, 0] > 0]
    if not len(shares):
        return 0.0
    logs = np.log(np.where(shares > 0, shares * (len(similarities) - 1), 1.0))
    return float((shares * logs).sum(axis=1).mean())
