"""Text for messages: reasons of errors, lists of names, aligned tables, dotted names of nested fields."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any


def reason(error: BaseException) -> str:
    """The reason of an error: the message of the system, else the first line of its text, else its type."""
    return getattr(error, "strerror", None) or (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(text: object) -> str:
    """The text on one line, with single spaces."""
    return " ".join(str(text).split())


def visible(text: Any) -> str:
    r"""The text with control characters, line breaks and bytes that are not UTF-8 as escapes: "a\nb" is a, \n, b."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in str(text)
    )


def counted(number: int, noun: str) -> str:
    """1, "image" -> "1 image"; 1200, "image" -> "1,200 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[Any], most: int = 5) -> str:
    """The first few names: "a, b, c, and 4 more"."""
    names = [visible(name) for name in names]
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def common_start(texts: Collection[str]) -> str:
    """The longest text with which all of these begin, letter by letter."""
    first, last = min(texts), max(texts)  # those between them begin with what these two share
    differing = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, len(first))]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table as text, its columns two spaces apart: those in `left` are aligned left, the others right."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one: {"loss": {"mode": "all"}} -> {"loss.mode": "all"}."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
