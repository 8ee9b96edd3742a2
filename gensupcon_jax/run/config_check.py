"""Checks of a config: each field by its declared rule, then combinations; all problems are reported together."""

import collections
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gensupcon_jax.cluster.sharding import local_batch_size
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.configs.rules import Rule
from gensupcon_jax.data.datasets import SOURCES
from gensupcon_jax.data.input_pipeline import steps_per_epoch
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.measures import MEASURES
from gensupcon_jax.method.key_queue import num_slots
from gensupcon_jax.method.optimizer import OPTIMIZERS
from gensupcon_jax.models import ENCODERS
from gensupcon_jax.run.class_similarity import MATRIX
from gensupcon_jax.run.field_names import hint
from gensupcon_jax.similarities import LABEL_SIMILARITIES
from gensupcon_jax.text import flatten

_FROM_A_FILE: dict[str, Any] = {MATRIX: None}

# The tables that a field may take its names from, see `rules.Named`; they are read when a config is checked.
TABLES: Mapping[str, Iterable[str]] = {
    "encoders": ENCODERS,
    "label similarities": collections.ChainMap(_FROM_A_FILE, LABEL_SIMILARITIES),
    "measures": MEASURES,
    "optimizers": OPTIMIZERS,
    "sources": SOURCES,
}

# The sources of ours that have no columns; one that is added from outside may have them.
_WITHOUT_COLUMNS = ("digits", "digit_pairs", "rotated_digits", "tfds", "folder", "arrays")
_LARGEST_BLOCK = 65_536  # that a message suggests: the search for all divisors of 10^30 would take forever


def rule_of(name: str) -> Rule:
    """The rule of a field, with the names that the tables hold now."""
    return FIELDS[name].allowed.resolved(TABLES)


def refusal(name: str, value: Any) -> str | None:
    """What the field allows, in words, if it does not allow this value; else None."""
    rule = rule_of(name)
    return None if rule.allows(value) else rule.words


def check_config(config: ConfigDict) -> None:
    """UserError with a line for each field that is unknown, missing or not allowed, and each combination that is not.

    A combination is checked when each of its fields alone is allowed.
    """
    fields = flatten(config.to_dict())
    problems = [f"{name} is not a field of the config{hint(name)}" for name in fields if name not in FIELDS]
    problems += [f"{name} is missing; start from configs/common.py" for name in FIELDS if name not in fields]
    refused = {name: allowed for name in FIELDS if name in fields and (allowed := refusal(name, fields[name]))}
    problems += [f"{name} is {fields[name]!r}; allowed: {allowed}" for name, allowed in refused.items()]
    bad = {name for name in FIELDS if name in refused or name not in fields}
    for names, combination in COMBINATIONS:
        if not bad.intersection(names):
            problems += combination(config)
    _raise(problems)


def check_devices(config: ConfigDict, num_devices: int) -> None:
    """UserError with a line for each field that does not fit this number of devices; needs no data."""
    _raise(_device_problems(config, num_devices))


def check_combinations(config: ConfigDict, num_train_images: int, num_devices: int) -> None:
    """UserError with a line for each field that does not fit this number of images and devices."""
    problems = _device_problems(config, num_devices)
    try:
        steps_per_epoch(num_train_images, config.batch_size)
    except UserError as error:
        problems.append(str(error))
    _raise(problems)


def _device_problems(config: ConfigDict, num_devices: int) -> list[str]:
    try:
        local = local_batch_size(config.batch_size, num_devices)
    except UserError as error:
        return [str(error)]
    problems = _exchange_problems(config, num_devices, local) + _microbatch_problems(config, local)
    if config.mix.kind == "none" or local % config.mix.block == 0:
        return problems
    if local == 1:
        return [
            *problems,
            f"mix.kind is {config.mix.kind!r}, but 1 image per device has no partner to mix with; allowed: raise batch_size "
            f"({config.batch_size}) to {2 * num_devices} or more, or set mix.kind to none",
        ]
    divisors = [size for size in range(2, min(local, _LARGEST_BLOCK) + 1) if local % size == 0]
    return [
        *problems,
        f"mix.block is {config.mix.block}, which does not divide the {local} images per device; "
        f"allowed: {', '.join(map(str, divisors[-8:]))}",
    ]


def _microbatch_problems(config: ConfigDict, local: int) -> list[str]:
    if local % config.microbatches == 0:
        return []
    divisors = [parts for parts in range(1, min(local, _LARGEST_BLOCK) + 1) if local % parts == 0]
    return [
        f"microbatches is {config.microbatches}, which does not divide the {local} images per device; "
        f"allowed: {', '.join(map(str, divisors[:8]))}"
    ]


