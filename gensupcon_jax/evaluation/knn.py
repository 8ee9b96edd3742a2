"""k-NN on frozen features: the class that the neighbors vote for, or the mean of their labels."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.outcome import Number

Array = jax.Array | np.ndarray

_MOST_TARGETS = 2**24  # entries of the targets of all neighbors of a tile: 64 MiB


def knn_predictions(
    train: Features,
    queries: Float[np.ndarray, "query dim"],
    *,
    neighbors: tuple[int, ...],
    temperature: Number,
    num_classes: int,
    query_tile: int = 1024,
) -> dict[int, Int[np.ndarray, "query"]]:
    """Predicted class of each query for each k: the k nearest by cosine vote with weight exp(cosine / temperature).

    The weighting is that of instance discrimination (arXiv 1805.01978). Any k above the number of training images is left out.
    """
    allowed = tuple(k for k in neighbors if k <= len(train.values)) or (len(train.values),)
    settings = {"temperature": temperature, "num_classes": num_classes, "query_tile": query_tile}
    predictions = {k: [] for k in allowed}
    for votes in _tiles_of_votes(train, queries, allowed, **settings):
        for k in allowed:
            predictions[k].append(votes[k].argmax(1))
    return {k: np.concatenate(parts) for k, parts in predictions.items()}


def knn_probabilities(
    train: Features,
    queries: Float[np.ndarray, "query dim"],
    *,
    neighbors: int,
    temperature: Number,
    num_classes: int,
) -> Float[np.ndarray, "query {num_classes}"]:
    """The share of each class in the votes of `knn_predictions`, for one k; rows sum to 1."""
    k = min(neighbors, len(train.values))
    settings = {"temperature": temperature, "num_classes": num_classes, "query_tile": 1024}
    votes = [each[k] for each in _tiles_of_votes(train, queries, (k,), **settings)]
    found = np.concatenate([np.zeros((0, num_classes)), *votes])
    return found / found.sum(axis=1, keepdims=True)


def knn_means(
    train: Features,
    queries: Float[np.ndarray, "query dim"],
    *,
    neighbors: tuple[int, ...],
    temperature: Number,
    num_classes: int = 0,
) -> dict[int, Float[np.ndarray, "query ..."]]:
    """For each k, the mean of the targets of the k nearest training images by cosine, with the weights of `knn_predictions`.

    Of rows of 0 and 1 it is the share of the votes for each label.  num_classes is not needed: targets have their width.
    """
    assert train.targets is not None  # they are what is averaged
    allowed = tuple(k for k in neighbors if k <= len(train.values)) or (len(train.values),)
    width = max(1, int(np.prod(train.targets.shape[1:])))
    tile = max(1, min(1024, _MOST_TARGETS // (max(allowed) * width)))
    means = {k: [np.zeros((0, *train.targets.shape[1:]))] for k in allowed}
    for start in range(0, len(queries), tile):
        found = nearest(queries[start : start + tile], train.values, max(allowed))
        cosines, indices = (np.asarray(part) for part in found)
        for k in allowed:
            weights = _weights(cosines[:, :k], temperature)
            weights = weights / weights.sum(axis=1, keepdims=True)
            means[k].append(np.einsum("qk,qk...->q...", weights, train.targets[indices[:, :k]]))
    return {k: np.concatenate(parts) for k, parts in means.items()}


def _tiles_of_votes(
    train: Features, queries: np.ndarray, neighbors: tuple[int, ...], *, query_tile: int, **settings
) -> Iterator[dict[int, np.ndarray]]:
    for start in range(0, len(queries), query_tile):
        tile = queries[start : start + query_tile]
        cosines, indices = (np.asarray(part) for part in nearest(tile, train.values, max(neighbors)))
        yield {k: _votes(cosines[:, :k], train.classes[indices[:, :k]], **settings) for k in neighbors}


@functools.partial(jax.jit, static_argnames="num_neighbors")
def nearest(
    queries: Float[Array, "query dim"], stored: Float[Array, "stored dim"], num_neighbors: int
) -> tuple[Float[Array, "query neighbor"], Int[Array, "query neighbor"]]:
    """Cosines and indices of the stored features that are most similar to each query, the nearest first."""
    queries, stored = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, stored))
    cosines, indices = jax.lax.top_k(jnp.matmul(queries, stored.T, precision=jax.lax.Precision.HIGHEST), num_neighbors)
    return cosines, indices


def _votes(cosines: np.ndarray, classes: np.ndarray, *, temperature: Number, num_classes: int) -> np.ndarray:
    weights = _weights(cosines, temperature)
    votes = np.zeros((len(cosines), num_classes), np.float32)
    np.add.at(votes, (np.arange(len(cosines))[:, None], classes), weights)
    return votes


def _weights(cosines: np.ndarray, temperature: Number) -> np.ndarray:
    # Relative to the nearest neighbor: the winner is the same, and a small temperature cannot overflow.
    return np.exp((cosines - cosines[:, :1]) / temperature)
