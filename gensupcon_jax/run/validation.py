"""The evaluation during training, on the validation split: classifier, k-NN of the features, further measures."""

from typing import Any, NamedTuple

from gensupcon_jax.evaluation.features import dataset_features, extract
from gensupcon_jax.evaluation.knn import best_neighbors
from gensupcon_jax.evaluation.measures import measured
from gensupcon_jax.evaluation.outcome import top1
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.run.run import Run


class Validation(NamedTuple):
    """row: metric name -> value.  notes: for the progress bar."""

    row: dict[str, Any]
    notes: dict[str, str]


def validate(run: Run, state: TrainState) -> Validation:
    """The scores of this state; accuracies in percent; none where there is no validation split."""
    row, notes = {}, {}
    if run.dataset.validation is None:
        return Validation(row, notes)
    settings, predict_fn = run.evaluation_settings(), run.predict_fn(state)
    if run.config.objective != "contrastive" or run.config.classifier.beside or run.config.prototypes.use:
        split = run.dataset.validation
        logits = extract(lambda images: predict_fn(images).logits, split, **settings.extraction)
        row["classifier/top1"] = top1(logits.argmax(1), split.classes)
        notes["classifier"] = f"{row['classifier/top1']:.2f} %"
    if run.config.objective == "contrastive" or settings.measures:
        splits = ("train", "validation") if run.config.objective == "contrastive" else ("validation",)
        features = dataset_features(
            lambda images: predict_fn(images).features, run.compared_dataset(), splits, **settings.extraction
        )
        if "train" in features:
            row["knn/neighbors"], row["knn/top1"] = best_neighbors(features, **settings.knn)
            notes["k-NN"] = f"{row['knn/top1']:.2f} %"
        values = measured(settings.measures, features["validation"])
        row |= {f"measures/{name}": value for name, value in values.items()}
    return Validation(row, notes)
