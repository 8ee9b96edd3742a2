"""What a run keeps of its evaluation in the workdir: probes, or features for k-NN, that predict classes; its test predictions."""

from collections.abc import Sequence

from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.evaluation.final import Evaluation
from gensupcon_jax.evaluation.kept_neighbors import MOST_BYTES, write_neighbors
from gensupcon_jax.evaluation.kept_predictions import predictions_to_keep, write_predictions
from gensupcon_jax.evaluation.kept_probe import write_probe
from gensupcon_jax.paths import Path
from gensupcon_jax.run.run import say


def keep_predictors(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Write probe.npz or neighbors.npz for these steps of a run; says where a different file that was there is now."""
    probes = [each.probe for each in evaluations if each.probe]
    neighbors = [each.neighbors for each in evaluations if each.neighbors]
    replaced = [write_probe(folder, probes) if probes else None]
    replaced += [write_neighbors(folder, neighbors) if neighbors else None]
    for aside in replaced:
        if aside is not None:
            say(f"an earlier evaluation had kept another predictor of classes: it is now {aside}")
    if not probes and not neighbors and all(each.classifier is None for each in evaluations):
        say(
            "nothing is kept that predicts classes of new images: no probe was fitted (evaluate.linear_probe), there is no "
            f"classifier, and the training features exceed {MOST_BYTES / 2**20:.0f} MiB, the most that is kept for k-NN "
            "(evaluate.train_images makes them fewer)"
        )


def keep_predictions(folder: Path, dataset: Dataset, evaluations: Sequence[Evaluation]) -> None:
    """Write predictions.npz, from which runs are compared; says where a different file that was there is now."""
    outcomes = {each.step: each.outcomes() for each in evaluations}
    aside = write_predictions(folder, predictions_to_keep(dataset.test, outcomes, dataset.label_kind))
    if aside is not None:
        say(f"an earlier evaluation had kept other test predictions: they are now in {aside}")
