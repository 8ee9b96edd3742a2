"""All evaluations of a trained network in one call: k-NN, linear probe, classifier, raw pixels, further measures."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.data.input_pipeline import padded_batches
from gensupcon_jax.evaluation.features import Features, dataset_features, extract, pixel_features
from gensupcon_jax.evaluation.knn import evaluate_knn
from gensupcon_jax.evaluation.measures import measured
from gensupcon_jax.evaluation.outcome import Number, Outcome, top1
from gensupcon_jax.evaluation.probe import evaluate_linear


class Settings(NamedTuple):
    """How a network is evaluated.

    knn: arguments of `evaluate_knn`.  extraction: arguments of `extract`.  penalties: of the linear probe; empty: not fitted.
    measures: names in the table `MEASURES`.
    """

    knn: dict[str, Any]
    extraction: dict[str, Any]
    penalties: tuple[Number, ...] = ()
    measures: Sequence[str] = ()


class Evaluation(NamedTuple):
    """The outcomes for one network and its test features; None: not requested, too large, or not available.

    measures: name -> (value on validation, value on test).
    """

    linear: Outcome | None
    knn: Outcome
    raw_pixels: Outcome | None
    classifier: Outcome | None
    test: Features
    measures: dict[str, tuple[float, float]]

    def main_predictions(self) -> tuple[str, Int[np.ndarray, "example"]]:
        """The test predictions that a report shows, and the name of their accuracy in the results."""
        for name, outcome in (("linear_top1", self.linear), ("classifier_top1", self.classifier)):
            if outcome is not None:
                return name, outcome.test_predictions
        return "knn_top1", self.knn.test_predictions


def evaluate_network(predict_fn: Callable, dataset: Dataset, settings: Settings) -> Evaluation:
    """k-NN and linear probe of the frozen features, k-NN of the raw pixels for comparison, the network's own classifier
    if it has one, and the requested measures.

    predict_fn: uint8 images -> objectives.Prediction.
    """
    splits = ("train", "validation", "test")
    features = dataset_features(lambda images: predict_fn(images).features, dataset, splits, **settings.extraction)
    pixels = pixel_features(dataset, **settings.extraction)
    on_validation, on_test = (measured(settings.measures, features[split]) for split in ("validation", "test"))
    return Evaluation(
        linear=evaluate_linear(features, penalties=settings.penalties) if settings.penalties else None,
        knn=evaluate_knn(features, **settings.knn),
        raw_pixels=None if pixels is None else evaluate_knn(pixels, **settings.knn),
        classifier=_evaluate_classifier(predict_fn, dataset, settings.extraction),
        test=features["test"],
        measures={name: (on_validation[name], on_test[name]) for name in settings.measures},
    )


def _evaluate_classifier(predict_fn: Callable, dataset: Dataset, extraction: dict) -> Outcome | None:
    def predictions(split):
        return extract(lambda images: predict_fn(images).logits, split, **extraction).argmax(1)

    one_batch, _ = next(padded_batches(dataset.test, extraction["batch_size"], extraction["sharding"]))
    if predict_fn(one_batch).logits is None:
        return None
    validation = top1(predictions(dataset.validation), dataset.validation.classes)
    return Outcome(0, validation, predictions(dataset.test))


def numbers_of(evaluation: Evaluation) -> dict[str, Any]:
    """Top-1 of each outcome on both splits, in percent, the chosen settings, and the measures."""
    named = {
        "linear": evaluation.linear,
        "knn": evaluation.knn,
        "raw_pixel_knn": evaluation.raw_pixels,
        "classifier": evaluation.classifier,
    }
    made = {name: outcome for name, outcome in named.items() if outcome is not None}
    classes = evaluation.test.classes
    results: dict[str, Any] = {
        f"{name}_top1": top1(outcome.test_predictions, classes) for name, outcome in made.items()
    }
    results |= {f"{name}_validation_top1": outcome.validation_top1 for name, outcome in made.items()}
    settings = {"linear": "linear_penalty", "knn": "knn_neighbors", "raw_pixel_knn": "raw_pixel_knn_neighbors"}
    results |= {settings[name]: outcome.setting for name, outcome in made.items() if name in settings}
    if evaluation.measures:
        results["measures"] = {name: test for name, (_, test) in evaluation.measures.items()}
        results["validation_measures"] = {name: value for name, (value, _) in evaluation.measures.items()}
    return results
