"""Advice from the metrics of a run, each problem once: what was found, its likely cause, the field to change."""

import collections
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Chance level and collapse mean nothing before a network had time to learn: at least this many steps, and a learning rate
# that reached half its peak. From then on the mean of the last rows is checked, not a single batch.
_EARLIEST_STEP = 50
_NUM_ROWS = 3

_NEAR_CHANCE = 0.99
_COLLAPSED_SPREAD = 0.01
_COLLAPSED_RANK = 1.5
_FEW = 0.5
_UNIFORM_ENTROPY = 0.97
_ONE_HOT_ENTROPY = 0.01

# An update is learning rate x gradient norm / norm of the initial parameters. Measured on the digits recipe (SGD, momentum
# 0.9): it learns well with 6e-4 to 6e-3, slowly with 1e-4 and with 1.5e-2, not with 1e-5, and collapses with 5e-2.
_SMALL_UPDATE = 1e-4
_SMALL_PROGRESS = 0.95
_LARGE_UPDATE = 0.03


@dataclass(frozen=True)
class RunFacts:
    """What is known before training; the names are those of the config.

    chance_loss: of the labels, without a teacher's part, for rows without `train/chance_loss`; None: not checked.
    learning_rate: the peak. parameter_norm: global norm of the initial parameters; without it, or with an optimizer other
    than sgd, the size of the updates is not checked. input_bound_share: share of the time above which waiting for images is
    reported. decoding_threads: threads that decode images on the host; 0: the images are in memory.
    """

    objective: str
    chance_loss: float | None
    num_classes: int
    learning_rate: float | int
    batch_size: int
    mode: str = "all"
    normalizer: str = "similarity"
    queue_size: int = 0
    has_teacher: bool = False
    optimizer: str = "sgd"
    parameter_norm: float | None = None
    input_bound_share: float | int = 0.1
    decoding_threads: int = 0


class Advisor:
    """Reads the logged rows of one run, oldest first; facts are the fields of `RunFacts`.

    A run that resumes passes the earlier rows first, so that nothing is reported twice.
    """

    def __init__(self, **facts: Any):
        self._facts = RunFacts(**facts)
        self._said: set[str] = set()
        self._rate_was_high = False
        self._settled = collections.deque(maxlen=_NUM_ROWS)
        self._waits = collections.deque(maxlen=_NUM_ROWS)

    def sentences(self, step: int, row: Mapping[str, Any]) -> list[str]:
        """The new problems of the row logged at this step, each as "name: what, why, what to change".

        Names in row are `train/loss`, `train/embedding_spread` and so on; missing ones are not checked, and no row is
        checked before the queue of a momentum encoder is full.
        """
        numbers = _train_numbers(row)
        if "loss" not in numbers or step * self._facts.batch_size < self._facts.queue_size:
            return []
        numbers["step"] = step
        if self._facts.chance_loss is not None:
            numbers.setdefault("chance_loss", self._facts.chance_loss)
        found = [check(self._facts, numbers) for check in _AT_ONCE] + self._when_settled(numbers)
        return self._new([*found, self._input_bound(numbers)])

    def _input_bound(self, numbers: dict[str, float]) -> str | None:
        if numbers["step"] > 1:  # the first step waits for the first batch and compiles
            self._waits.append(numbers["input_wait"])
        if len(self._waits) < _NUM_ROWS or not statistics.fmean(self._waits) > self._facts.input_bound_share:
            return None
        return _input_sentence(self._facts, statistics.fmean(self._waits), numbers["step"])

    def _when_settled(self, numbers: dict[str, float]) -> list[str | None]:
        self._rate_was_high |= not numbers["learning_rate"] < self._facts.learning_rate / 2
        if numbers["step"] >= _EARLIEST_STEP and self._rate_was_high:
            self._settled.append(numbers)
        if len(self._settled) < _NUM_ROWS:
            return []
        means = _means(self._settled) | {"step": numbers["step"]}
        return [check(self._facts, means) for check in _WHEN_SETTLED]

    def _new(self, sentences: list[str | None]) -> list[str]:
        new = [sentence for sentence in sentences if sentence and _name(sentence) not in self._said]
        self._said |= {_name(sentence) for sentence in new}
        return new


def _name(sentence: str) -> str:
    return sentence.split(":")[0]


