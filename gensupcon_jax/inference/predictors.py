"""Who names the class of an image: the classifier of a run, the linear probe that it kept, or k-NN on its training images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from gensupcon_jax.data.splits import AnySplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.choices import default_choices
from gensupcon_jax.evaluation.features import features_of
from gensupcon_jax.evaluation.kept_neighbors import KeptNeighbors, read_neighbors
from gensupcon_jax.evaluation.kept_probe import read_probe
from gensupcon_jax.evaluation.scoring import best_neighbors
from gensupcon_jax.inference.sources import Source
from gensupcon_jax.run.run import read_dataset
from gensupcon_jax.store.saved_runs import SavedRun
from gensupcon_jax.store.workdir import read_results
from gensupcon_jax.value_bins import ValueBins

EmbedFn = Callable[[AnySplit], Float[np.ndarray, "image feature"]]


class Predictions(NamedTuple):
    """The class of each image, its labels, or its number and bin, and who predicted it.

    classes [image]: numbers, from 0, of the most likely class or label.  probabilities [image, class]; rows sum to 1 except with
    several labels per image, label_kind "several".  class_names: may be empty.  predictor: "classifier" | "probe" | "ridge" |
    "k-NN".  values [image]: with label_kind "value", the predicted numbers; classes are then bins.
    """

    classes: Int[np.ndarray, "image"]
    probabilities: Float[np.ndarray, "image class"]
    class_names: tuple[str, ...]
    predictor: str
    label_kind: str = "class"
    values: Float[np.ndarray, "image"] | None = None

    @property
    def names(self) -> list[str]:
        """The name of the class of each image; of several labels those with a probability of 1/2 or more, joined by "; "."""
        if self.label_kind == "several":
            return ["; ".join(self.name_of(label) for label in labels) for labels in self.labels]
        return [self.name_of(number) for number in self.classes]

    @property
    def labels(self) -> list[list[int]]:
        """With several labels per image: the numbers of those with a probability of 1/2 or more."""
        return [np.flatnonzero(row >= 0.5).tolist() for row in self.probabilities]

    def name_of(self, number: int | np.integer) -> str:
        """The name of a class or label, or its number where it has none."""
        return self.class_names[number] if self.class_names else str(number)


Predictor = Callable[[Float[np.ndarray, "image feature"], Float[np.ndarray, "image class"] | None], Predictions]


def choose_predictor(source: Source, embed_fn: EmbedFn) -> Predictor:
    """The first that there is of classifier, probe and k-NN; UserError where there is none.

    embed_fn: a split of the run's data set -> features of this encoder.
    """
    if source.label_kind == "value":
        return _predictor_of_values(source, embed_fn)
    if source.has_classifier:
        if source.label_kind == "several":
            return lambda features, logits: _predictions(scipy.special.expit(logits), source, "classifier")
        return lambda features, logits: _predictions(scipy.special.softmax(logits, axis=1), source, "classifier")
    run, num_classes = _run_of(source, "classes"), len(source.class_names)
    probe, neighbors = read_probe(run.folder, run.step), read_neighbors(run.folder, run.step)
    if probe is not None:
        return lambda features, logits: _predictions(probe.class_probabilities(features, num_classes), source, "probe")
    found = neighbors or _neighbors_of(run, embed_fn)
    return lambda features, logits: _predictions(found.class_probabilities(features, num_classes), source, "k-NN")


def _run_of(source: Source, things: str) -> SavedRun:
    """The run that kept a predictor; UserError for a file, which has only its classifier."""
    if source.run is None:
        raise UserError(
            f"{source.name} has no classifier, so it predicts no {things}; allowed: the workdir of a run, or a file with a "
            "classifier (fc.weight or head.weight)"
        )
    return source.run


def _predictor_of_values(source: Source, embed_fn: EmbedFn) -> Predictor:
    """The same where labels are numbers: a classifier of bins, the kept ridge regression of a run, or its k-NN."""
    bins = source.bins
    if bins is None:
        raise UserError(f"{source.name} does not say the bins of its values; export the run again")

    def named(values: np.ndarray, predictor: str) -> Predictions:
        return predictions_of_values(values, bins, source.class_names, predictor)

    if source.has_classifier:
        return lambda _, logits: named(bins.expected(scipy.special.softmax(logits, axis=1)), "classifier")
    run = _run_of(source, "values")
    ridge = read_probe(run.folder, run.step)
    if ridge is not None:
        return lambda features, _: named(ridge.values(features), "ridge")
    neighbors = read_neighbors(run.folder, run.step) or _neighbors_of(run, embed_fn)
    return lambda features, _: named(neighbors.means(features), "k-NN")


def predictions_of_values(
    values: Float[np.ndarray, "image"], bins: ValueBins, names: tuple[str, ...], predictor: str
) -> Predictions:
    """Predicted numbers with their bins; the distribution of one beyond the bins is that of the nearest end."""
    probabilities = bins.labels(np.clip(values, bins.low, bins.high))
    return Predictions(probabilities.argmax(1), probabilities, names, predictor, "value", values)


def _predictions(probabilities: np.ndarray, source: Source, predictor: str) -> Predictions:
    probabilities = probabilities.astype(np.float32)
    return Predictions(probabilities.argmax(1), probabilities, source.class_names, predictor, source.label_kind)


def _neighbors_of(run: SavedRun, embed_fn: EmbedFn) -> KeptNeighbors:
    """The k-NN of a step for which the run kept none: on its training images, with the k best on its validation images.

    Without those, k is that of the run's own evaluation.
    """
    no_other = f"{run.folder} has neither a classifier nor a kept probe of step {run.step}, and its training images"
    try:
        dataset = read_dataset(run.config.copy_and_resolve_references(), run.folder)
    except UserError as error:
        raise UserError(f"{no_other} cannot be read again: {error}") from error
    if dataset.description()["fingerprint"] != run.description["fingerprint"]:
        raise UserError(
            f"{no_other} are no longer those it was trained on ({run.config.dataset.name} has changed); restore them, or "
            "choose the last or the best step, for which a run keeps its predictor"
        )
    if not dataset.has_labels:
        raise UserError(
            f"no training image of {run.folder} has a label, so it predicts no classes; allowed: embed and neighbors, or a run "
            "of objective linear_probe with labeled images"
        )
    dataset = dataset.only_labeled()
    features = {
        name: features_of(embed_fn(split), split, dataset.label_kind)
        for name, split in dataset.splits.items()
        if name != "test"
    }
    fields = run.config.evaluate
    neighbors, temperature = tuple(fields.neighbors), fields.knn_temperature
    if dataset.validation is None:
        chosen = (read_results(run.folder) or {}).get("knn_neighbors")
        neighbors = (chosen or default_choices(fields.neighbors, fields.probe_penalties).neighbors,)
    best, _ = best_neighbors(
        features,
        neighbors=neighbors,
        temperature=temperature,
        num_classes=dataset.num_classes,
        label_kind=dataset.label_kind,
    )
    return KeptNeighbors(features["train"], best, temperature, run.step)
