"""How well a number is predicted: mean absolute error, R^2, and ridge regression on features."""

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.kept_probe import FittedProbe
from gensupcon_jax.evaluation.outcome import LinearProbe, Number, Outcome

Values = Shaped[np.ndarray, "example"]


def mean_absolute_error(predictions: Values, values: Values) -> float:
    """The mean distance of the predictions from the values, in their unit."""
    return float(np.abs(predictions.astype(np.float64) - values).mean())


def explained_variance(predictions: Values, values: Values) -> float:
    """R^2 in percent: 100 x (1 - mean squared error / variance of the values).

    100 is perfect, 0 as good as their mean, below 0 worse; 0 where all values are equal.

    >>> explained_variance(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    50.0
    """
    errors = predictions.astype(np.float64) - values
    spread = float(np.var(values.astype(np.float64)))
    return 100.0 * (1.0 - float(np.mean(errors**2)) / spread) if spread > 0 else 0.0


def error_numbers(outcomes: dict[str, Outcome], values: Values) -> dict[str, Any]:
    """The numbers of results.json beside R^2: the mean absolute error of each predictor, and that of the mean value."""
    errors: dict[str, Any] = {
        f"{name}_mae": mean_absolute_error(outcome.test_predictions, values) for name, outcome in outcomes.items()
    }
    return errors | {"mean_value_mae": mean_absolute_error(np.full(len(values), values.mean()), values)}


def evaluate_ridge(features: dict[str, Features], *, penalties: tuple[Number, ...], step: int = 0) -> LinearProbe:
    """Ridge regression on standardized features; the penalty with the highest R^2 on validation, the largest in a tie.

    A penalty weighs |w|^2 / 2 against half the mean squared error of standardized values. Without a validation split there is
    one candidate.  step: of the network that the features come from, to be kept with the regression.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):  # the products are small, and XLA's own threads are beside
        ridges = {penalty: _fitted(features["train"], penalty, step) for penalty in sorted(penalties, reverse=True)}
    scores: dict[Number, float | None] = dict.fromkeys(ridges)
    if "validation" in features:
        validation = features["validation"]
        found = {
            penalty: explained_variance(ridge.values(validation.values), validation.numbers)
            for penalty, ridge in ridges.items()
        }
        scores |= found
        best = max(found, key=lambda penalty: found[penalty])
    else:
        (best,) = ridges
    return LinearProbe(Outcome(best, scores[best], ridges[best].values(features["test"].values)), ridges[best])


def _fitted(train: Features, penalty: Number, step: int) -> FittedProbe:
    """The regression as one linear layer on features as they are: standardization is folded in."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    values: Float[np.ndarray, example] = train.numbers.astype(np.float64)
    scaler = StandardScaler().fit(train.values.astype(np.float64))
    mean, scale = values.mean(), values.std() or 1.0
    inputs = scaler.transform(train.values)
    solver = Ridge(alpha=penalty * len(inputs)).fit(inputs, (values - mean) / scale)
    weight = np.asarray(solver.coef_, np.float64) * scale / np.asarray(scaler.scale_)
    bias = mean + scale * float(solver.intercept_) - np.asarray(scaler.mean_) @ weight
    return FittedProbe(weight[:, None], np.array([bias]), np.zeros(1, np.int64), step, "value")
