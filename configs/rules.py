"""Rules for the values of fields: each describes itself in words, checks a value, and lists values around its bounds."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Number = float | int
NAN, INF = float("nan"), float("inf")
_LARGEST = sys.float_info.max


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule for the values of a field.

    words: for messages and the docs.  allows(value) -> bool.  good, bad: values for tests, close to the bounds.
    names: the allowed names, if it is a choice.
    """

    words: str
    allows: Callable[[Any], bool]
    good: tuple[Any, ...]
    bad: tuple[Any, ...]
    names: tuple[str, ...] = ()

    def resolved(self, tables: Mapping[str, Iterable[str]]) -> "Rule":
        """The rule itself, as it does not depend on a table."""
        return self


@dataclasses.dataclass(frozen=True)
class Named:
    """A name of one of the package's tables {name: builder}, which users may extend; with is_list, any number of its names."""

    table: str
    is_list: bool = False

    def resolved(self, tables: Mapping[str, Iterable[str]]) -> Rule:
        """The choice among the current names of the table."""
        one = choice(*tables[self.table])
        return none_or_more(one) if self.is_list else one


def choice(*names: str) -> Rule:
    """One of the names; `tfds:<name>` means any text that starts with `tfds:` and has more."""
    exact = {name for name in names if "<" not in name}
    prefixes = [name.partition("<")[0] for name in names if "<" in name]

    def allows(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        prefixed = (value.removeprefix(prefix) for prefix in prefixes if value.startswith(prefix))
        return value in exact or any(rest.strip() for rest in prefixed)

    good = tuple(name.replace("<", "").replace(">", "") for name in names)
    return Rule(", ".join(names), allows, good, ("nonsense", 3, *prefixes), names)


def integer(low: int, high: int | None = None) -> Rule:
    """A whole number within bounds, both included."""
    words = f"a whole number from {low}" + ("" if high is None else f" to {high}")

    def allows(value: Any) -> bool:
        return is_number(value) and isinstance(value, int) and low <= value and (high is None or value <= high)

    good = (low, low + 1, low + 2, 16, 97) if high is None else (low, low + 1, high)
    return Rule(words, allows, good, (low - 1, low + 0.5, "many", *(() if high is None else (high + 1,))))


def number(low: Number, high: Number | None = None) -> Rule:
    """A finite number within bounds, both included."""
    words = f"a number from {low:g}" + ("" if high is None else f" to {high:g}")

    def allows(value: Any) -> bool:
        return is_number(value) and low <= value and (high is None or value <= high)

    good = (low, low + 1, 1e9) if high is None else (low, (low + high) / 2, high)
    return Rule(words, allows, good, (low - 0.01, NAN, INF, *(() if high is None else (high + 0.01,))))


def above(low: Number, *, below: Number | None = None, up_to: Number | None = None) -> Rule:
    """A finite number above one bound, and below or up to another."""
    ends = {" and below": below, " up to": up_to}
    words = f"a number above {low:g}" + "".join(f"{end} {high:g}" for end, high in ends.items() if high is not None)

    def allows(value: Any) -> bool:
        return (
            is_number(value) and low < value and (below is None or value < below) and (up_to is None or value <= up_to)
        )

    if below is not None:
        return Rule(words, allows, (low + 1e-6, below - 1e-6), (low, below, NAN))
    if up_to is not None:
        return Rule(words, allows, (low + 1e-6, up_to), (low, up_to + 0.01, NAN))
    return Rule(words, allows, (low + 1e-6, low + 0.5, low + 100), (low, low - 1.0, NAN, INF))


def interval(low: Number, high: Number | None = None) -> Rule:
    """Two finite numbers, the smaller first, above a bound and up to another."""
    words = f"two numbers above {low:g}, the smaller first" + ("" if high is None else f", up to {high:g}")

    def allows(value: Any) -> bool:
        if not (isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))):
            return False
        return low < value[0] <= value[1] and (high is None or value[1] <= high)

    largest = low + 100 if high is None else high
    good = ((low + 1e-9, low + 1e-9), (low + 0.01, largest), [largest, largest])
    bad = ((low, largest), (low + 0.2, low + 0.1), (largest,), (NAN, largest), largest, ())
    return Rule(words, allows, good, bad if high is None else (*bad, (high, high + 0.01)))


