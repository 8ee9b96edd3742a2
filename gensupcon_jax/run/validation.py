"""The evaluation during training, on the validation split: classifier, k-NN of the features, further measures."""

from typing import Any, NamedTuple

from gensupcon_jax.evaluation.features import dataset_features
from gensupcon_jax.evaluation.measures import measured
from gensupcon_jax.evaluation.scoring import SCORINGS, best_neighbors
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.run.run import Run


class Validation(NamedTuple):
    """row: metric name -> value.  notes: for the progress bar."""

    row: dict[str, Any]
    notes: dict[str, str]


def is_validated(run: Run) -> bool:
    """Whether there is a validation split to evaluate on."""
    return run.dataset.validation is not None and run.dataset.has_labels


def validate(run: Run, state: TrainState) -> Validation:
    """The scores of this state, in percent; none where there is no validation split."""
    row, notes = {}, {}
    if not is_validated(run):
        return Validation(row, notes)
    settings, predict_fn = run.evaluation_settings(), run.predict_fn(state)
    scoring = SCORINGS[settings.label_kind]
    score, unit = scoring.name.key, scoring.name.unit
    if run.config.objective != "contrastive" or run.config.classifier.beside or run.config.prototypes.use:
        logits = dataset_features(
            lambda images: predict_fn(images).logits, run.dataset, ("validation",), **settings.extraction
        )["validation"]
        row[f"classifier/{score}"] = scoring.score_fn(scoring.classifier_fn(logits.values, run.dataset.bins)[0], logits)
        notes["classifier"] = f"{row[f'classifier/{score}']:.2f}{unit}"
    if run.config.objective == "contrastive" or settings.measures:
        splits = ("train", "validation") if run.config.objective == "contrastive" else ("validation",)
        features = dataset_features(
            lambda images: predict_fn(images).features, run.compared_dataset(), splits, **settings.extraction
        )
        if "train" in features:
            found = best_neighbors(features, **settings.knn, label_kind=settings.label_kind)
            row["knn/neighbors"], row[f"knn/{score}"] = found
            notes["k-NN"] = f"{found[1]:.2f}{unit}"
        values = measured(settings.measures, features["validation"])
        row |= {f"measures/{name}": value for name, value in values.items()}
    return Validation(row, notes)
