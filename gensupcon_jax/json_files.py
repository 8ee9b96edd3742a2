"""JSON files: any damage is one kind of error, and the values of their fields follow rules, each declared once."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gensupcon_jax.configs.rules import Number, Rule, choice, integer, is_number, optional
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, failures
from gensupcon_jax.text import one_line, visible

Rules = Mapping[str, Rule]
_SHOWN = 60  # letters of a value in a message
_MOST_PIXELS = 4096  # per side of an image: more is damage, and its network would fill the memory


def parsed(content: str | bytes) -> Any:
    """The value in a text; ValueError, in one line, for what is not UTF-8, not JSON, or nested deeper than Python reads.

    >>> parsed('{"step": 4}')
    {'step': 4}
    """
    try:
        return json.loads(content.decode() if isinstance(content, bytes) else content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_object(path: Path, remedy: str, rules: Rules | None = None, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file; UserError with the remedy if it is damaged, or if a field is not as its rule allows.

    rules: of fields that need not be there.  needed: fields that must be.
    """
    try:
        found = parsed(path.read_bytes())
    except (*failures(), ValueError) as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({visible(one_line(error))}); {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} cannot be read (it contains {type(found).__name__}, not a JSON object); {remedy}")
    check_fields(found, rules or {}, needed, where=path, remedy=remedy)
    return found


def check_fields(
    found: Mapping[str, Any], rules: Rules, needed: Sequence[str], *, where: Path | str, remedy: str
) -> None:
    """UserError that names the first field that is missing, or not as its rule allows."""
    missing = [name for name in needed if name not in found]
    if missing:
        raise UserError(f"{where} does not say {', '.join(missing)}; {remedy}")
    for name, value in found.items():
        if name in rules and not rules[name].allows(value):
            raise UserError(f"{where}: {visible(name)} is {brief(value)}; allowed: {rules[name].words}; {remedy}")


def brief(value: Any) -> str:
    """A value in a message: on one line, and not longer than a few words."""
    text = visible(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(each, str) for each in found)


def _are_numbers(low: Number) -> Any:
    return lambda value: (
        isinstance(value, list)
        and len(value) in (1, 3)
        and all(is_number(each) and low <= each <= 1e6 for each in value)
    )


def _is_image_shape(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 3 and all(SIDE.allows(side) for side in value[:2])):
        return False
    return value[0] == value[1] and is_number(value[2]) and value[2] in (1, 3)


def _are_bins(value: Any) -> bool:
    if not (
        isinstance(value, dict) and all(is_number(value.get(name)) for name in ("low", "high", "num_bins", "width"))
    ):
        return False
    return (
        value["low"] < value["high"]
        and value["width"] > 0
        and isinstance(value["num_bins"], int)
        and value["num_bins"] > 0
    )


NUMBER = Rule("a number", is_number, (0, -1.5, 1e9), ("1", None, True, float("nan"), 10**400))
TEXT = Rule("a text", lambda value: isinstance(value, str), ("", "a"), (1, None, ["a"]))
TEXTS = Rule("a list of texts", _are_texts, ([], ["a"]), ("a", [1], None, {"a": 1}))
OBJECT = Rule("an object", lambda value: isinstance(value, dict), ({}, {"a": 1}), ([], None, "a"))
COUNT = integer(0, 10**12)
SIDE = integer(1, _MOST_PIXELS)

# What is said of images, of a data set as of an exported encoder.
OF_IMAGES: dict[str, Rule] = {
    "image_shape": Rule(
        f"height and width, the same and up to {_MOST_PIXELS}, and 1 or 3 channels",
        _is_image_shape,
        ([8, 8, 1], [224, 224, 3]),
        ([8, 8], [8, 9, 1], [8, 8, 2], [8.0, 8.0, 1], [[8], 8, 1], [10**6, 10**6, 3], "8", None),
    ),
    "mean": Rule(
        "1 or 3 numbers, one for each channel",
        _are_numbers(-1e6),
        ([0.5], [0, 1, 1]),
        ([], [None], 0.5, ["1"], [1e300]),
    ),
    "std": Rule(
        "1 or 3 numbers from 0, one for each channel", _are_numbers(0), ([0.5], [0, 1, 1]), ([], [-1], 0.5, ["1"])
    ),
    "center_share": optional(
        Rule("a number above 0, up to 1", lambda value: is_number(value) and 0 < value <= 1, (0.875, 1), (0, 1.5, "1"))
    ),
    "class_names": TEXTS,
    "label_kind": optional(choice("class", "several", "value")),
    "bins": optional(
        Rule(
            "low, high, num_bins and width of bins",
            _are_bins,
            ({"low": 0.0, "high": 1.0, "num_bins": 10, "width": 0.1},),
            ({}, [], {"low": 1.0, "high": 0.0, "num_bins": 10, "width": 0.1}),
        )
    ),
}


def check_channels(found: Mapping[str, Any], *, where: Path | str, remedy: str) -> None:
    """UserError unless mean and std have a number for each channel of the images."""
    channels = found["image_shape"][2]
    for name in ("mean", "std"):
        if name in found and len(found[name]) != channels:
            raise UserError(
                f"{where}: {name} has {len(found[name])} numbers, and the images {channels} channels; {remedy}"
            )
