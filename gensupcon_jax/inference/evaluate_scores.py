"""How good an encoder is on a data set: k-NN, linear probe, classifier, retrieval and calibration, as numbers and as a table."""

from typing import Any

import scipy.special

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.evaluation.calibration import BINS, expected_calibration_error
from gensupcon_jax.evaluation.choices import ON_VALIDATION
from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.evaluation.final import Settings, evaluate_network, numbers_of
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.score_names import COLUMN_WORDS, score_name_of
from gensupcon_jax.text import aligned


def evaluate_encoder(encoder: Encoder, dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """The numbers of `results.json` for this encoder on this data set, and the calibration error on its test split.

    The classifier counts only where the data set has the classes that it was trained with, in their order.
    calibration_error: {"bins": ..., "linear": percent, "classifier": percent}, see `expected_calibration_error`.
    """
    predict_fn = encoder.predict_fn()
    same_classes = encoder.class_names == tuple(dataset.class_names)

    def predict_known(images):
        prediction = predict_fn(images)
        return prediction if same_classes else prediction._replace(logits=None)

    evaluation = evaluate_network(predict_known, dataset, settings, step=encoder.step or 0)
    classes, errors = evaluation.test.classes, {}
    is_of_classes = dataset.label_kind == "class"  # whose predictions have a confidence
    if evaluation.probe is not None and is_of_classes:
        probabilities = evaluation.probe.class_probabilities(evaluation.test.values, dataset.num_classes)
        errors["linear"] = expected_calibration_error(probabilities, classes)
    if evaluation.classifier is not None and is_of_classes:
        logits = extract(lambda images: predict_fn(images).logits, dataset.test, **settings.extraction)
        errors["classifier"] = expected_calibration_error(scipy.special.softmax(logits, axis=1), classes)
    about = {
        "source": encoder.source,
        "step": encoder.step,
        "fingerprint": encoder.fingerprint,
        "dataset": dataset.name,
        "label_kind": dataset.label_kind,
        "dataset_fingerprint": dataset.description()["fingerprint"],
        "num_classes": dataset.num_classes,
        "num_train": dataset.train.num_images,
        "num_validation": dataset.num_validation,
        "num_test": dataset.test.num_images,
        "choices": settings.choices.source if settings.choices else ON_VALIDATION,
    }
    return about | numbers_of(evaluation) | {"calibration_error": {"bins": BINS} | errors}


_OUTCOMES = {
    "linear": ("linear probe", "penalty", "linear_penalty"),
    "knn": ("k-NN", "k", "knn_neighbors"),
    "classifier": ("classifier", "", ""),
    "raw_pixel_knn": ("k-NN of raw pixels", "k", "raw_pixel_knn_neighbors"),
}
_MEASURES = {
    "recall_at_1": "retrieval R@1",
    "recall_at_10": "retrieval R@10",
    "mean_average_precision": "retrieval mAP",
}


def results_table(results: dict[str, Any]) -> str:
    """The numbers of `evaluate_encoder` as a table, in percent."""
    rows: list[tuple[str, ...]] = [("percent", "validation", "test")]
    score = score_name_of(results)
    for name, (words, setting, field) in _OUTCOMES.items():
        if f"{name}_{score.key}" in results:
            chosen = f" ({setting} {results[field]:g})" if setting else ""
            numbers = results[f"{name}_validation_{score.key}"], results[f"{name}_{score.key}"]
            rows.append((f"{words}, {score.short}{chosen}", *map(_percent, numbers)))
        if f"{name}_mae" in results:
            rows.append((f"{words}, mean absolute error", "", f"{results[f'{name}_mae']:.4g}"))
        if f"{name}_macro_auc" in results:
            rows.append((f"{words}, mean AUC", "", _percent(results[f"{name}_macro_auc"])))
    for name, value in results["measures"].items():
        numbers = results["validation_measures"][name], value
        rows.append((_MEASURES[name] if name in _MEASURES else str(name), *map(_percent, numbers)))
    for name, value in results["calibration_error"].items():
        if name != "bins":
            rows.append((f"calibration error of the {_OUTCOMES[name][0]}", "", f"{value:.2f}"))
    step = "" if results["step"] is None else f", step {results['step']}"
    sizes = " / ".join(f"{results[f'num_{split}']:,}" for split in ("train", "validation", "test"))
    things = COLUMN_WORDS[results["label_kind"]]
    head = (
        f"encoder  {results['source']}{step}\n"
        f"data     {results['dataset']}: {results['num_classes']} {things}, {sizes} images of train / validation / test"
    )
    if results["num_validation"] == 0:
        head += "\nthere is no validation split: k and penalty are the middle candidates, not chosen"
    return f"{head}\n\n{aligned(rows)}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
