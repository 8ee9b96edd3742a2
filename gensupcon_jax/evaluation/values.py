"""How well features predict a number: ridge regression and k-NN, whose settings are chosen on the validation split."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax.evaluation.knn import nearest
from gensupcon_jax.evaluation.outcome import Number

Values = Float[np.ndarray, "example"]
_TILE = 1024


class Fit(NamedTuple):
    """How well values are predicted.

    mae: mean absolute error, in their unit.  r2: 1 - (mean squared error) / variance of the true values; 1 is perfect, 0 as good
    as their mean, NaN where they are all equal.
    """

    mae: float
    r2: float


class FeaturesOfValues(NamedTuple):
    """The features of a split, and the value of each image."""

    features: Float[np.ndarray, "example dim"]
    values: Values


class ValueOutcome(NamedTuple):
    """A setting chosen on validation, how well it does there (None without it) and on the test split, and test predictions."""

    setting: Number
    validation: Fit | None
    test: Fit
    test_predictions: Values


class FittedRidge(NamedTuple):
    """A linear regression on features as the network returns them.  step: of the network that it was fitted on."""

    weight: Float[np.ndarray, "feature"]
    bias: float
    step: int

    def predict(self, features: Float[np.ndarray, "example feature"]) -> Values:
        """The value of each image."""
        return features.astype(np.float64) @ self.weight + self.bias


def fit_of(predictions: Values, values: Values) -> Fit:
    """How well these predictions match the values.

    >>> fit_of(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    Fit(mae=0.3333333333333333, r2=0.5)
    """
    errors = predictions.astype(np.float64) - values
    spread = float(np.var(values.astype(np.float64)))
    return Fit(float(np.abs(errors).mean()), 1.0 - float(np.mean(errors**2)) / spread if spread > 0 else float("nan"))


def evaluate_ridge(
    splits: dict[str, FeaturesOfValues], *, penalties: tuple[Number, ...], step: int = 0
) -> tuple[ValueOutcome, FittedRidge]:
    """Ridge regression on standardized features; the penalty with the smallest absolute error on validation is chosen.

    Without a validation split there is one candidate.
    A penalty weighs |w|^2 / 2 against half the mean squared error of standardized values; the largest wins a tie.
    step: of the network that the features come from, to be kept with the regression.
    """
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    train = splits["train"]
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    inputs, mean, scale = scaler.transform(train.features), train.values.mean(), train.values.std() or 1.0

    def fitted(penalty: Number) -> FittedRidge:
        solver = Ridge(alpha=penalty * len(inputs)).fit(inputs, (train.values - mean) / scale)
        weight = np.asarray(solver.coef_, np.float64) * scale / np.asarray(scaler.scale_)
        bias = float(mean + scale * solver.intercept_ - np.asarray(scaler.mean_) @ weight)
        return FittedRidge(weight, bias, step)

    with threadpool_limits(1, user_api="blas"):  # the products are small, and XLA's own threads are beside
        ridges = {penalty: fitted(penalty) for penalty in sorted(penalties, reverse=True)}
    validation, test = splits.get("validation"), splits["test"]
    scores: dict[Number, Fit | None] = dict.fromkeys(ridges)
    if validation is None:
        (best,) = ridges
    else:
        found = {each: fit_of(ridge.predict(validation.features), validation.values) for each, ridge in ridges.items()}
        best = min(found, key=lambda penalty: found[penalty].mae)
        scores |= found
    predictions = ridges[best].predict(test.features)
    return ValueOutcome(best, scores[best], fit_of(predictions, test.values), predictions), ridges[best]


def evaluate_value_neighbors(
    splits: dict[str, FeaturesOfValues], *, neighbors: tuple[int, ...], temperature: Number
) -> ValueOutcome:
    """k-NN with the k that has the smallest absolute error on validation, the smallest k in a tie."""
    best, validation = best_value_neighbors(splits, neighbors=neighbors, temperature=temperature)
    test = splits["test"]
    predictions = neighbor_values(splits["train"], test.features, (best,), temperature)[best]
    return ValueOutcome(best, validation, fit_of(predictions, test.values), predictions)


def best_value_neighbors(
    splits: dict[str, FeaturesOfValues], *, neighbors: tuple[int, ...], temperature: Number
) -> tuple[int, Fit | None]:
    """The k with the smallest absolute error on validation, and how well it does there; without one, the only k and None."""
    if "validation" not in splits:
        (only,) = neighbors
        return min(only, len(splits["train"].values)), None
    validation = splits["validation"]
    predictions = neighbor_values(splits["train"], validation.features, neighbors, temperature)
    scores = {k: fit_of(predicted, validation.values) for k, predicted in predictions.items()}
    best = min(sorted(scores), key=lambda k: scores[k].mae)
    return best, scores[best]


def neighbor_values(
    train: FeaturesOfValues,
    queries: Float[np.ndarray, "query dim"],
    neighbors: tuple[int, ...],
    temperature: Number,
) -> dict[int, Float[np.ndarray, "query"]]:
    """For each k, the mean of the values of the k nearest by cosine, with the weights exp(cosine / temperature).

    Any k above the number of training images is left out.
    """
    allowed = tuple(k for k in neighbors if k <= len(train.values)) or (len(train.values),)
    parts: dict[int, list[np.ndarray]] = {k: [] for k in allowed}
    for start in range(0, len(queries), _TILE):
        found = nearest(queries[start : start + _TILE], train.features, max(allowed))
        cosines, indices = (np.asarray(part) for part in found)
        weights = np.exp((cosines - cosines[:, :1]) / temperature)
        values = train.values.astype(np.float64)[indices]
        for k in allowed:
            parts[k].append((weights[:, :k] * values[:, :k]).sum(1) / weights[:, :k].sum(1))
    return {k: np.concatenate(each) for k, each in parts.items()}
