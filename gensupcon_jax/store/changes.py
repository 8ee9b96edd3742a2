"""What may differ between the config in a workdir and that of the next start, and the history of what did."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gensupcon_jax.configs.fields import FIELDS, FIXED, FREE, LONGER, SAME_CONTENT
from gensupcon_jax.extension import Extension
from gensupcon_jax.json_files import brief
from gensupcon_jax.text import flatten, listed

ABSENT = "absent"  # in place of a value that is not there
_MOST_SHOWN = 12  # differences in a message
NAME = "name"  # of the data in dataset.json: it may hold a path

# Dotted name -> (value there, value now).
Differences = dict[str, tuple[Any, Any]]


class Start(NamedTuple):
    """A start with another config than the one before.

    time: of this machine.  step: of the newest checkpoint.  command: what was typed.  fields: that changed.
    extension: by which the run became longer, as a list, or None.
    """

    time: str
    step: int
    command: str
    fields: dict[str, list[Any]]
    extension: list[Any] | None = None


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Differences:
    """The dotted fields whose values are not the same, as JSON writes them."""
    wanted, found = flatten(json.loads(json.dumps(wanted))), flatten(dict(found))
    pairs = {name: (found.get(name, ABSENT), wanted.get(name, ABSENT)) for name in sorted(wanted | found)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def allowed(found: Differences, config: Mapping[str, Any], *, same_content: bool, is_extended: bool) -> Differences:
    """Those differences of a config that leave every step as it is.

    same_content: of data, teacher and weights, by their fingerprints.  is_extended: the run is finished, and becomes longer.
    """
    kinds = {FREE} | ({SAME_CONTENT} if same_content else set()) | ({LONGER} if is_extended else set())
    return {
        name: pair
        for name, pair in found.items()
        if ABSENT not in pair
        and _may_change(name) in kinds
        and (name != "dataset.name" or _is_read_alike(*pair, flatten(dict(config))))
    }


def training_of(config: Mapping[str, Any], *, with_length: bool = True) -> dict[str, Any]:
    """The fields on which the training depends, flat.  with_length: also those of its duration."""
    left_out = {FREE, SAME_CONTENT} if with_length else {FREE, SAME_CONTENT, LONGER}
    return {name: value for name, value in flatten(dict(config)).items() if _may_change(name) not in left_out}


def there_and_now(found: Differences) -> str:
    """The differences for a message: seed (0 there, 1 now); the first few of many."""
    pairs = [f"{name} ({brief(there)} there, {brief(now)} now)" for name, (there, now) in found.items()]
    return listed(pairs, _MOST_SHOWN)


def notes_on_changes(start: Start) -> list[str]:
    """What a start changed, a sentence for each field."""
    return [f"{name} is {now!r} from here on; it was {before!r}" for name, (before, now) in start.fields.items()]


def new_start(found: Differences, *, step: int, command: str, extension: Extension | None) -> Start:
    """The entry of a start now."""
    time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    fields = {name: list(pair) for name, pair in found.items()}
    return Start(time, step, command, fields, None if extension is None else list(extension))


def that_were_written(history: Sequence[Start], config: Mapping[str, Any]) -> list[Start]:
    """The history without a last entry that did not come to be: a kill fell before its values were in config.json."""
    flat = flatten(dict(config))
    if history and any(flat.get(name, ABSENT) != now for name, (_, now) in history[-1].fields.items()):
        return list(history[:-1])
    return list(history)


def extensions_of(history: Sequence[Start]) -> tuple[Extension, ...]:
    """By which the run became longer, in turn."""
    return tuple(Extension(*start.extension) for start in history if start.extension is not None)


def _may_change(name: str) -> str:
    return FIELDS[name].may_change if name in FIELDS else FIXED


def _is_read_alike(there: str, now: str, config: Mapping[str, Any]) -> bool:
    """Whether only the path differs; "auto" takes the policy of a data set by its name."""
    from gensupcon_jax.views.augment import choose_auto_policy  # here, as commands that only compare runs need no jax

    policies = {choose_auto_policy(config["augment.auto_policy"], name, image_size=1) for name in (there, now)}
    return there.partition(":")[0] == now.partition(":")[0] and (
        config["augment.policy"] != "auto" or len(policies) == 1
    )
