"""How good frozen features are: k-NN and a linear probe; settings chosen on validation, test used once."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.data.input_pipeline import padded_batches
from gensupcon_jax.data.splits import AnySplit, EncodedSplit

Array = jax.Array | np.ndarray
Number = float | int

_PIXEL_SIDE = 32
_MOST_PIXELS = 2**29  # 2 GiB of float32


class Features(NamedTuple):
    """One split's features and the most likely class of each image."""

    values: Float[np.ndarray, "example dim"]
    classes: Int[np.ndarray, "example"]


class Judgment(NamedTuple):
    """A setting chosen on validation, its validation accuracy, and the test predictions made with it once."""

    setting: Number
    validation_top1: float
    test_predictions: Int[np.ndarray, "example"]


def extract(
    output_fn: Callable,
    split: AnySplit,
    *,
    batch_size: int,
    sharding: jax.sharding.Sharding,
) -> Float[np.ndarray, "example dim"]:
    """output_fn (features or logits of a batch) over all images, each exactly once, in order.

    output_fn gives the rows of the whole batch on every device; with several hosts each of them gets all rows.
    """
    parts = []
    for batch, is_real in padded_batches(split, batch_size, sharding):
        # Fetched at once: more than 32 unawaited calls on several CPU devices hang.
        parts.append(np.asarray(output_fn(batch), np.float32)[is_real])
    return np.concatenate(parts)


def dataset_features(
    feature_fn: Callable, dataset: Dataset, splits: tuple[str, ...], **settings
) -> dict[str, Features]:
    """Features of the named splits."""
    return {
        name: Features(
            extract(feature_fn, getattr(dataset, name), **settings),
            getattr(dataset, name).classes,
        )
        for name in splits
    }


def pixel_features(dataset: Dataset, **settings) -> dict[str, Features] | None:
    """The raw pixels as features, 0..1: the baseline that an encoder has to beat.

    Encoded images are averaged down to 32 x 32; None where even so the training images are too many to compare with.
    """
    if not isinstance(dataset.train, EncodedSplit):
        splits = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
        return {
            name: Features(split.images.reshape(split.num_images, -1) / np.float32(255), split.classes)
            for name, split in splits.items()
        }
    side = min(dataset.image_size, _PIXEL_SIDE)
    if dataset.train.num_images * side * side * dataset.num_channels > _MOST_PIXELS:
        return None
    everywhere = jax.sharding.NamedSharding(settings["sharding"].mesh, jax.sharding.PartitionSpec())
    pixels_fn = jax.jit(functools.partial(_small_pixels, side=side), out_shardings=everywhere)
    return dataset_features(pixels_fn, dataset, ("train", "validation", "test"), **settings)


def _small_pixels(images: jax.Array, side: int) -> jax.Array:
    small = jax.image.resize(images / 255, (images.shape[0], side, side, images.shape[3]), "linear", antialias=True)
    return small.reshape(len(small), -1)


def knn_predictions(
    train: Features,
    queries: Float[np.ndarray, "query dim"],
    *,
    neighbors: tuple[int, ...],
    temperature: Number,
    num_classes: int,
    query_tile: int = 1024,
) -> dict[int, Int[np.ndarray, "query"]]:
    """Predicted class of each query for each k: k nearest by cosine vote with weight exp(cosine / temperature).

    The weighting is that of instance discrimination (arXiv 1805.01978). A k above the number of training images is left out.
    """
    allowed = tuple(k for k in neighbors if k <= len(train.values)) or (len(train.values),)
    find = functools.partial(nearest, num_neighbors=max(allowed))
    votes = functools.partial(_votes, temperature=temperature, num_classes=num_classes)
    predictions = {k: [] for k in allowed}
    for start in range(0, len(queries), query_tile):
        cosines, indices = (np.asarray(part) for part in find(queries[start : start + query_tile], train.values))
        for k in allowed:
            predictions[k].append(votes(cosines[:, :k], train.classes[indices[:, :k]]).argmax(1))
    return {k: np.concatenate(parts) for k, parts in predictions.items()}


@functools.partial(jax.jit, static_argnames="num_neighbors")
def nearest(
    queries: Float[Array, "query dim"], stored: Float[Array, "stored dim"], num_neighbors: int
) -> tuple[Float[Array, "query neighbor"], Int[Array, "query neighbor"]]:
    """Cosine and index of the stored features that are most similar to each query, the nearest first."""
    queries, stored = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, stored))
    return tuple(jax.lax.top_k(jnp.matmul(queries, stored.T, precision=jax.lax.Precision.HIGHEST), num_neighbors))


def _votes(cosines: np.ndarray, classes: np.ndarray, *, temperature: Number, num_classes: int) -> np.ndarray:
    # Relative to the nearest neighbor: the winner is the same, and a small temperature cannot overflow.
    weights = np.exp((cosines - cosines[:, :1]) / temperature)
    votes = np.zeros((len(cosines), num_classes), np.float32)
    np.add.at(votes, (np.arange(len(cosines))[:, None], classes), weights)
    return votes


def top1(predictions: Int[np.ndarray, "example"], classes: Int[np.ndarray, "example"]) -> float:
    """Share of right predictions, in percent."""
    return 100.0 * float(np.mean(predictions == classes))


def judge_knn(
    features: dict[str, Features], *, neighbors: tuple[int, ...], temperature: Number, num_classes: int
) -> Judgment:
    """k-NN with the k that is best on validation, the smallest of equals."""
    settings = {"temperature": temperature, "num_classes": num_classes}
    best_k, validation_top1 = best_neighbors(features, neighbors=neighbors, **settings)
    predictions = knn_predictions(features["train"], features["test"].values, neighbors=(best_k,), **settings)
    return Judgment(best_k, validation_top1, predictions[best_k])


def best_neighbors(features: dict[str, Features], *, neighbors: tuple[int, ...], **settings) -> tuple[int, float]:
    """The k that is best on validation, and its accuracy in percent."""
    predictions = knn_predictions(features["train"], features["validation"].values, neighbors=neighbors, **settings)
    scores = {k: top1(prediction, features["validation"].classes) for k, prediction in predictions.items()}
    best = max(sorted(scores), key=scores.get)
    return best, scores[best]


def judge_linear(features: dict[str, Features], *, penalties: tuple[Number, ...]) -> Judgment:
    """Multinomial logistic regression on standardized frozen features, its L2 penalty chosen on validation.

    A penalty weighs |W|^2 / 2 against the mean cross-entropy. Of equally accurate ones, the most likely to have drawn
    the validation labels is taken: on easy data all reach 100 %, and the strongest of them was the worst on test.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    train = features["train"]

    def fit(penalty):
        solver = LogisticRegression(C=1 / (penalty * len(train.classes)), max_iter=2000)
        return make_pipeline(StandardScaler(), solver).fit(train.values, train.classes)

    # The products are small: more threads wait for each other, 60 seconds in place of 3 beside XLA's own threads.
    with threadpool_limits(1, user_api="blas"):
        probes = {penalty: fit(penalty) for penalty in sorted(penalties, reverse=True)}
    validation = features["validation"]

    def score(probe):
        # A validation class that training does not have, which no probe can know, must not stop the choice.
        right = validation.classes[:, None] == probe.classes_
        log_likelihood = np.log(np.sum(right * probe.predict_proba(validation.values), axis=1) + 1e-12).mean()
        return top1(probe.predict(validation.values), validation.classes), log_likelihood

    scores = {penalty: score(probe) for penalty, probe in probes.items()}
    best = max(scores, key=scores.get)
    return Judgment(best, scores[best][0], probes[best].predict(features["test"].values))
