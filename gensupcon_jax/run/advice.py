"""Advice from the metrics of a run, each problem once: what was found, its likely cause, the field to change."""

import collections
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gensupcon_jax import verdicts
from gensupcon_jax.score_names import COLUMN_WORDS

_FEW = 0.5
_UNIFORM_ENTROPY = 0.97
_FLOOR_SHARE = 0.15  # of the attraction; labels smoothed by 0.1 have 19 %
_ONE_HOT_ENTROPY = 0.01
_ABOVE_CHANCE = 1.05  # a classifier whose loss is this much above that of equal probabilities overshoots

LOWER, RAISE = "lower", "raise"


@dataclass(frozen=True)
class RunFacts:
    """What is known before training; the names are those of the config.

    chance_loss: of the labels, without a teacher's part, for rows without `train/chance_loss`; None: not checked.
    separable: of `verdicts.separable_share`; None: not known.
    learning_rate: the peak. parameter_norm: global norm of the initial parameters; without it, or with an optimizer other
    than sgd, the size of the updates is not checked. input_bound_share: share of the time above which waiting for images is
    reported. decoding_threads: threads that decode images on the host; 0: the images are in memory.
    """

    objective: str
    chance_loss: float | None
    num_classes: int
    learning_rate: float | int
    batch_size: int
    separable: float | None = None
    mode: str = "all"
    normalizer: str = "similarity"
    queue_size: int = 0
    has_teacher: bool = False
    optimizer: str = "sgd"
    parameter_norm: float | None = None
    input_bound_share: float | int = 0.1
    decoding_threads: int = 0
    label_kind: str = "class"


class Finding(NamedTuple):
    """A problem: its name with what was found, and which field to lower or raise, in words.

    field None: the remedy names no direction.
    """

    found: str
    remedy: str
    field: str | None = None
    direction: str = ""

    @property
    def name(self) -> str:
        """The words before the first colon."""
        return self.found.split(":")[0]


class Advisor:
    """Reads the logged rows of one run, oldest first; facts are the fields of `RunFacts`.

    A run that resumes passes the earlier rows first, so that nothing is reported twice. No field is recommended to be lowered
    and to be raised in one run: the second time the sentence says that both were indicated.
    """

    def __init__(self, **facts: Any):
        self._facts = RunFacts(**facts)
        self._said: set[str] = set()
        self._directions: dict[str, str] = {}
        self._rate_was_high = False
        self._settled = collections.deque(maxlen=verdicts.NUM_ROWS)
        self._waits = collections.deque(maxlen=verdicts.NUM_ROWS)

    def sentences(self, step: int, row: Mapping[str, Any]) -> list[str]:
        """The new problems of the row logged at this step, each as "name: what, why, what to change".

        Names in row are `train/loss`, `train/embedding_spread` and so on; missing ones are not checked, and no row is
        checked before the queue of a momentum encoder is full.
        """
        numbers = verdicts.train_numbers(row)
        if "loss" not in numbers or step * self._facts.batch_size < self._facts.queue_size:
            return []
        numbers["step"] = step
        if self._facts.chance_loss is not None:
            numbers.setdefault("chance_loss", self._facts.chance_loss)
        found = [check(self._facts, numbers) for check in _AT_ONCE] + self._when_settled(numbers)
        return [self._sentence(finding) for finding in self._new([*found, self._input_bound(numbers)])]

    def _input_bound(self, numbers: dict[str, float]) -> Finding | None:
        if numbers["step"] > 1:  # the first step waits for the first batch and compiles
            self._waits.append(numbers["input_wait"])
        if len(self._waits) < verdicts.NUM_ROWS or not statistics.fmean(self._waits) > self._facts.input_bound_share:
            return None
        return _input_bound(self._facts, statistics.fmean(self._waits), numbers["step"])

    def _when_settled(self, numbers: dict[str, float]) -> list[Finding | None]:
        self._rate_was_high |= _is_near_peak(self._facts, numbers)
        if numbers["step"] >= verdicts.EARLIEST_STEP and self._rate_was_high:
            self._settled.append(numbers)
        if len(self._settled) < verdicts.NUM_ROWS:
            return []
        means = verdicts.means(self._settled)
        return [check(self._facts, means) for check in _WHEN_SETTLED]

    def _new(self, findings: list[Finding | None]) -> list[Finding]:
        new = [finding for finding in findings if finding and finding.name not in self._said]
        self._said |= {finding.name for finding in new}
        return new

    def _sentence(self, finding: Finding) -> str:
        if finding.field is None:
            return f"{finding.found}. {finding.remedy}"
        earlier = self._directions.setdefault(finding.field, finding.direction)
        if earlier == finding.direction:
            return f"{finding.found}. {finding.remedy}"
        return (
            f"{finding.found}. Earlier steps of this run indicated to {earlier} {finding.field}, these to "
            f"{finding.direction} it: it is not the only cause. Leave it, and check that the labels belong to the images "
            "(gensupcon prepare)"
        )