def _exchange_problems(config: ConfigDict, num_devices: int, local: int) -> list[str]:
    """Keys change devices in equal parts where BatchNorm's statistics are per device, see `Momentum.shuffle_devices`."""
    is_exchanged = (
        config.objective == "contrastive" and config.loss.mode == "momentum" and config.model.batch_norm == "local"
    )
    if not is_exchanged or local % num_devices == 0:
        return []
    squared = num_devices**2
    return [
        f"batch_size is {config.batch_size}, so {local} keys per device cannot be spread over {num_devices} devices in equal "
        f"parts, which model.batch_norm local needs with loss.mode momentum; allowed: a multiple of {squared}, such as "
        f"{-(-config.batch_size // squared) * squared}, or model.batch_norm sync"
    ]


def _views(config: ConfigDict) -> list[str]:
    views = config.augment.num_views
    if config.objective != "contrastive" or views >= 2:
        return []
    return [f"augment.num_views is {views}; allowed with objective contrastive: 2 or more"]


def _local_views(config: ConfigDict) -> list[str]:
    found = config.augment.local_views
    if found == 0:
        return []
    if config.objective != "contrastive":
        return [f"augment.local_views is {found}; allowed with objective {config.objective}: 0"]
    if config.augment.policy == "none":
        return [f"augment.local_views is {found}; allowed with augment.policy none, which has no crops: 0"]
    return []


def _view_sizes(config: ConfigDict) -> list[str]:
    sizes, epochs = config.augment.sizes, tuple(config.augment.size_epochs)
    needed = 0 if sizes is None else len(sizes) - 1
    if len(epochs) != needed:
        found = "None" if sizes is None else f"{tuple(sizes)}"
        return [
            f"augment.size_epochs is {epochs}; allowed with augment.sizes {found}: {needed} numbers, one for each size but the "
            "first"
        ]
    if any(later <= earlier for earlier, later in itertools.pairwise(epochs)):
        return [f"augment.size_epochs is {epochs}; allowed: ascending numbers"]
    return []


def _queue(config: ConfigDict) -> list[str]:
    views = config.augment.num_views
    if config.objective != "contrastive" or config.loss.mode != "momentum" or views < 2:
        return []
    try:
        num_slots(config.momentum_encoder.queue_size, config.batch_size, views if config.loss.symmetric else views - 1)
    except UserError as error:
        return [str(error)]
    return []


def _queue_labels(config: ConfigDict) -> list[str]:
    uses_queue = config.objective == "contrastive" and config.loss.mode == "momentum"
    if config.momentum_encoder.queue_labels or not uses_queue or config.loss.denominator == "plain":
        return []
    return [
        f"momentum_encoder.queue_labels is False; allowed with loss.denominator {config.loss.denominator}, which counts the "
        "classes of all contrasts: True"
    ]


def _contrasts(config: ConfigDict) -> list[str]:
    has_queue = config.loss.mode == "momentum" and config.momentum_encoder.queue_size > 0
    if config.objective != "contrastive" or config.batch_size > 1 or has_queue:
        return []
    return [
        "batch_size is 1: an image has no others to be compared with; allowed with objective contrastive: 2 or more, or "
        "loss.mode momentum with momentum_encoder.queue_size above 0"
    ]


def _teacher(config: ConfigDict) -> list[str]:
    problems, kind = [], config.teacher.kind
    if kind != "none" and config.objective == "linear_probe":
        problems.append(f"teacher.kind is {kind!r}; allowed with objective {config.objective}: none")
    if kind in ("workdir", "stablehlo", "weights") and config.teacher.path is None:
        problems.append(f"teacher.path is None; allowed with teacher.kind {kind}: the path of the teacher")
    return problems


def _microbatches(config: ConfigDict) -> list[str]:
    if config.objective != "linear_probe" or config.microbatches == 1:
        return []
    return [
        f"microbatches is {config.microbatches}; allowed with objective linear_probe: 1, as it keeps no activations"
    ]


def _prototypes(config: ConfigDict) -> list[str]:
    if not config.prototypes.use:
        return []
    problems = []
    if config.objective != "contrastive":
        problems.append(f"prototypes.use is True; allowed with objective {config.objective}: False")
    if config.classifier.beside:
        problems.append(
            "classifier.beside is True; allowed with prototypes.use, as prototypes are the classifier: False"
        )
    if config.teacher.kind != "none" and config.teacher.weight == float("inf"):
        problems.append(
            "teacher.weight is inf, so prototypes would learn their classes from the teacher alone; allowed with prototypes.use: "
            "a finite number"
        )
    return problems


def column_problems(config: ConfigDict) -> list[str]:
    """A problem for each column that is named, where the data set is one of ours that has none."""
    name = config.dataset.name
    if (
        name == "arrays" or name.partition(":")[0] not in _WITHOUT_COLUMNS
    ):  # data that were read before are handed over as arrays
        return []
    fields = ("path_column", "label_columns", "split_column")
    return [
        f"dataset.{field} is {config.dataset[field]!r}, but dataset.name is {name!r}, which is no list of images; allowed: None, "
        "or csv:<file> or parquet:<file>"
        for field in fields
        if config.dataset[field] is not None
    ]


