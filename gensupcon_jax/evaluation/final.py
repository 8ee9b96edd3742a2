"""All evaluations of a trained network in one call: k-NN, linear probe, classifier, raw pixels, further measures."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.data.input_pipeline import padded_batches
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.choices import Choices
from gensupcon_jax.evaluation.features import Features, dataset_features, pixel_features
from gensupcon_jax.evaluation.kept_neighbors import KeptNeighbors, fits
from gensupcon_jax.evaluation.kept_probe import FittedProbe
from gensupcon_jax.evaluation.measures import measured
from gensupcon_jax.evaluation.outcome import Number, Outcome
from gensupcon_jax.evaluation.scoring import SCORINGS, evaluate_knn
from gensupcon_jax.score_names import SCORE_NAMES


class Settings(NamedTuple):
    """How a network is evaluated.

    knn: arguments of `evaluate_knn`.  extraction: arguments of `extract`.  penalties: of the linear probe; empty: not fitted.
    measures: names in the table `MEASURES`.  choices: in place of candidates, for data without a validation split.
    label_kind: of the data, a name in the table `SCORINGS`.
    """

    knn: dict[str, Any]
    extraction: dict[str, Any]
    penalties: tuple[Number, ...] = ()
    measures: Sequence[str] = ()
    choices: Choices | None = None
    label_kind: str = "class"

    @classmethod
    def of(
        cls,
        fields: Any,
        *,
        dataset: Dataset,
        extraction: dict[str, Any],
        choices: Choices | None,
        measures: Sequence[str],
        fits_probe: bool = True,
    ) -> "Settings":
        """The settings of the config's `evaluate` fields for a data set; choices take the place of their candidates."""
        neighbors, penalties = tuple(fields.neighbors), tuple(fields.probe_penalties)
        if choices is not None:
            neighbors, penalties = (choices.neighbors,), (choices.penalty,)
        knn = {"neighbors": neighbors, "temperature": fields.knn_temperature, "num_classes": dataset.num_classes}
        return cls(knn, extraction, penalties if fits_probe else (), measures, choices, dataset.label_kind)


class Evaluation(NamedTuple):
    """The outcomes for one network and its test features; None: not requested, too large, or not available.

    step: of the network.  measures: name -> (value on validation, value on test).  probe: that of `linear`.
    neighbors: what predicts the class of a new image where there is neither a probe nor a classifier.
    features: of all splits, for the report; a caller may empty it, as they can be large.  label_kind: of the data.
    """

    step: int
    num_classes: int
    linear: Outcome | None
    knn: Outcome
    raw_pixels: Outcome | None
    classifier: Outcome | None
    test: Features
    measures: dict[str, tuple[float | None, float]]
    probe: FittedProbe | None
    neighbors: KeptNeighbors | None
    features: dict[str, Features]
    label_kind: str = "class"

    def outcomes(self) -> dict[str, Outcome]:
        """Those that there are, by the beginning of their names in the results."""
        named = {
            "linear": self.linear,
            "knn": self.knn,
            "raw_pixel_knn": self.raw_pixels,
            "classifier": self.classifier,
        }
        return {name: outcome for name, outcome in named.items() if outcome is not None}

    def main_predictions(self) -> tuple[str, Shaped[np.ndarray, "example ..."]]:
        """The test predictions that a report shows, and the name of their main score in the results."""
        score = SCORE_NAMES[self.label_kind].key
        for name, outcome in (("linear", self.linear), ("classifier", self.classifier)):
            if outcome is not None:
                return f"{name}_{score}", outcome.test_predictions
        return f"knn_{score}", self.knn.test_predictions

    def confidences(self) -> Float[np.ndarray, "example"] | None:
        """The probability (0..1) of each of the main predictions; None if it is not known, or they are not of one class."""
        if self.label_kind != "class":
            return None
        if self.linear is None and self.classifier is not None:
            return self.classifier.test_confidences
        predictor = self.probe or self.neighbors
        return predictor and predictor.class_probabilities(self.test.values, self.num_classes).max(1)