# ---- checks of a single row


def _not_finite(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    if math.isfinite(numbers["loss"]):
        return None
    found = f"loss not finite: {numbers['loss']} at step {numbers['step']}"
    return _lower_rate(facts, found)


def _few_similar_contrasts(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
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
    of_what = COLUMN_WORDS[facts.label_kind]
    wider = "; a larger dataset.value_width makes more numbers alike" if facts.label_kind == "value" else ""
    return Finding(
        f"most anchors without a similar contrast: {found}",
        f"{small} likely too small for {facts.num_classes} {of_what}: {change}momentum_encoder.queue_size{wider}",
    )


def _uniform_teacher(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    largest = math.log(facts.num_classes)
    if not facts.has_teacher or not numbers["teacher_entropy"] > _UNIFORM_ENTROPY * largest:
        return None
    return Finding(
        f"teacher nearly uniform: its predictions have an entropy of {numbers['teacher_entropy']:.3f} nats, a uniform "
        f"distribution has {largest:.3f} (ln of {facts.num_classes} classes): they make all images alike",
        "Lower teacher.temperature, or correct teacher.mean, teacher.std and teacher.image_size",
        "teacher.temperature",
        LOWER,
    )


def _floor_of_teacher(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    share = numbers["unrelated_attraction"]
    if not facts.has_teacher or not share > _FLOOR_SHARE:
        return None
    return Finding(
        f"teacher attracts other classes: {share:.0%} of the attraction by its predictions belongs to images without a class in "
        "common, as a floor of probability under all classes gives (19% for labels smoothed by 0.1)",
        "Train the teacher without label smoothing, or lower teacher.temperature",
        "teacher.temperature",
        LOWER,
    )


def _one_hot_teacher(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    if not facts.has_teacher or not numbers["teacher_entropy"] < _ONE_HOT_ENTROPY:
        return None
    return Finding(
        f"teacher nearly one-hot: its predictions have an entropy of {numbers['teacher_entropy']:.4f} nats and add "
        "nothing to hard labels",
        "Raise teacher.temperature",
        "teacher.temperature",
        RAISE,
    )


def _input_bound(facts: RunFacts, share: float, step: float | int) -> Finding:
    change = (
        "The images are in memory, so the host itself is busy: run fewer other processes on it, or raise batch_size"
        if facts.decoding_threads == 0
        else f"{facts.decoding_threads} threads decode images: raise dataset.num_threads where the host has more cores, "
        "use a host with more cores, or store smaller images (JPEGs near twice dataset.image_size)"
    )
    return Finding(f"input-bound: the devices waited {share:.0%} of the time for images, up to step {step:g}", change)


# ---- checks of the mean of several rows, once the network had time to learn


def _loss_at_chance(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    if not verdicts.is_at_chance(numbers, facts.separable):
        return None
    found = verdicts.at_chance(numbers, facts.objective)
    if verdicts.is_collapsed(numbers, facts.num_classes, facts.separable):
        return _lower_rate(facts, found, "The embeddings have collapsed; the")
    if verdicts.is_large_update(_relative_update(facts, numbers)) or _overshoots(facts, numbers):
        return _lower_rate(facts, found)
    if facts.label_kind == "several" and facts.objective != "contrastive" and _is_far_above_chance(numbers):
        # Between the shares of the labels, learned in a few steps, and probabilities of 1/2, where training begins.
        rate = f"change optimizer.learning_rate (now {facts.learning_rate:g}), to a third or three times as much"
        return Finding(found, f"The learning rate is too small or too large: {rate}")
    remedy = (
        "The learning rate is likely too small, or the labels do not belong to the images: raise optimizer.learning_rate "
        f"(now {facts.learning_rate:g})"
    )
    return Finding(found, remedy, "optimizer.learning_rate", RAISE)


def _is_far_above_chance(numbers: Mapping[str, float]) -> bool:
    return numbers["loss"] > _ABOVE_CHANCE * numbers["chance_loss"]


def _overshoots(facts: RunFacts, numbers: Mapping[str, float]) -> bool:
    equal = facts.num_classes * math.log(2) if facts.label_kind == "several" else math.log(facts.num_classes)
    return facts.objective != "contrastive" and numbers["loss"] > _ABOVE_CHANCE * equal


def _collapsed(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    if not verdicts.is_collapsed(numbers, facts.num_classes, facts.separable):
        return None
    return _lower_rate(facts, verdicts.collapsed(numbers), more=", or raise optimizer.warmup_epochs")


def _small_learning_rate(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    # The end of a schedule is small by design, and collapsed embeddings have no gradient, whatever the rate.
    if not _is_near_peak(facts, numbers) or verdicts.is_collapsed(numbers, facts.num_classes, facts.separable):
        return None
    update = _relative_update(facts, numbers)
    if not verdicts.is_small_update(update, numbers):
        return None
    change = f"raise optimizer.learning_rate (now {facts.learning_rate:g})"
    if facts.normalizer == "count" and facts.label_kind == "class":
        change = (
            f"gradients with loss.normalizer count are about {facts.num_classes} times (the classes) smaller than with "
            f"similarity: {change} accordingly, or set loss.normalizer to similarity"
        )
    return Finding(
        f"learning rate too small: at step {numbers['step']} an update is {update:.0e} of the norm of the parameters and "
        f"the loss {verdicts.label_loss(numbers):.4f} is still near chance level {numbers['chance_loss']:.4f}",
        change[0].upper() + change[1:],
        "optimizer.learning_rate",
        RAISE,
    )


def _large_learning_rate(facts: RunFacts, numbers: Mapping[str, float]) -> Finding | None:
    update = _relative_update(facts, numbers)
    if not verdicts.is_large_update(update):
        return None
    change = f"Lower optimizer.learning_rate (now {facts.learning_rate:g})"
    if facts.normalizer == "similarity" and facts.label_kind == "class":
        change += (
            f"; a rate chosen for loss.normalizer count is about {facts.num_classes} times (the classes) too large"
        )
    found = (
        f"learning rate too large: at step {numbers['step']} an update is {update:.0%} of the norm of the parameters"
    )
    return Finding(found, change, "optimizer.learning_rate", LOWER)


def _lower_rate(facts: RunFacts, found: str, subject: str = "The", more: str = "") -> Finding:
    remedy = f"{subject} learning rate is likely too large: lower optimizer.learning_rate (now {facts.learning_rate:g}){more}"
    return Finding(found, remedy, "optimizer.learning_rate", LOWER)


def _is_near_peak(facts: RunFacts, numbers: Mapping[str, float]) -> bool:
    """Whether the learning rate is at least half of its peak, or not logged."""
    return not numbers["learning_rate"] < facts.learning_rate / 2


def _relative_update(facts: RunFacts, numbers: Mapping[str, float]) -> float:
    """NaN where the update is not proportional to the gradient, or where the bounds were not measured."""
    if facts.optimizer != "sgd" or facts.objective != "contrastive" or not facts.parameter_norm:
        return math.nan
    return numbers["learning_rate"] * numbers["gradient_norm"] / facts.parameter_norm


_AT_ONCE = (_not_finite, _few_similar_contrasts, _uniform_teacher, _one_hot_teacher)
_WHEN_SETTLED = (_floor_of_teacher, _loss_at_chance, _collapsed, _small_learning_rate, _large_learning_rate)
