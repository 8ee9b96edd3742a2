"""The main score of each kind of labels: its name in metrics and results, and in words."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class ScoreName(NamedTuple):
    """key: the ending of its names in metrics and results, knn/top1 and knn_top1.  title: in words.  short: in a table.

    unit: after a number, with the space before it.
    """

    key: str
    title: str
    short: str
    unit: str = " %"


# dataset.label_kind -> its main score
SCORE_NAMES: dict[str, ScoreName] = {
    "class": ScoreName("top1", "accuracy", "top-1"),
    "value": ScoreName("r2", "share of the variance explained (R²)", "R²"),
    "several": ScoreName("mean_average_precision", "mean average precision over labels", "mAP"),
}

# dataset.label_kind -> what the columns of its label rows are
COLUMN_WORDS: dict[str, str] = {"class": "classes", "value": "bins of values", "several": "labels"}

# Who predicts: the beginning of the names of its scores in the results -> in words. The first that there is, is shown.
PREDICTOR_NAMES = {
    "linear": "linear probe",
    "classifier": "classifier",
    "knn": "k-NN",
    "raw_pixel_knn": "raw-pixel k-NN",
}


def score_name_of(described: Mapping[str, Any]) -> ScoreName:
    """The main score of what says its `label_kind`: results.json, dataset.json; older ones are of one class per image."""
    return SCORE_NAMES[described.get("label_kind", "class")]


def score_keys(predictor: str) -> tuple[str, ...]:
    """The names of a predictor's main score in the metrics of training, of all kinds: knn/top1, ..."""
    return tuple(f"{predictor}/{name.key}" for name in SCORE_NAMES.values())
