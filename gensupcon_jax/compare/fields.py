"""The config fields and data in which runs differ."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gensupcon_jax.compare.runs import ComparedRun
from gensupcon_jax.configs.fields import FIELDS

ABSENT = "absent"  # a field of another version of the program
# Of dataset.json: what the config does not say.
_OF_THE_DATA = (
    "num_train",
    "num_validation",
    "num_test",
    "image_shape",
    "num_damaged",
    "fingerprint",
    "teacher",
    "weights",
)


class Difference(NamedTuple):
    """A dotted field, and its value in each run, as text."""

    field: str
    values: tuple[str, ...]


def differences(runs: Sequence[ComparedRun]) -> list[Difference]:
    """The config fields, and then the properties of the data, whose values are not the same in all runs.

    A field that a run does not have, as another version made it, counts as its default.
    """
    data = [{f"data: {name}": run.dataset[name] for name in _OF_THE_DATA if name in run.dataset} for run in runs]
    return [*_differing([run.config for run in runs], completed=True), *_differing(data, completed=False)]


def new_fields(runs: Sequence[ComparedRun]) -> list[str]:
    """The fields that some runs do not have, and that have their default in all others."""
    told = {row.field for row in _differing([run.config for run in runs], completed=True)}
    return [row.field for row in _differing([run.config for run in runs], completed=False) if row.field not in told]


def num_equal_fields(runs: Sequence[ComparedRun]) -> int:
    """The number of config fields that are the same in all runs."""
    configs = [run.config for run in runs]
    return len(_all_names(configs)) - len(_differing(configs, completed=False))


def settled(run: ComparedRun) -> dict[str, str]:
    """The config fields that have not their default, and the properties of the data: equal for runs that do the same."""
    told = {name: _text(value) for name, value in run.config.items() if _text(value) != _default(name)}
    return told | {f"data: {name}": _text(run.dataset[name]) for name in _OF_THE_DATA if name in run.dataset}


def _differing(contents: Sequence[dict[str, Any]], *, completed: bool) -> list[Difference]:
    """completed: an absent field is no difference to its default."""
    rows = []
    for name in _all_names(contents):
        values = tuple(_text(content[name]) if name in content else ABSENT for content in contents)
        is_new = completed and set(values) == {ABSENT, _default(name)}
        if len(set(values)) > 1 and not is_new:
            rows.append(Difference(name, values))
    return rows


def _default(name: str) -> str | None:
    return _text(FIELDS[name].default) if name in FIELDS else None


def _all_names(contents: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for content in contents for name in content))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(_text, value)) + ")"
    if isinstance(value, float):
        return f"{value:g}" if value == float(f"{value:g}") else repr(value)
    return "none" if value is None else str(value)
