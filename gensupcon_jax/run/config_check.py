"""Is this config one that can run? Every field has a rule here; all that is wrong is said at once."""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gensupcon_jax.cluster.sharding import local_batch_size
from gensupcon_jax.data.input_pipeline import REMAINDERS, steps_per_epoch
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.key_queue import num_slots
from gensupcon_jax.method.objectives import MODES, MOMENTUM_SCHEDULES, OBJECTIVES
from gensupcon_jax.method.optimizer import OPTIMIZERS, SCHEDULE_PER, SCHEDULES, WEIGHT_DECAY_MODES
from gensupcon_jax.models import BATCH_NORMS, DTYPES, ENCODERS, HEADS, STEMS
from gensupcon_jax.store.workdir import flatten
from gensupcon_jax.views.augment import AUTO_POLICIES, POLICIES
from gensupcon_jax.views.mixing import KINDS, PER, VIEWS
from gensupcon_jax.weights.teachers import KINDS as TEACHER_KINDS

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


def _weight(value: Any) -> str | None:
    fits = (_is_number(value) and value >= 0) or value == math.inf
    return None if fits else "a number from 0, or inf"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _path(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "the path of a file or folder"


def _split_name(value: Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "the name of a split"


def _dataset_name(value: Any) -> str | None:
    prefixed = isinstance(value, str) and any(
        value.startswith(prefix) and value.removeprefix(prefix).strip() for prefix in ("tfds:", "folder:")
    )
    return (
        None
        if prefixed or value in ("digits", "arrays")
        else "digits, tfds:<name>, folder:<path>, arrays (from Python)"
    )


def _fraction(value: Any) -> str | None:
    return None if _is_number(value) and 0 < value < 1 else "a number above 0 and below 1"


def _share(value: Any) -> str | None:
    return None if _is_number(value) and 0 < value <= 1 else "a number above 0 up to 1"


def _below_one(value: Any) -> str | None:
    return None if _is_number(value) and 0 <= value < 1 else "a number from 0 to below 1"


def _channels(value: Any) -> str | None:
    fits = isinstance(value, tuple | list) and len(value) in (1, 3) and all(map(_is_number, value))
    return None if fits else "1 or 3 numbers in parentheses, one for each channel"


def _choice(*names: str) -> Rule:
    return lambda value: None if isinstance(value, str) and value in names else ", ".join(names)


def _entry_of(table: Mapping[str, Any]) -> Rule:
    """A name of a table that may get more entries after this file was imported."""
    return lambda value: None if isinstance(value, str) and value in table else ", ".join(table)


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
    "objective": _choice(*OBJECTIVES),
    "seed": _integer(0, 2**32 - 1),
    "batch_size": _integer(1),
    "epochs": _positive,
    "steps": _optional(_integer(0)),
    "images": _optional(_integer(0)),
    "log_steps": _integer(1),
    "dataset.name": _dataset_name,
    "dataset.folder": _optional(_path),
    "dataset.train_images": _optional(_integer(1)),
    "dataset.train_split": _optional(_split_name),
    "dataset.validation_split": _optional(_split_name),
    "dataset.test_split": _optional(_split_name),
    "dataset.validation_fraction": _fraction,
    "dataset.test_fraction": _fraction,
    "dataset.image_size": _optional(_integer(1)),
    "dataset.center_share": _share,
    "dataset.memory_limit": _number(0),
    "dataset.num_threads": _optional(_integer(1)),
    "dataset.remainder": _choice(*REMAINDERS),
    "dataset.skip_damaged": _flag,
    "dataset.max_damaged_share": _number(0, 1),
    "dataset.input_bound_share": _number(0, 1),
    "augment.num_views": _integer(1),
    "augment.policy": _choice(*POLICIES),
    "augment.crop_scale": _interval(0, 1),
    "augment.crop_ratio": _interval(0),
    "augment.flip_probability": _number(0, 1),
    "augment.jitter_probability": _number(0, 1),
    "augment.brightness": _number(0),
    "augment.contrast": _number(0),
    "augment.saturation": _number(0),
    "augment.hue": _number(0, 0.5),
    "augment.gray_probability": _number(0, 1),
    "augment.blur_probability": _number(0, 1),
    "augment.blur_sigma": _interval(0),
    "augment.auto_policy": _choice(*AUTO_POLICIES),
    "augment.rand_num_operations": _integer(0),
    "augment.rand_magnitude": _number(0, 30),
    "augment.cutout_size": _number(0, 1),
    "mix.kind": _choice(*KINDS),
    "mix.alpha": _positive,
    "mix.per": _choice(*PER),
    "mix.views": _choice(*VIEWS),
    "mix.block": _integer(1),
    "model.name": _entry_of(ENCODERS),
    "model.stem": _choice(*STEMS),
    "model.width": _optional(_integer(1)),
    "model.head": _choice(*HEADS),
    "model.head_hidden_dim": _optional(_integer(1)),
    "model.embedding_dim": _integer(1),
    "model.dtype": _choice(*DTYPES),
    "model.batch_norm": _choice(*BATCH_NORMS),
    "model.weights": _optional(_path),
    "classifier.label_smoothing": _below_one,
    "classifier.beside": _flag,
    "loss.mode": _choice(*MODES),
    "loss.symmetric": _flag,
    "loss.temperature": _positive,
    "loss.base_temperature": _optional(_positive),
    "loss.normalizer": _choice("similarity", "count"),
    "loss.tile_size": _optional(_integer(1)),
    "momentum_encoder.momentum": _number(0, 1),
    "momentum_encoder.schedule": _choice(*MOMENTUM_SCHEDULES),
    "momentum_encoder.queue_size": _integer(0),
    "teacher.kind": _choice(*TEACHER_KINDS),
    "teacher.path": _optional(_path),
    "teacher.architecture": _entry_of(ENCODERS),
    "teacher.image_size": _optional(_integer(1)),
    "teacher.mean": _optional(_channels),
    "teacher.std": _optional(_channels),
    "teacher.weight": _weight,
    "teacher.temperature": _positive,
    "teacher.allow_poor": _flag,
    "optimizer.name": _choice(*OPTIMIZERS),
    "optimizer.learning_rate": _positive,
    "optimizer.schedule": _choice(*SCHEDULES),
    "optimizer.schedule_per": _choice(*SCHEDULE_PER),
    "optimizer.warmup_epochs": _number(0),
    "optimizer.warmup_steps": _optional(_integer(0)),
    "optimizer.warmup_images": _optional(_integer(0)),
    "optimizer.warmup_learning_rate": _number(0),
    "optimizer.final_learning_rate": _number(0),
    "optimizer.decay_epochs": _several(_number(0)),
    "optimizer.decay_factor": _number(0, 1),
    "optimizer.momentum": _number(0, 1),
    "optimizer.nesterov": _flag,
    "optimizer.second_momentum": _number(0, 1),
    "optimizer.trust_coefficient": _positive,
    "optimizer.weight_decay": _number(0),
    "optimizer.weight_decay_mode": _choice(*WEIGHT_DECAY_MODES),
    "optimizer.exclude_bias_and_norm": _flag,
    "optimizer.max_skipped_steps": _integer(0),
    "evaluate.every_epochs": _number(0),
    "evaluate.every_steps": _optional(_integer(0)),
    "evaluate.every_images": _optional(_integer(0)),
    "evaluate.linear_probe": _flag,
    "evaluate.batch_size": _integer(1),
    "evaluate.train_images": _optional(_integer(2)),
    "evaluate.neighbors": _several(_integer(1)),
    "evaluate.knn_temperature": _positive,
    "evaluate.probe_penalties": _several(_positive),
    "checkpoint.every_epochs": _positive,
    "checkpoint.every_steps": _optional(_integer(1)),
    "checkpoint.every_images": _optional(_integer(1)),
    "checkpoint.keep": _integer(1),
}


def check_config(config: ConfigDict) -> None:
    """UserError with a line for each field that is unknown, missing or not allowed, and for each combination that is not.

    A combination is looked at when each of its fields alone is allowed.
    """
    fields = flatten(config.to_dict())
    problems = [f"{name} is no field of the config{hint(name)}" for name in fields if name not in RULES]
    problems += [f"{name} is missing; start from configs/common.py" for name in RULES if name not in fields]
    bad = {name for name in RULES if name not in fields}
    for name, rule in RULES.items():
        allowed = rule(fields[name]) if name in fields else None
        if allowed:
            bad.add(name)
            problems.append(f"{name} is {fields[name]!r}; allowed: {allowed}")
    for names, combination in COMBINATIONS:
        if not bad.intersection(names):
            problems += combination(config)
    _raise(problems)


def check_combinations(config: ConfigDict, num_train_images: int, num_devices: int) -> None:
    """UserError with a line for each pair of fields that do not go together, with so many images and devices."""
    problems = []
    try:
        local = local_batch_size(config.batch_size, num_devices)
        if config.mix.kind != "none" and local % config.mix.block:
            # A batch beyond the images is refused below; looking for all its divisors would never end.
            divisors = [size for size in range(1, min(local, num_train_images) + 1) if local % size == 0]
            problems.append(
                f"mix.block is {config.mix.block}, which does not divide the {local} images of a device; "
                f"allowed: {', '.join(map(str, divisors[-8:]))}"
            )
    except UserError as error:
        problems.append(str(error))
    try:
        steps_per_epoch(num_train_images, config.batch_size)
    except UserError as error:
        problems.append(str(error))
    _raise(problems)


def _views(config: ConfigDict) -> list[str]:
    views = config.augment.num_views
    if config.objective != "contrastive" or views >= 2:
        return []
    return [f"augment.num_views is {views}; allowed with objective contrastive: 2 or more"]


def _queue(config: ConfigDict) -> list[str]:
    views = config.augment.num_views
    if config.objective != "contrastive" or config.loss.mode != "momentum" or views < 2:
        return []
    try:
        num_slots(config.momentum_encoder.queue_size, config.batch_size, views if config.loss.symmetric else views - 1)
    except UserError as error:
        return [str(error)]
    return []


def _teacher(config: ConfigDict) -> list[str]:
    problems, kind = [], config.teacher.kind
    if kind != "none" and config.objective != "contrastive":
        problems.append(f"teacher.kind is {kind!r}; allowed with objective {config.objective}: none")
    if kind in ("workdir", "stablehlo", "weights") and config.teacher.path is None:
        problems.append(f"teacher.path is None; allowed with teacher.kind {kind}: the path of the teacher")
    return problems


def _probe(config: ConfigDict) -> list[str]:
    if config.objective != "linear_probe" or config.model.weights is not None:
        return []
    return ["model.weights is None; allowed with objective linear_probe: the workdir or file of the encoder to judge"]


def _warmup(config: ConfigDict) -> list[str]:
    own = config.optimizer
    in_epochs = (config.steps, config.images, own.warmup_steps, own.warmup_images) == (None,) * 4
    if in_epochs and own.warmup_epochs > config.epochs:
        return [f"optimizer.warmup_epochs is {own.warmup_epochs:g}; allowed: up to epochs ({config.epochs:g})"]
    if config.steps is not None and own.warmup_steps is not None and own.warmup_steps > config.steps:
        return [f"optimizer.warmup_steps is {own.warmup_steps}; allowed: up to steps ({config.steps})"]
    return []


def _averages(config: ConfigDict) -> list[str]:
    own = config.optimizer
    if own.name not in ("adam", "adamw", "rmsprop"):
        return []
    return [
        f"optimizer.{field} is {own[field]:g}; allowed with {own.name}: from 0 to below 1"
        for field in ("second_momentum", *(("momentum",) if own.name != "rmsprop" else ()))
        if own[field] >= 1
    ]


# Which fields a combination is of, and what is wrong with it.
COMBINATIONS: tuple[tuple[tuple[str, ...], Callable[[ConfigDict], list[str]]], ...] = (
    (("objective", "augment.num_views"), _views),
    (
        ("objective", "augment.num_views", "loss.mode", "loss.symmetric", "momentum_encoder.queue_size", "batch_size"),
        _queue,
    ),
    (("objective", "teacher.kind", "teacher.path"), _teacher),
    (("objective", "model.weights"), _probe),
    (
        (
            "epochs", "steps", "images", "optimizer.warmup_epochs", "optimizer.warmup_steps", "optimizer.warmup_images",
        ),
        _warmup,
    ),
    (("optimizer.name", "optimizer.momentum", "optimizer.second_momentum"), _averages),
)  # fmt: skip


def hint(name: str) -> str:
    """What to say after an unknown field's name: the nearest one, or where to look."""
    close = difflib.get_close_matches(name, RULES, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else "; see configs/common.py for all fields"


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError("\n".join(problems))