def _other_kinds(config: ConfigDict) -> list[str]:
    """What chooses one class per image is refused where images have several labels; what leaves out classes, for numbers too."""
    kind = config.dataset.label_kind
    of_values = {"dataset.imbalance_factor": (None, "its bins are no classes of which some are rare")}
    of_several = {
        "dataset.sampling": ("uniform", "images are drawn by their class"),
        "dataset.imbalance_factor": (None, "images are left out by their class"),
        "prototypes.use": (
            False,
            "its centers compete for one class per image; classifier.beside=True scores each label",
        ),
    }
    wanted = {"several": of_several, "value": of_values}.get(kind, {})
    found = {name: config[name.split(".")[0]][name.split(".")[1]] for name in wanted}
    return [
        f"{name} is {found[name]!r}; allowed with dataset.label_kind {kind}: {allowed} ({why})"
        for name, (allowed, why) in wanted.items()
        if found[name] != allowed
    ]


def _probe(config: ConfigDict) -> list[str]:
    if config.objective != "linear_probe" or config.model.weights is not None:
        return []
    return [
        "model.weights is None; allowed with objective linear_probe: the workdir or file of the encoder to evaluate"
    ]


def _normalization(config: ConfigDict) -> list[str]:
    given, missing = ("mean", "std") if config.model.std is None else ("std", "mean")
    if (config.model.mean is None) == (config.model.std is None):
        return []
    return [
        f"model.{missing} is None; allowed with model.{given} {config.model[given]!r}: numbers, one for each channel"
    ]


def _steps_of_sources(config: ConfigDict) -> list[str]:
    problems, kind = [], config.teacher.kind
    if config.model.weights is None and config.model.weights_step is not None:
        problems.append(f"model.weights_step is {config.model.weights_step!r}; allowed without model.weights: None")
    if kind != "workdir" and config.teacher.weights_step is not None:
        problems.append(
            f"teacher.weights_step is {config.teacher.weights_step!r}; allowed with teacher.kind {kind}: None"
        )
    return problems


def _averages(config: ConfigDict) -> list[str]:
    own = config.optimizer
    if own.name not in ("adam", "adamw", "rmsprop"):
        return []
    return [
        f"optimizer.{field} is {own[field]:g}; allowed with {own.name}: from 0 to below 1"
        for field in ("second_momentum", *(("momentum",) if own.name != "rmsprop" else ()))
        if own[field] >= 1
    ]


def _use_labels(config: ConfigDict) -> list[str]:
    if config.loss.use_labels:
        return []
    found = "loss.use_labels is False"
    if config.objective != "contrastive":
        return [f"{found}; allowed with objective {config.objective}: True"]
    users = [name for name in ("prototypes.use", "classifier.beside") if config[name.split(".")[0]][name.split(".")[1]]]
    if users and config.teacher.kind == "none":
        return [f"{found}, so no image says its class; allowed with {users[0]} and without a teacher: True"]
    return []


def _spikes(config: ConfigDict) -> list[str]:
    fields = config.optimizer
    if not fields.spike_deviations or fields.max_skipped_steps:
        return []
    return [
        f"optimizer.spike_deviations is {fields.spike_deviations!r}, but optimizer.max_skipped_steps is 0, so that the first "
        "spike would end the run; allowed: optimizer.max_skipped_steps from 1, or optimizer.spike_deviations=0"
    ]


# The fields of each combination, and the function that returns its problems.
COMBINATIONS: tuple[tuple[tuple[str, ...], Callable[[ConfigDict], list[str]]], ...] = (
    (("objective", "augment.num_views"), _views),
    (("augment.sizes", "augment.size_epochs"), _view_sizes),
    (("objective", "augment.local_views", "augment.policy"), _local_views),
    (
        ("objective", "augment.num_views", "loss.mode", "loss.symmetric", "momentum_encoder.queue_size", "batch_size"),
        _queue,
    ),
    (("objective", "loss.mode", "momentum_encoder.queue_labels", "loss.denominator"), _queue_labels),
    (("objective", "loss.mode", "momentum_encoder.queue_size", "batch_size"), _contrasts),
    (("objective", "teacher.kind", "teacher.path"), _teacher),
    (("prototypes.use", "objective", "classifier.beside", "teacher.kind", "teacher.weight"), _prototypes),
    (("dataset.label_kind", "dataset.sampling", "dataset.imbalance_factor", "prototypes.use"), _other_kinds),
    (("dataset.name", "dataset.path_column", "dataset.label_columns", "dataset.split_column"), column_problems),
    (("objective", "model.weights"), _probe),
    (("loss.use_labels", "objective", "prototypes.use", "classifier.beside", "teacher.kind"), _use_labels),
    (("objective", "microbatches"), _microbatches),
    (("model.mean", "model.std"), _normalization),
    (("model.weights", "model.weights_step", "teacher.kind", "teacher.weights_step"), _steps_of_sources),
    (("optimizer.spike_deviations", "optimizer.max_skipped_steps"), _spikes),
    (("optimizer.name", "optimizer.momentum", "optimizer.second_momentum"), _averages),
)


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError("\n".join(problems))
