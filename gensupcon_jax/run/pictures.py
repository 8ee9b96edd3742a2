"""Pictures for the report: images, views and similarities of one training batch, and the images of all splits."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from gensupcon_jax import losses
from gensupcon_jax.data.arrays import most_likely
from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.data.input_pipeline import centered_images, epoch_order
from gensupcon_jax.data.shapes import Batch
from gensupcon_jax.data.splits import AnySplit, EncodedSplit
from gensupcon_jax.evaluation.final import Evaluation
from gensupcon_jax.evaluation.paired import compare_on_images
from gensupcon_jax.method.objectives import MixedBatch, Prediction
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.report import PicturedSplit, feature_findings
from gensupcon_jax.run.class_similarity import label_similarity_of
from gensupcon_jax.run.label_sets import LabelSets, label_sets
from gensupcon_jax.run.run import Run

_SHEET_IMAGES = 12
_HEAT_MAP_IMAGES = 64


class PicturedBatch(NamedTuple):
    """The first batch of a run, on one device: as loaded, as the network sees it, and its original images."""

    batch: Batch
    mixed: MixedBatch
    originals: np.ndarray


def pictured_batch(run: Run) -> PicturedBatch:
    """The batch of step 1 with its views and mixed labels."""
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    (batch,) = run.batches(0, 1, one_device)
    num_shown = min(_SHEET_IMAGES, run.config.batch_size)
    shown = epoch_order(run.config.seed, 0, run.dataset.train.num_images)[:num_shown]
    mixed = jax.jit(run.parts.view_fn)(run.key("step"), batch.images, batch.labels, 0, batch.local_images)
    return PicturedBatch(batch, mixed, centered_images(run.dataset.train, shown))


def embeddings_of(prediction: Prediction) -> jax.Array:
    """The vectors that the report compares: unit embeddings, or normalized features of a network without a head."""
    if prediction.embeddings is not None:
        return prediction.embeddings
    lengths = jax.numpy.linalg.norm(prediction.features, axis=1, keepdims=True)
    return prediction.features / jax.numpy.maximum(lengths, 1e-12)


def embed_fn_of(run: Run, state: TrainState) -> Callable:
    """Normalized images -> what the report compares, on one device of this process alone."""
    variables = jax.device_get((state.replace(opt_state=None, queue=None), run.frozen))
    embed_fn = jax.jit(lambda variables, images: embeddings_of(run.parts.objective.predict(*variables, images)))
    return functools.partial(embed_fn, variables)


def sets_of(run: Run, pictured: PicturedBatch) -> LabelSets | None:
    """The sets of labels that the report shows as classes; None: an image has one class."""
    if run.dataset.label_kind != "several":
        return None
    rows = [split.labels_of(np.arange(split.num_images)) for split in run.dataset.splits.values()]
    mixed = np.asarray(pictured.mixed.labels).reshape(-1, run.dataset.num_classes)
    return label_sets([*rows, mixed], run.dataset.class_names)


def classes_of_test(dataset: Dataset, sets: LabelSets | None) -> dict[str, Any]:
    """What the report calls the classes of the test images; fields of `ReportData`."""
    if sets is None and dataset.label_kind == "value":
        return {
            "class_names": dataset.class_names,
            "test_labels": dataset.test.classes,
            "test_predictions": None,
            "test_values": dataset.test.values,
        }
    if sets is None:
        return {"class_names": dataset.class_names, "test_labels": dataset.test.classes}
    return {
        "class_names": sets.names,
        "label_names": dataset.class_names,
        "test_labels": _classes(dataset.test, sets),
        "test_predictions": None,
    }


def _classes(split: AnySplit, sets: LabelSets | None) -> np.ndarray:
    return split.classes if sets is None else sets.of(split.labels_of(np.arange(split.num_images)))


def batch_pictures(
    run: Run, pictured: PicturedBatch, embed_fn: Callable, sets: LabelSets | None
) -> dict[str, np.ndarray]:
    """The report's sheet of views and its two heat maps; the names are fields of `report.ReportData`.

    embed_fn: normalized images [anchor, height, width, channel] -> unit embeddings [anchor, dim].
    """
    views, labels = (np.asarray(part)[:_HEAT_MAP_IMAGES] for part in pictured.mixed[:2])
    anchors, anchor_labels = (part.reshape(-1, *part.shape[2:]) for part in (views, labels))
    compared = anchor_labels if pictured.mixed.instances is None else _with_instances(labels, pictured.mixed.instances)
    embeddings = embed_fn(anchors)
    sheet = views[:_SHEET_IMAGES]
    originals = np.asarray(pictured.batch.labels[: len(sheet)])
    similarity, _ = label_similarity_of(run.config.loss.label_similarity, labels.shape[-1])
    return {
        "label_similarity": np.asarray(losses.label_similarity(compared, compared, name=similarity)),
        "latent_similarity": np.asarray(losses.latent_similarity(embeddings, embeddings, temperature=1.0)),
        "batch_labels": anchor_labels if sets is None else sets.one_hot(anchor_labels),
        "view_images": _visible(sheet, run.data.mean, run.data.std),
        "view_labels": labels[:_SHEET_IMAGES],
        **_local_pictures(run, pictured.mixed.local),
        "original_images": pictured.originals[: len(sheet)],
        "original_labels": most_likely(originals) if sets is None else sets.of(originals),
    }


def _local_pictures(run: Run, local: MixedBatch | None) -> dict[str, np.ndarray]:
    """The local views of the sheet, where the run has any."""
    if local is None:
        return {}
    images, labels = (np.asarray(part[:_SHEET_IMAGES]) for part in local[:2])
    return {"local_images": _visible(images, run.data.mean, run.data.std), "local_labels": labels}


def _with_instances(labels: np.ndarray, instances: jax.Array) -> np.ndarray:
    """Labels [anchor, class + image] of the views of these images, with a column for each image that may have no label."""
    num_images, _, places = (len(labels), *instances.shape[1:])
    shares = np.zeros((*labels.shape[:2], -(-num_images // places) * places), np.float32)
    for image, own in enumerate(np.asarray(instances[:num_images])):
        first = image // places * places
        shares[image, :, first : first + places] = own
    rows = np.concatenate([labels, shares], axis=-1)
    return rows.reshape(-1, rows.shape[-1])


def compared_pictures(dataset: Dataset, evaluation: Evaluation, sets: LabelSets | None) -> dict[str, Any]:
    """What the report says about the images of each split, and the predictors against raw pixels; fields of `ReportData`.

    dataset: the one that was evaluated.
    """
    splits = {
        name: PicturedSplit(
            _classes(split, sets),
            functools.partial(centered_images, split),
            split.where if isinstance(split, EncodedSplit) else None,
        )
        for name, split in dataset.splits.items()
    }
    right = {
        f"{name}_top1": outcome.test_predictions == evaluation.test.classes
        for name, outcome in evaluation.outcomes().items()
        if dataset.label_kind == "class"  # else a prediction is right by degrees
    }
    pixels = right.pop("raw_pixel_knn_top1", None)
    return {
        "splits": splits,
        "findings": feature_findings(splits, {name: features.values for name, features in evaluation.features.items()}),
        "paired": {} if pixels is None else {name: compare_on_images(each, pixels) for name, each in right.items()},
    }


def _visible(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Undo the normalization: uint8, 0..255."""
    return np.clip(np.round((images * std + mean) * 255), 0, 255).astype(np.uint8)
