"""A linear probe: logistic regression on frozen features; its penalty is chosen on validation."""

import numpy as np

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.outcome import Number, Outcome, top1


def evaluate_linear(features: dict[str, Features], *, penalties: tuple[Number, ...]) -> Outcome:
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
    return Outcome(best, scores[best][0], probes[best].predict(features["test"].values))
