"""What the numbers of a training mean: at chance level, collapsed, a learning rate too small or too large.

The log, the metrics and the report take their verdicts and their sentences from here.
"""

import collections
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Chance level and collapse mean nothing before a network had time to learn: at least this many steps. From then on the mean
# of the last rows is taken, not a single batch.
EARLIEST_STEP = 50
NUM_ROWS = 3

# A loss within this share of the chance level has learned nothing; less where the labels allow little more.
_NEAR_CHANCE = 0.01
_NEAR_CHANCE_OF_SEPARABLE = 0.1
_COLLAPSED_SPREAD = 0.01
_COLLAPSED_RANK = 1.5
# Embeddings on a line still separate two groups of classes: of 4 or more equally frequent classes that is at most half of what
# can be learned, of 10 classes 0.3. A set with one or two frequent classes is learned almost wholly on a line.
_LEARNED_ON_A_LINE = 1 / 3

# An update is learning rate x gradient norm / norm of the initial parameters. Measured on the digits recipe (SGD, momentum
# 0.9): it learns well with 6e-4 to 6e-3, slowly with 1e-4 and with 1.5e-2, not with 1e-5, and collapses with 5e-2.
_SMALL_UPDATE = 1e-4
_SMALL_PROGRESS = 0.05
_LARGE_UPDATE = 0.03

Numbers = Mapping[str, float]


def train_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics named `train/...`, without the prefix; null and missing values are NaN, for which no comparison holds."""
    found = {name.removeprefix("train/"): value for name, value in row.items() if name.startswith("train/")}
    return _with_nan({name: math.nan if value is None else value for name, value in found.items()})


def means(rows: Iterable[Numbers]) -> dict[str, float]:
    """The mean of each number over the rows; the step of the last one."""
    rows = list(rows)
    found = {name: statistics.fmean(row[name] for row in rows) for name in rows[-1]}
    return _with_nan(found | ({"step": rows[-1]["step"]} if "step" in found else {}))


def end_of_training(metrics: Sequence[Mapping[str, Any]], chance_loss: float | None) -> dict[str, float]:
    """The mean of the last rows of a run that have a training loss, with their chance level; empty if there are none."""
    rows = [row for row in metrics if row.get("train/loss") is not None]
    found = [train_numbers(row) | {"step": row.get("step", math.nan)} for row in rows[-NUM_ROWS:]]
    known = {} if chance_loss is None else {"chance_loss": chance_loss}
    return _with_nan(known | (means(map(_with_nan, found)) if found else {}))


def separable_share(class_entropy: float, num_contrasts: int) -> float:
    """The share of the chance-level loss that perfectly separated classes remove, for the contrastive loss.

    class_entropy: that of the shares of the classes, in nats.  Each anchor then chooses among the contrasts of its class, on
    average num_contrasts x its share, in place of all contrasts.
    """
    return class_entropy / math.log(num_contrasts) if num_contrasts > 1 else 0.0


def entropy(shares: Iterable[float]) -> float:
    """The entropy of shares that sum to 1, in nats."""
    return -math.fsum(share * math.log(share) for share in shares if share > 0)


def label_loss(numbers: Numbers) -> float:
    """The part of the loss that the chance level refers to: without the teacher's part, unless that alone is trained."""
    if "label_loss" not in numbers or numbers["loss"] == numbers.get("teacher_loss"):
        return numbers["loss"]
    return numbers["label_loss"]


def is_at_chance(numbers: Numbers, separable: float | None = None) -> bool:
    """Whether the network has learned nothing; False where loss or chance level are unknown.

    separable: of `separable_share`; None: not known.
    """
    margin = _NEAR_CHANCE if separable is None else min(_NEAR_CHANCE, _NEAR_CHANCE_OF_SEPARABLE * separable)
    return label_loss(numbers) >= (1 - margin) * numbers["chance_loss"]


def is_collapsed(numbers: Numbers, num_classes: int, separable: float | None = None) -> bool:
    """Whether all embeddings are alike, or lie on a line and do not separate the classes there.

    A line is the best there is for two classes, and nearly so for classes of which one or two are frequent: there a low rank
    alone is no collapse. So a line counts as collapsed only as long as the loss shows that little was learned.
    """
    if numbers["embedding_spread"] < _COLLAPSED_SPREAD:
        return True
    if num_classes <= 2 or not numbers["effective_rank"] < _COLLAPSED_RANK:
        return False
    if not separable:
        return is_at_chance(numbers)
    return 1 - label_loss(numbers) / numbers["chance_loss"] < _LEARNED_ON_A_LINE * separable


def is_small_update(update: float, numbers: Numbers) -> bool:
    """Whether updates of this size are why the loss is still near chance level."""
    learns = not label_loss(numbers) >= (1 - _SMALL_PROGRESS) * numbers["chance_loss"]
    return update < _SMALL_UPDATE and not learns


def is_large_update(update: float) -> bool:
    """Whether updates of this size are too large to learn."""
    return update > _LARGE_UPDATE


def at_chance(numbers: Numbers, objective: str) -> str:
    """The sentence about a loss at chance level."""
    counted = "scale x ln of the number of contrasts" if objective == "contrastive" else "entropy of the class shares"
    return (
        f"loss at chance level: {label_loss(numbers):.4f} at step {numbers['step']:g}, a network that has learned nothing gets "
        f"{numbers['chance_loss']:.4f} ({counted})"
    )


def collapsed(numbers: Numbers) -> str:
    """The sentence about collapsed embeddings."""
    where = f" at step {numbers['step']:g}" if "step" in numbers else " of the test images"
    return (
        f"collapsed embeddings: spread {numbers['embedding_spread']:.4f} (0: all alike) and effective rank "
        f"{numbers['effective_rank']:.1f}{where}"
    )


def _with_nan(numbers: Mapping[str, float]) -> dict[str, float]:
    return collections.defaultdict(lambda: math.nan, numbers)
