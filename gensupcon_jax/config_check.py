"""Is this config one that can run? Every field has a rule here; all that is wrong is said at once."""

import difflib
import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from gensupcon_jax.datasets import Dataset
from gensupcon_jax.errors import UserError
from gensupcon_jax.input_pipeline import steps_per_epoch
from gensupcon_jax.mixing import KINDS, PER, VIEWS
from gensupcon_jax.models import BATCH_NORMS, DTYPES, HEADS, MODEL_NAMES, STEMS
from gensupcon_jax.objectives import MODES
from gensupcon_jax.sharding import local_batch_size
from gensupcon_jax.workdir import flatten

# A rule says what is allowed when a value is not, and None when it is.
Rule = Callable[[Any], str | None]
Number = float | int


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(low: int, high: int | None = None) -> Rule:
    allowed = f"a whole number from {low}" + ("" if high is None else f" to {high}")

    def rule(value):
        fits = _is_number(value) and isinstance(value, int) and low <= value and (high is None or value <= high)
        return None if fits else allowed

    return rule


def _number(low: Number, high: Number | None = None) -> Rule:
    allowed = f"a number from {low:g}" + ("" if high is None else f" to {high:g}")

    def rule(value):
        return None if _is_number(value) and low <= value and (high is None or value <= high) else allowed

    return rule


def _positive(value: Any) -> str | None:
    return None if _is_number(value) and value > 0 else "a number above 0"


def _choice(*names: str) -> Rule:
    return lambda value: None if isinstance(value, str) and value in names else ", ".join(names)


def _optional(rule: Rule) -> Rule:
    def optional(value):
        allowed = None if value is None else rule(value)
        return allowed and f"{allowed}, or None"

    return optional


def _interval(low: Number, high: Number | None = None) -> Rule:
    allowed = f"two numbers above {low:g}, the smaller first" + ("" if high is None else f", up to {high:g}")

    def rule(value):
        fits = isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))
        return None if fits and low < value[0] <= value[1] and (high is None or value[1] <= high) else allowed

    return rule


def _several(rule: Rule) -> Rule:
    def several(value):
        if isinstance(value, tuple | list) and value and all(rule(entry) is None for entry in value):
            return None
        return f"one or more in parentheses, each {rule(None)}"

    return several


RULES: dict[str, Rule] = {
    "seed": _integer(0, 2**32 - 1),
    "batch_size": _integer(1),
    "epochs": _positive,
    "steps": _optional(_integer(1)),
    "log_steps": _integer(1),
    "dataset.name": _choice("digits", "arrays"),
    "augment.num_views": _integer(2),
    "augment.crop_scale": _interval(0, 1),
    "augment.crop_ratio": _interval(0),
    "augment.flip_probability": _number(0, 1),
    "augment.jitter_probability": _number(0, 1),
    "augment.brightness": _number(0),
    "augment.contrast": _number(0),
    "augment.saturation": _number(0),
    "augment.hue": _number(0, 0.5),
    "augment.grey_probability": _number(0, 1),
    "mix.kind": _choice(*KINDS),
    "mix.alpha": _positive,
    "mix.per": _choice(*PER),
    "mix.views": _choice(*VIEWS),
    "mix.block": _integer(1),
    "model.name": _choice(*MODEL_NAMES),
    "model.stem": _choice(*STEMS),
    "model.width": _optional(_integer(1)),
    "model.head": _choice(*HEADS),
    "model.head_hidden_dim": _optional(_integer(1)),
    "model.embedding_dim": _integer(1),
    "model.dtype": _choice(*DTYPES),
    "model.batch_norm": _choice(*BATCH_NORMS),
    "loss.mode": _choice(*MODES),
    "loss.temperature": _positive,
    "loss.base_temperature": _optional(_positive),
    "loss.normalizer": _choice("similarity", "count"),
    "loss.tile_size": _optional(_integer(1)),
    "optimizer.learning_rate": _positive,
    "optimizer.warmup_epochs": _number(0),
    "optimizer.warmup_learning_rate": _number(0),
    "optimizer.final_learning_rate": _number(0),
    "optimizer.momentum": _number(0, 1),
    "optimizer.weight_decay": _number(0),
    "evaluate.every_epochs": _number(0),
    "evaluate.batch_size": _integer(1),
    "evaluate.neighbors": _several(_integer(1)),
    "evaluate.knn_temperature": _positive,
    "evaluate.probe_penalties": _several(_positive),
    "checkpoint.every_epochs": _positive,
    "checkpoint.keep": _integer(1),
}


def check_config(config: ConfigDict) -> None:
    """UserError with a line for each field that is unknown, missing or not allowed (ours)."""
    fields = flatten(config.to_dict())
    problems = [f"{name} is no field of the config{hint(name)}" for name in fields if name not in RULES]
    problems += [f"{name} is missing; start from configs/common.py" for name in RULES if name not in fields]
    for name, rule in RULES.items():
        allowed = rule(fields[name]) if name in fields else None
        if allowed:
            problems.append(f"{name} is {fields[name]!r}; allowed: {allowed}")
    _raise(problems)


def check_combinations(config: ConfigDict, dataset: Dataset, num_devices: int) -> None:
    """UserError with a line for each pair of fields that do not go together, with this data and these devices (ours)."""
    problems = []
    try:
        local = local_batch_size(config.batch_size, num_devices)
        if config.mix.kind != "none" and local % config.mix.block:
            divisors = [size for size in range(1, local + 1) if local % size == 0]
            problems.append(
                f"mix.block is {config.mix.block}, which does not divide the {local} images of a device; "
                f"allowed: {', '.join(map(str, divisors[-8:]))}"
            )
    except UserError as error:
        problems.append(str(error))
    try:
        steps_per_epoch(len(dataset.train.images), config.batch_size)
    except UserError as error:
        problems.append(str(error))
    if config.steps is None and config.optimizer.warmup_epochs > config.epochs:
        problems.append(
            f"optimizer.warmup_epochs is {config.optimizer.warmup_epochs:g}; allowed: up to epochs ({config.epochs:g})"
        )
    _raise(problems)


def hint(name: str) -> str:
    """What to say after an unknown field's name: the nearest one, or where to look (ours)."""
    close = difflib.get_close_matches(name, RULES, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else "; see configs/common.py for all fields"


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError("\n".join(problems))
