"""A linear probe: logistic regression on frozen features; its penalty is chosen on the validation split."""

from typing import Any

import numpy as np

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.kept_probe import FittedProbe
from gensupcon_jax.evaluation.outcome import LinearProbe, Number, Outcome, top1


def evaluate_linear(features: dict[str, Features], *, penalties: tuple[Number, ...], step: int = 0) -> LinearProbe:
    """Multinomial logistic regression on standardized frozen features, its L2 penalty chosen on validation.

    A penalty weighs |W|^2 / 2 against the mean cross-entropy. In a tie of accuracy the highest validation likelihood
    decides: on easy data all penalties reach 100 %, and the strongest was the worst on the test split. Without a validation split
    there is one candidate.
    step: of the network that the features come from, to be kept with the probe.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    train = features["train"]
    if len(np.unique(train.classes)) == 1:  # which scikit-learn refuses
        return _of_one_class(features, max(penalties), step)

    def fit(penalty):
        solver = LogisticRegression(C=1 / (penalty * len(train.classes)), max_iter=2000)
        return make_pipeline(StandardScaler(), solver).fit(train.values, train.classes)

    # The products are small: several threads next to XLA's own took 60 seconds instead of 3.
    with threadpool_limits(1, user_api="blas"):
        probes = {penalty: fit(penalty) for penalty in sorted(penalties, reverse=True)}

    if "validation" not in features:
        ((penalty, probe),) = probes.items()
        outcome = Outcome(penalty, None, probe.predict(features["test"].values))
        return LinearProbe(outcome, folded(probe, step))
    validation = features["validation"]

    def score(probe):
        # A validation class without training images, which no probe can predict, must not stop the choice.
        right = validation.classes[:, None] == probe.classes_
        log_likelihood = np.log(np.sum(right * probe.predict_proba(validation.values), axis=1) + 1e-12).mean()
        return top1(probe.predict(validation.values), validation.classes), log_likelihood

    scores = {penalty: score(probe) for penalty, probe in probes.items()}
    best = max(scores, key=lambda setting: scores[setting])
    outcome = Outcome(best, scores[best][0], probes[best].predict(features["test"].values))
    return LinearProbe(outcome, folded(probes[best], step))


def folded(pipeline: Any, step: int) -> FittedProbe:
    """A scikit-learn pipeline of StandardScaler and LogisticRegression as one linear layer with the same probabilities."""
    scaler, solver = pipeline[0], pipeline[-1]
    coefficients, intercepts = (np.asarray(part, np.float64) for part in (solver.coef_, solver.intercept_))
    if len(solver.classes_) == 2:  # one row, for the second class: a sigmoid is a softmax of (0, logit)
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weight = (coefficients / np.asarray(scaler.scale_, np.float64)).T
    bias = intercepts - np.asarray(scaler.mean_, np.float64) @ weight
    return FittedProbe(weight, bias, np.asarray(solver.classes_, np.int64), step)


def _of_one_class(features: dict[str, Features], penalty: Number, step: int) -> LinearProbe:
    """The probe of training images that are all of one class: it predicts that class."""
    train, test, validation = features["train"], features["test"], features.get("validation")
    (only,) = np.unique(train.classes)
    fitted = FittedProbe(np.zeros((train.values.shape[1], 1)), np.zeros(1), np.array([only], np.int64), step)
    of_validation = validation and top1(np.full(len(validation.classes), only), validation.classes)
    return LinearProbe(Outcome(penalty, of_validation, np.full(len(test.classes), only)), fitted)
