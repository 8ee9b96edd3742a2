"""The end of a run: judge the frozen encoder, and gather what the report shows."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax import evaluate, losses
from gensupcon_jax.datasets import Dataset
from gensupcon_jax.objectives import MixedBatch

_SHEET_IMAGES = 12
_HEAT_MAP_IMAGES = 64


class Judged(NamedTuple):
    """The three judgements of one encoder, and the test features they rest on."""

    linear: evaluate.Judgement
    knn: evaluate.Judgement
    raw_pixels: evaluate.Judgement
    test: evaluate.Features


def judge(
    feature_fn: Callable, dataset: Dataset, *, knn: dict, penalties: tuple[float | int, ...], extraction: dict
) -> Judged:
    """k-NN and linear probe of the frozen features, and k-NN of the raw pixels beside them (ours)."""
    features = evaluate.dataset_features(feature_fn, dataset, ("train", "validation", "test"), **extraction)
    return Judged(
        linear=evaluate.judge_linear(features, penalties=penalties),
        knn=evaluate.judge_knn(features, **knn),
        raw_pixels=evaluate.judge_knn(evaluate.pixel_features(dataset), **knn),
        test=features["test"],
    )


def accuracies(judged: Judged) -> dict[str, float | int]:
    """Top-1 of each judgement on test and on validation, in percent, and the settings that were chosen (ours)."""
    classes = judged.test.classes
    return {
        "linear_top1": evaluate.top1(judged.linear.test_predictions, classes),
        "knn_top1": evaluate.top1(judged.knn.test_predictions, classes),
        "raw_pixel_knn_top1": evaluate.top1(judged.raw_pixels.test_predictions, classes),
        "linear_validation_top1": judged.linear.validation_top1,
        "knn_validation_top1": judged.knn.validation_top1,
        "raw_pixel_knn_validation_top1": judged.raw_pixels.validation_top1,
        "linear_penalty": judged.linear.setting,
        "knn_neighbors": judged.knn.setting,
        "raw_pixel_knn_neighbors": judged.raw_pixels.setting,
    }


def batch_pictures(
    mixed: MixedBatch, embed_fn: Callable, *, mean: Float[np.ndarray, "channel"], std: Float[np.ndarray, "channel"]
) -> dict[str, np.ndarray]:
    """The report's sheet of views and its two heat maps, from one batch as training sees it (ours).

    embed_fn: normalised images [anchor, height, width, channel] -> unit embeddings [anchor, dim].
    """
    views, labels = (np.asarray(part)[:_HEAT_MAP_IMAGES] for part in mixed)
    anchors, anchor_labels = (part.reshape(-1, *part.shape[2:]) for part in (views, labels))
    embeddings = embed_fn(anchors)
    return {
        "label_similarity": np.asarray(losses.label_similarity(anchor_labels, anchor_labels)),
        "latent_similarity": np.asarray(losses.latent_similarity(embeddings, embeddings, temperature=1.0)),
        "batch_labels": anchor_labels,
        "view_images": _visible(views[:_SHEET_IMAGES], mean, std),
        "view_labels": labels[:_SHEET_IMAGES],
    }


def _visible(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Undo the normalisation: uint8, 0..255."""
    return np.clip(np.round((images * std + mean) * 255), 0, 255).astype(np.uint8)
