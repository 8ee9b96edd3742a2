"""The end of a run: judge the frozen encoder, and gather what the report shows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gensupcon_jax import losses
from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.evaluation import evaluate
from gensupcon_jax.method.objectives import MixedBatch

SHEET_IMAGES = 12
_HEAT_MAP_IMAGES = 64


class Judged(NamedTuple):
    """The judgments of one network, and the test features they rest on; None: not asked for, too large, or not there."""

    linear: evaluate.Judgment | None
    knn: evaluate.Judgment
    raw_pixels: evaluate.Judgment | None
    classifier: evaluate.Judgment | None
    test: evaluate.Features

    def main_predictions(self) -> tuple[str, Int[np.ndarray, "example"]]:
        """The test predictions that a report shows, and the name of their accuracy in the results."""
        for name, judgment in (("linear_top1", self.linear), ("classifier_top1", self.classifier)):
            if judgment is not None:
                return name, judgment.test_predictions
        return "knn_top1", self.knn.test_predictions


def judge(
    predict_fn: Callable, dataset: Dataset, *, knn: dict, penalties: tuple[float | int, ...], extraction: dict
) -> Judged:
    """k-NN and linear probe of the frozen features, k-NN of the raw pixels beside them, and the network's own classifier
    where it has one.

    predict_fn: uint8 images -> objectives.Prediction.  penalties: of the probe; none: it is not fitted.
    """
    splits = ("train", "validation", "test")
    features = evaluate.dataset_features(lambda images: predict_fn(images).features, dataset, splits, **extraction)
    pixels = evaluate.pixel_features(dataset, **extraction)
    return Judged(
        linear=evaluate.judge_linear(features, penalties=penalties) if penalties else None,
        knn=evaluate.judge_knn(features, **knn),
        raw_pixels=None if pixels is None else evaluate.judge_knn(pixels, **knn),
        classifier=_judge_classifier(predict_fn, dataset, extraction),
        test=features["test"],
    )


def _judge_classifier(predict_fn: Callable, dataset: Dataset, extraction: dict) -> evaluate.Judgment | None:
    def predictions(split):
        return evaluate.extract(lambda images: predict_fn(images).logits, split, **extraction).argmax(1)

    one_batch, _ = next(evaluate.padded_batches(dataset.test, extraction["batch_size"], extraction["sharding"]))
    if predict_fn(one_batch).logits is None:
        return None
    validation = evaluate.top1(predictions(dataset.validation), dataset.validation.classes)
    return evaluate.Judgment(0, validation, predictions(dataset.test))


def accuracies(judged: Judged) -> dict[str, float | int]:
    """Top-1 of each judgment on test and on validation, in percent, and the settings that were chosen."""
    named = {
        "linear": judged.linear,
        "knn": judged.knn,
        "raw_pixel_knn": judged.raw_pixels,
        "classifier": judged.classifier,
    }
    made = {name: judgment for name, judgment in named.items() if judgment is not None}
    classes = judged.test.classes
    results = {f"{name}_top1": evaluate.top1(judgment.test_predictions, classes) for name, judgment in made.items()}
    results |= {f"{name}_validation_top1": judgment.validation_top1 for name, judgment in made.items()}
    settings = {"linear": "linear_penalty", "knn": "knn_neighbors", "raw_pixel_knn": "raw_pixel_knn_neighbors"}
    return results | {settings[name]: judgment.setting for name, judgment in made.items() if name in settings}


def batch_pictures(
    mixed: MixedBatch, embed_fn: Callable, *, mean: Float[np.ndarray, "channel"], std: Float[np.ndarray, "channel"]
) -> dict[str, np.ndarray]:
    """The report's sheet of views and its two heat maps, from one batch as training sees it.

    embed_fn: normalized images [anchor, height, width, channel] -> unit embeddings [anchor, dim].
    """
    views, labels = (np.asarray(part)[:_HEAT_MAP_IMAGES] for part in mixed)
    anchors, anchor_labels = (part.reshape(-1, *part.shape[2:]) for part in (views, labels))
    embeddings = embed_fn(anchors)
    return {
        "label_similarity": np.asarray(losses.label_similarity(anchor_labels, anchor_labels)),
        "latent_similarity": np.asarray(losses.latent_similarity(embeddings, embeddings, temperature=1.0)),
        "batch_labels": anchor_labels,
        "view_images": _visible(views[:SHEET_IMAGES], mean, std),
        "view_labels": labels[:SHEET_IMAGES],
    }


def _visible(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Undo the normalization: uint8, 0..255."""
    return np.clip(np.round((images * std + mean) * 255), 0, 255).astype(np.uint8)