def several(rule: Rule) -> Rule:
    """One or more values of a rule, in parentheses."""

    def allows(value: Any) -> bool:
        return isinstance(value, tuple | list) and len(value) > 0 and all(map(rule.allows, value))

    words = f"one or more in parentheses, each {rule.words}"
    good = (rule.good[:1], rule.good[::-1], [*rule.good])
    return Rule(words, allows, good, ((), rule.bad[:1], (*rule.good, rule.bad[0]), rule.good[0]))


def none_or_more(rule: Rule) -> Rule:
    """Any number of values of a rule, in parentheses."""

    def allows(value: Any) -> bool:
        return isinstance(value, tuple | list) and all(map(rule.allows, value))

    words = f"none or more in parentheses, each one of {rule.words}"
    return Rule(words, allows, ((), rule.good[:1], [*rule.good]), (rule.bad[:1], rule.good[0], None))


def optional(rule: Rule) -> Rule:
    """A value of a rule, or None."""

    def allows(value: Any) -> bool:
        return value is None or rule.allows(value)

    return Rule(f"{rule.words}, or None", allows, (None, *rule.good), rule.bad, rule.names)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, not larger than a float can be; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _names_column(value: Any) -> bool:
    """Whether it is the name of a column; the command line reads 0,1 as two numbers."""
    return _is_text(value) or (isinstance(value, int) and not isinstance(value, bool))


def _are_channels(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) in (1, 3) and all(map(is_number, value))


FLAG = Rule("True or False", lambda value: isinstance(value, bool), (True, False), (0, 1, "yes"))
PATH = Rule("the path of a file or folder", _is_text, ("nowhere/at/all",), ("", " ", 3))
SPLIT_NAME = Rule("the name of a split", _is_text, ("train", "train[:90%]"), ("", " ", 3))
COLUMN = Rule("the name of a column", _is_text, ("label", "my label"), ("", " ", 3))
COLUMNS = Rule(
    "the name of a column, or several with commas between them",
    lambda value: (
        _is_text(value) or (isinstance(value, tuple | list) and len(value) > 0 and all(map(_names_column, value)))
    ),
    ("label", "cat,dog", "p_*", ("cat", "dog"), (0, 1)),
    ("", " ", 3, (), (None,), ("cat", "")),
)
CHANNELS = Rule(
    "1 or 3 numbers in parentheses, one for each channel",
    _are_channels,
    ((0.5,), (0.5, 0.4, 0.3), [0, 1, 1]),
    ((0.5, 0.5), (NAN,), "x", 0.5),
)
ONE_OR_THREE = Rule("1 or 3", lambda value: is_number(value) and value in (1, 3), (1, 3), (0, 2, 4, "3", 1.5))
RANGE = Rule(
    "two different numbers in parentheses, the smaller first",
    lambda value: (
        isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]
    ),
    ((-1.5, 2), [0, 100]),
    ((2, 1), (1, 1), (0,), (0, INF), 5, "0, 1"),
)
STEP = Rule(
    "last, best, or the number of a saved step",
    lambda value: value in ("last", "best") or (is_number(value) and isinstance(value, int) and value >= 0),
    ("last", "best", 0, 12),
    ("first", -1, 1.5, ""),
)
BELOW_ONE = Rule(
    "a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1, (0, 0.9), (1, -0.1, NAN)
)
WEIGHT = Rule(
    "a number from 0, or inf",
    lambda value: (is_number(value) and value >= 0) or value == INF,
    (0, 1, INF),
    (-1, NAN, -INF),
)
