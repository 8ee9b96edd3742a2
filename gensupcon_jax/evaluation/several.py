"""Several labels per image: average precision and area under the ROC curve of each label, and a one-vs-rest probe."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.kept_probe import FittedProbe
from gensupcon_jax.evaluation.outcome import LinearProbe, Number, Outcome

Rows = Shaped[np.ndarray, "image label"]


class LabelScores(NamedTuple):
    """How well one label is predicted, in percent; None where it is not defined.

    average_precision: the mean, over the images that have the label, of the precision down to their rank by score; None without
    such images.  auc: the share of pairs of an image with and one without the label in which the first has the higher score,
    ties counting half; None if all images have it, or none.
    """

    images: int
    average_precision: float | None
    auc: float | None


def label_scores(scores: Shaped[np.ndarray, "image label"], rows: Rows) -> list[LabelScores]:
    """The scores of each label: scores [image, label], higher where the label is likelier, against rows of 0 and 1."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    found = []
    for predicted, has in zip(scores.T, (rows > 0).T, strict=True):
        images = int(has.sum())
        precision = 100.0 * float(average_precision_score(has, predicted)) if images else None
        auc = 100.0 * float(roc_auc_score(has, predicted)) if 0 < images < len(has) else None
        found.append(LabelScores(images, precision, auc))
    return found


def mean_label_precision(scores: Shaped[np.ndarray, "image label"], rows: Rows) -> float:
    """mAP in percent: the mean average precision over the labels that some image has; 0 if none is there.

    >>> round(mean_label_precision(np.array([[0.9, 0.1], [0.8, 0.3], [0.1, 0.2]]), np.array([[1, 0], [0, 1], [1, 0]])), 2)
    91.67
    """
    return mean_of_known([each.average_precision for each in label_scores(scores, rows)])


def mean_of_known(values: Sequence[float | None]) -> float:
    """The mean of those that are defined; 0 without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def further_numbers(outcomes: dict[str, Outcome], rows: Rows) -> dict[str, Any]:
    """The numbers of results.json beside the mAP: macro AUC, the scores of each label, and how many labels are left out."""
    scores = {name: label_scores(outcome.test_predictions, rows) for name, outcome in outcomes.items()}
    results: dict[str, Any] = {
        f"{name}_macro_auc": mean_of_known([label.auc for label in of_labels]) for name, of_labels in scores.items()
    }
    for field in ("average_precision", "auc"):
        results[f"per_label_{field}"] = {
            name: [getattr(label, field) for label in of_labels] for name, of_labels in scores.items()
        }
    counts = (rows > 0).sum(axis=0)
    results["per_label_images"] = counts.tolist()
    results["num_labels_without_test_images"] = int((counts == 0).sum())
    return results


def sigmoid(logits: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The probability of each label by itself, in float64, without overflow."""
    import scipy.special

    return scipy.special.expit(np.asarray(logits, np.float64))


def evaluate_one_vs_rest(features: dict[str, Features], *, penalties: tuple[Number, ...], step: int = 0) -> LinearProbe:
    """A logistic regression for each label on standardized frozen features, one L2 penalty for all, chosen by validation mAP.

    A penalty weighs |w|^2 / 2 against the mean cross-entropy of a label. In a tie of mAP the highest validation likelihood
    decides. Without a validation split there is one candidate.  step: of the network that the features come from, to be kept with
    the probe.
    """
    from threadpoolctl import threadpool_limits

    # The products are small: several threads would wait for each other, and for XLA's own.
    with threadpool_limits(1, user_api="blas"):
        probes = _fitted(features["train"], sorted(penalties, reverse=True), step)

    if "validation" not in features:
        ((penalty, probe),) = probes.items()
        return LinearProbe(Outcome(penalty, None, probe.probabilities(features["test"].values)), probe)
    validation = features["validation"]

    def score(probe: FittedProbe) -> tuple[float, float]:
        probabilities = probe.probabilities(validation.values)
        likelihoods = np.where(validation.rows > 0, probabilities, 1.0 - probabilities)
        return mean_label_precision(probabilities, validation.rows), float(np.log(likelihoods + 1e-12).mean())

    scores = {penalty: score(probe) for penalty, probe in probes.items()}
    best = max(scores, key=lambda penalty: scores[penalty])
    outcome = Outcome(best, scores[best][0], probes[best].probabilities(features["test"].values))
    return LinearProbe(outcome, probes[best])


def _fitted(train: Features, penalties: Sequence[Number], step: int) -> dict[Number, FittedProbe]:
    """The probe for each penalty, from the strongest on: each starts where the one before it ended."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train.values)
    values, labels = np.asarray(scaler.transform(train.values)), train.rows > 0
    num_labels = labels.shape[1]
    weights = {penalty: np.zeros((values.shape[1], num_labels)) for penalty in penalties}
    biases = {penalty: _constant_bias(labels) for penalty in penalties}
    solvers = [LogisticRegression(max_iter=2000, warm_start=True) for _ in range(num_labels)]
    for penalty, label in itertools.product(penalties, range(num_labels)):
        if not 0 < labels[:, label].sum() < len(labels):
            continue  # of one kind, which scikit-learn refuses
        solver = solvers[label].set_params(C=1 / (penalty * len(labels))).fit(values, labels[:, label])
        weights[penalty][:, label], biases[penalty][label] = solver.coef_[0], solver.intercept_[0]
    probes = {}
    for penalty in penalties:  # for features as they are: the standardization is folded in
        weight = weights[penalty] / np.asarray(scaler.scale_, np.float64)[:, None]
        bias = biases[penalty] - np.asarray(scaler.mean_, np.float64) @ weight
        probes[penalty] = FittedProbe(weight, bias, np.arange(num_labels), step, "sigmoid")
    return probes


def _constant_bias(labels: Shaped[np.ndarray, "image label"]) -> Float[np.ndarray, "label"]:
    """The logit of each label's share of the images, half an image added to either side: that of a label all or none have."""
    counts = labels.sum(axis=0)
    return np.log((counts + 0.5) / (len(labels) - counts + 0.5))