def evaluate_network(
    predict_fn: Callable, dataset: Dataset, settings: Settings, *, step: int = 0, earlier: Evaluation | None = None
) -> Evaluation:
    """k-NN and linear probe of the frozen features, k-NN of the raw pixels for comparison, the network's own classifier
    if it has one, and the requested measures.

    predict_fn: uint8 images -> objectives.Prediction.  step: of the network, to be kept with the probe.
    earlier: of another network on the same data, whose outcome for the raw pixels is taken over.
    """
    splits = ("train", "validation", "test")
    features = dataset_features(lambda images: predict_fn(images).features, dataset, splits, **settings.extraction)
    _check_finite(features, step)
    on_validation, on_test = (
        measured(settings.measures, features[split]) if split in features else {} for split in ("validation", "test")
    )
    linear_fn = SCORINGS[settings.label_kind].linear_fn
    probe = linear_fn(features, penalties=settings.penalties, step=step) if settings.penalties else None
    nearest = evaluate_knn(features, **settings.knn, label_kind=settings.label_kind)
    classifier = _evaluate_classifier(predict_fn, dataset, settings)
    keeps_neighbors = probe is None and classifier is None and fits(features["train"])
    return Evaluation(
        step=step,
        num_classes=settings.knn["num_classes"],
        linear=probe and probe.outcome,
        knn=nearest,
        raw_pixels=earlier.raw_pixels if earlier else _evaluate_pixels(dataset, settings),
        classifier=classifier,
        test=features["test"],
        measures={name: (on_validation.get(name), on_test[name]) for name in settings.measures},
        probe=probe and probe.fitted,
        neighbors=_neighbors(features["train"], nearest, settings, step) if keeps_neighbors else None,
        features=features,
        label_kind=settings.label_kind,
    )


def _check_finite(features: dict[str, Features], step: int) -> None:
    """UserError for a network whose features overflow, as after a last step that no further one has tried."""
    for split, each in features.items():
        num_bad = int((~np.isfinite(each.values)).any(axis=1).sum())
        if num_bad:
            raise UserError(
                f"the features of {num_bad} of {len(each.values)} {split} images are not finite after step {step}: its "
                "parameters are too large; train again with a lower optimizer.learning_rate in another --workdir"
            )


def reevaluate_classifier(
    predict_fn: Callable, dataset: Dataset, settings: Settings, *, step: int, earlier: Evaluation
) -> Evaluation:
    """The evaluation of a network with the same features as an earlier one: only its classifier is evaluated."""
    classifier = _evaluate_classifier(predict_fn, dataset, settings)
    probe = earlier.probe and earlier.probe._replace(step=step)
    neighbors = earlier.neighbors and earlier.neighbors._replace(step=step)
    return earlier._replace(step=step, classifier=classifier, probe=probe, neighbors=neighbors)


def _evaluate_pixels(dataset: Dataset, settings: Settings) -> Outcome | None:
    pixels = pixel_features(dataset, **settings.extraction)
    return None if pixels is None else evaluate_knn(pixels, **settings.knn, label_kind=settings.label_kind)


def _neighbors(train: Features, nearest: Outcome, settings: Settings, step: int) -> KeptNeighbors:
    return KeptNeighbors(train, int(nearest.setting), settings.knn["temperature"], step)


def _evaluate_classifier(predict_fn: Callable, dataset: Dataset, settings: Settings) -> Outcome | None:
    extraction, scoring = settings.extraction, SCORINGS[settings.label_kind]
    one_batch, _ = next(padded_batches(dataset.test, extraction["batch_size"], extraction["sharding"]))
    if predict_fn(one_batch).logits is None:
        return None
    logits = dataset_features(lambda images: predict_fn(images).logits, dataset, ("validation", "test"), **extraction)
    validation, (predictions, confidences) = None, scoring.classifier_fn(logits["test"].values, dataset.bins)
    if "validation" in logits:
        of_validation, _ = scoring.classifier_fn(logits["validation"].values, dataset.bins)
        validation = scoring.score_fn(of_validation, logits["validation"])
    return Outcome(0, validation, predictions, confidences)


def numbers_of(evaluation: Evaluation) -> dict[str, Any]:
    """The main score of each outcome on both splits, in percent, the chosen settings, and the measures.

    Numbers on validation are None without that split.
    """
    made, scoring = evaluation.outcomes(), SCORINGS[evaluation.label_kind]
    score = scoring.name.key
    results: dict[str, Any] = {
        f"{name}_{score}": scoring.score_fn(outcome.test_predictions, evaluation.test) for name, outcome in made.items()
    }
    results |= {f"{name}_validation_{score}": outcome.validation_score for name, outcome in made.items()}
    results |= scoring.further_fn(made, evaluation.test, evaluation.num_classes)
    settings = {"linear": "linear_penalty", "knn": "knn_neighbors", "raw_pixel_knn": "raw_pixel_knn_neighbors"}
    results |= {settings[name]: outcome.setting for name, outcome in made.items() if name in settings}
    if evaluation.measures:
        results["measures"] = {name: test for name, (_, test) in evaluation.measures.items()}
        results["validation_measures"] = {name: value for name, (value, _) in evaluation.measures.items()}
    return results
