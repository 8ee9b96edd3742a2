"""How networks are evaluated with each kind of labels: SCORINGS, one entry for each `dataset.label_kind`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Shaped

from gensupcon_jax.evaluation import several, values
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.knn import knn_means, knn_predictions
from gensupcon_jax.evaluation.outcome import LinearProbe, Number, Outcome, per_class_top1, top1
from gensupcon_jax.evaluation.probe import evaluate_linear
from gensupcon_jax.score_names import SCORE_NAMES, ScoreName
from gensupcon_jax.value_bins import ValueBins

Predictions = Shaped[np.ndarray, "example ..."]


class Scoring(NamedTuple):
    """What an evaluation does with one kind of labels.

    name: of its main score; higher is better.  score_fn(predictions, features of a split) -> it.
    knn_fn(train, queries, *, neighbors, temperature, num_classes) -> {k: predictions}.
    linear_fn(features of all splits, *, penalties, step) -> LinearProbe.
    classifier_fn(logits, bins) -> predictions, and the probability of each where it is of one class; bins: of values.
    further_fn(outcomes by name, features of the test split, num_classes) -> further entries of results.json.
    """

    name: ScoreName
    score_fn: Callable[[Predictions, Features], float]
    knn_fn: Callable[..., dict[int, Predictions]]
    linear_fn: Callable[..., LinearProbe]
    classifier_fn: Callable[[Float[np.ndarray, "example class"], ValueBins | None], tuple[Predictions, Any]]
    further_fn: Callable[[dict[str, Outcome], Features, int], dict[str, Any]]


def _class_of_logits(
    logits: Float[np.ndarray, "example class"], _bins: ValueBins | None
) -> tuple[Predictions, Float[np.ndarray, "example"]]:
    # The largest softmax: 1 over the sum of the others relative to it.
    return logits.argmax(1), 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)


def _value_of_logits(logits: Float[np.ndarray, "example bin"], bins: ValueBins | None) -> tuple[Predictions, None]:
    """The mean of the predicted distribution over the bins."""
    assert bins is not None  # a data set whose labels are numbers has them
    return bins.expected(scipy.special.softmax(logits, axis=1)), None


def _of_classes(outcomes: dict[str, Outcome], test: Features, num_classes: int) -> dict[str, Any]:
    """macro_top1: the mean over classes of per_class_top1, in which a rare class counts as much as any other."""
    of_classes = {
        name: per_class_top1(outcome.test_predictions, test.classes, num_classes) for name, outcome in outcomes.items()
    }
    results: dict[str, Any] = {
        f"{name}_macro_top1": float(np.mean([value for value in values if value is not None]))
        for name, values in of_classes.items()
    }
    return results | {"per_class_top1": of_classes}


SCORINGS: dict[str, Scoring] = {
    "class": Scoring(
        SCORE_NAMES["class"],
        score_fn=lambda predictions, features: top1(predictions, features.classes),
        knn_fn=knn_predictions,
        linear_fn=evaluate_linear,
        classifier_fn=_class_of_logits,
        further_fn=_of_classes,
    ),
    "several": Scoring(
        SCORE_NAMES["several"],
        score_fn=lambda predictions, features: several.mean_label_precision(predictions, features.rows),
        knn_fn=knn_means,
        linear_fn=several.evaluate_one_vs_rest,
        classifier_fn=lambda logits, _: (several.sigmoid(logits), None),
        further_fn=lambda outcomes, test, _: several.further_numbers(outcomes, test.rows),
    ),
    "value": Scoring(
        SCORE_NAMES["value"],
        score_fn=lambda predictions, features: values.explained_variance(predictions, features.numbers),
        knn_fn=knn_means,
        linear_fn=values.evaluate_ridge,
        classifier_fn=_value_of_logits,
        further_fn=lambda outcomes, test, _: values.error_numbers(outcomes, test.numbers),
    ),
}


def evaluate_knn(
    features: dict[str, Features],
    *,
    neighbors: tuple[int, ...],
    temperature: Number,
    num_classes: int,
    label_kind: str = "class",
) -> Outcome:
    """k-NN with the k that is best on the validation split, the smallest in a tie; without one, with the only candidate."""
    settings = {"temperature": temperature, "num_classes": num_classes}
    best_k, score = best_neighbors(features, neighbors=neighbors, label_kind=label_kind, **settings)
    knn_fn = SCORINGS[label_kind].knn_fn
    predictions = knn_fn(features["train"], features["test"].values, neighbors=(best_k,), **settings)
    return Outcome(best_k, score, predictions[best_k])


def best_neighbors(
    features: dict[str, Features], *, neighbors: tuple[int, ...], label_kind: str = "class", **settings
) -> tuple[int, float | None]:
    """The k that is best on the validation split, and its main score there.

    Without a validation split, the only candidate (at most the number of training images), and None.
    """
    if "validation" not in features:
        (only,) = neighbors
        return min(only, len(features["train"].values)), None
    scoring = SCORINGS[label_kind]
    predictions = scoring.knn_fn(features["train"], features["validation"].values, neighbors=neighbors, **settings)
    scores = {k: scoring.score_fn(prediction, features["validation"]) for k, prediction in predictions.items()}
    best = max(sorted(scores), key=lambda k: scores[k])
    return best, scores[best]
