"""What config.json, dataset.json and results.json of a workdir may hold, each field declared once."""

from collections.abc import Mapping
from typing import Any

from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.configs.rules import FLAG, STEP, Rule, above, integer, optional
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import (
    COUNT,
    NUMBER,
    OBJECT,
    OF_IMAGES,
    SIDE,
    TEXT,
    TEXTS,
    brief,
    check_channels,
    check_fields,
)
from gensupcon_jax.paths import Path
from gensupcon_jax.score_names import SCORE_NAMES
from gensupcon_jax.text import flatten

# A name of a table is checked where it is looked up, as users may add to the tables.
_OF_CONFIG = {
    name: field.allowed if isinstance(field.allowed, Rule) else TEXTS if field.allowed.is_list else TEXT
    for name, field in FIELDS.items()
}
_SECTIONS = sorted({name.partition(".")[0] for name in FIELDS if "." in name})
_OF_DATA = OF_IMAGES | {
    "name": TEXT,
    "num_train": COUNT,
    "num_validation": COUNT,
    "num_test": COUNT,
    "num_damaged": COUNT,
    "stored_size": optional(SIDE),
    "encoded": FLAG,
    "fingerprint": TEXT,
    "weights_step": optional(STEP),
}
_OF_RESULTS = {
    "steps": optional(COUNT),
    "best_step": optional(COUNT),
    "step": optional(COUNT),
    "num_validation": optional(COUNT),
    "num_test": optional(COUNT),
    "knn_neighbors": optional(integer(1)),
    "linear_penalty": optional(above(0)),
    "label_kind": OF_IMAGES["label_kind"],
    "best": optional(OBJECT),
}


def _are_pairs(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(pair, list) and len(pair) == 2 for pair in value.values())


def _is_extension(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3 or not all(map(COUNT.allows, value[:2])):
        return False
    return 0 < value[0] < value[1] and isinstance(value[2], str) and _OF_CONFIG["optimizer.extension"].allows(value[2])


_OF_START = {
    "time": TEXT,
    "step": COUNT,
    "command": TEXT,
    "fields": Rule("fields with a value before and after", _are_pairs, ({}, {"a": [1, 2]}), ([], {"a": 1}, {"a": [1]})),
    "extension": optional(
        Rule(
            "first step, last step, and how",
            _is_extension,
            ([4, 8, "constant"],),
            ([], [4, 8], [4, 8, 1], [4, 8, "other"], [8, 4, "constant"], [0, 4, "constant"]),
        )
    ),
}
_SCORES = tuple(f"_{score.key}" for score in SCORE_NAMES.values())


def check_saved_config(found: Mapping[str, Any], *, where: Path, remedy: str) -> None:
    """UserError for the first section or field of a config that is not as declared; those that are unknown are left alone."""
    for section in _SECTIONS:
        if not isinstance(found.get(section, {}), dict):
            raise UserError(
                f"{where}: {section} is {brief(found[section])}; allowed: an object with its fields; {remedy}"
            )
    check_fields(flatten(found), _OF_CONFIG, (), where=where, remedy=remedy)


def check_data(found: Mapping[str, Any], *, where: Path, remedy: str) -> None:
    """The same for the description of the data."""
    check_fields(found, _OF_DATA, (), where=where, remedy=remedy)
    if "image_shape" in found:
        check_channels(found, where=where, remedy=remedy)


def check_history(found: Mapping[str, Any], *, where: Path, remedy: str) -> None:
    """The same for the history of changes, a list of starts."""
    starts = found.get("starts")
    if not isinstance(starts, list) or not all(
        isinstance(each, dict) and each.keys() <= _OF_START.keys() for each in starts
    ):
        raise UserError(f"{where} cannot be read (it is not a history of changes); {remedy}")
    for start in starts:
        check_fields(start, _OF_START, ("time", "step", "command", "fields"), where=where, remedy=remedy)


def check_results(found: Mapping[str, Any], *, where: Path, remedy: str) -> None:
    """The same for results, of the last step and of the best."""
    for numbers in (found, found.get("best") or {}):
        scores = {
            name: optional(NUMBER) for name in numbers if name.endswith(_SCORES) and not name.startswith("per_class")
        }
        check_fields(numbers, _OF_RESULTS | scores, (), where=where, remedy=remedy)