def _train_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics named `train/...`, without the prefix; null and missing values are NaN, for which no comparison holds."""
    found = {name.removeprefix("train/"): value for name, value in row.items() if name.startswith("train/")}
    return _with_nan({name: math.nan if value is None else value for name, value in found.items()})


def _means(rows: collections.deque) -> dict[str, float]:
    return _with_nan({name: statistics.fmean(row[name] for row in rows) for name in rows[-1]})


def _with_nan(numbers: dict[str, float]) -> dict[str, float]:
    return collections.defaultdict(lambda: math.nan, numbers)


# ---- checks of a single row


def _not_finite(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    if math.isfinite(numbers["loss"]):
        return None
    return (
        f"loss not finite: {numbers['loss']} at step {numbers['step']}. The learning rate is likely too large: lower "
        f"optimizer.learning_rate (now {facts.learning_rate:g})"
    )


def _few_similar_contrasts(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    if numbers["valid_anchors"] < _FEW:
        found = f"{1.0 - numbers['valid_anchors']:.0%} of the anchors have none and contribute nothing"
    elif numbers["similar_contrasts"] < _FEW:
        found = f"{numbers['similar_contrasts']:.2f} contrasts per anchor have a label similarity above 0.5"
    else:
        return None
    if facts.mode == "momentum":
        small, change = f"batch_size {facts.batch_size} and queue_size {facts.queue_size} are", "raise "
    else:
        small, change = f"batch_size {facts.batch_size} is", "raise batch_size, or set loss.mode to momentum and raise "
    return (
        f"most anchors without a similar contrast: {found}. {small} likely too small for {facts.num_classes} classes: "
        f"{change}momentum_encoder.queue_size"
    )


def _uniform_teacher(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    largest = math.log(facts.num_classes)
    if not facts.has_teacher or not numbers["teacher_entropy"] > _UNIFORM_ENTROPY * largest:
        return None
    return (
        f"teacher nearly uniform: its predictions have an entropy of {numbers['teacher_entropy']:.3f} nats, a uniform "
        f"distribution has {largest:.3f} (ln of {facts.num_classes} classes): they make all images alike. Lower "
        "teacher.temperature, or correct teacher.mean, teacher.std and teacher.image_size"
    )


def _one_hot_teacher(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    if not facts.has_teacher or not numbers["teacher_entropy"] < _ONE_HOT_ENTROPY:
        return None
    return (
        f"teacher nearly one-hot: its predictions have an entropy of {numbers['teacher_entropy']:.4f} nats and add "
        "nothing to hard labels. Raise teacher.temperature"
    )


def _input_sentence(facts: RunFacts, share: float, step: float | int) -> str:
    change = (
        "The images are in memory, so the host itself is busy: run fewer other processes on it, or raise batch_size"
        if facts.decoding_threads == 0
        else f"{facts.decoding_threads} threads decode images: raise dataset.num_threads where the host has more cores, "
        "use a host with more cores, or store smaller images (JPEGs near twice dataset.image_size)"
    )
    return f"input-bound: the devices waited {share:.0%} of the time for images, up to step {step:g}. {change}"


# ---- checks of the mean of several rows, once the network had time to learn


def _loss_at_chance(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    loss, chance = _label_loss(numbers), numbers["chance_loss"]
    if not loss >= _NEAR_CHANCE * chance:
        return None
    counted = (
        "scale x ln of the number of contrasts" if facts.objective == "contrastive" else "ln of the number of classes"
    )
    cause = (
        "The embeddings have collapsed; the learning rate is likely too large: lower"
        if _is_collapsed(facts, numbers)
        else "The learning rate is likely too small, or the labels do not belong to the images: raise"
    )
    return (
        f"loss at chance level: {loss:.4f} at step {numbers['step']}, a network that has learned nothing gets {chance:.4f} "
        f"({counted}). {cause} optimizer.learning_rate (now {facts.learning_rate:g})"
    )


def _collapsed(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    if not _is_collapsed(facts, numbers):
        return None
    return (
        f"collapsed embeddings: spread {numbers['embedding_spread']:.4f} (0: all alike) and effective rank "
        f"{numbers['effective_rank']:.1f} at step {numbers['step']}. The learning rate is likely too large: lower "
        f"optimizer.learning_rate (now {facts.learning_rate:g}), or raise optimizer.warmup_epochs"
    )


def _is_collapsed(facts: RunFacts, numbers: Mapping[str, float]) -> bool:
    # With two classes, rank 1 is the best there is: both ends of one line.
    on_a_line = facts.num_classes > 2 and numbers["effective_rank"] < _COLLAPSED_RANK
    return on_a_line or numbers["embedding_spread"] < _COLLAPSED_SPREAD


def _small_learning_rate(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    update, loss = _relative_update(facts, numbers), _label_loss(numbers)
    learns = not loss >= _SMALL_PROGRESS * numbers["chance_loss"]
    # Collapsed embeddings have no gradient, whatever the rate.
    if not update < _SMALL_UPDATE or learns or _is_collapsed(facts, numbers):
        return None
    change = f"raise optimizer.learning_rate (now {facts.learning_rate:g})"
    if facts.normalizer == "count":
        change = (
            f"gradients with loss.normalizer count are about {facts.num_classes} times (the classes) smaller than with "
            f"similarity: {change} accordingly, or set loss.normalizer to similarity"
        )
    return (
        f"learning rate too small: at step {numbers['step']} an update is {update:.0e} of the norm of the parameters and "
        f"the loss {loss:.4f} is still near chance level {numbers['chance_loss']:.4f}; {change}"
    )


def _large_learning_rate(facts: RunFacts, numbers: Mapping[str, float]) -> str | None:
    update = _relative_update(facts, numbers)
    if not update > _LARGE_UPDATE:
        return None
    change = f"lower optimizer.learning_rate (now {facts.learning_rate:g})"
    if facts.normalizer == "similarity":
        change += (
            f"; a rate chosen for loss.normalizer count is about {facts.num_classes} times (the classes) too large"
        )
    return f"learning rate too large: at step {numbers['step']} an update is {update:.0%} of the norm of the parameters; {change}"


def _label_loss(numbers: Mapping[str, float]) -> float:
    """The part of the loss that chance_loss refers to: without the teacher's part."""
    return numbers["label_loss"] if "label_loss" in numbers else numbers["loss"]


def _relative_update(facts: RunFacts, numbers: Mapping[str, float]) -> float:
    """NaN where the update is not proportional to the gradient, or where the bounds above were not measured."""
    if facts.optimizer != "sgd" or facts.objective != "contrastive" or not facts.parameter_norm:
        return math.nan
    return numbers["learning_rate"] * numbers["gradient_norm"] / facts.parameter_norm


_AT_ONCE = (_not_finite, _few_similar_contrasts, _uniform_teacher, _one_hot_teacher)
_WHEN_SETTLED = (_loss_at_chance, _collapsed, _small_learning_rate, _large_learning_rate)
