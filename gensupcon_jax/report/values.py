"""Values of unknown type as numbers and as short printable text."""

import math
from typing import Any

import numpy as np

NAME_LENGTH = 32  # longer class names are truncated


def is_number(value: Any) -> bool:
    """Whether it is a Python or NumPy number, except True and False."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def number(value: Any) -> float:
    """The value as a float; NaN if it is not a number (JSON writes NaN as null)."""
    return float(value) if is_number(value) else math.nan


def whole(value: Any) -> int:
    """A count as an int; 0 if it is not a positive number."""
    value = number(value)
    return int(value) if math.isfinite(value) and value > 0 else 0


def clean(text: Any) -> str:
    """Printable text on one line, with single spaces."""
    return " ".join(printable(text).split())


def printable(text: Any) -> str:
    """Text without control or direction-changing characters, which could garble the page."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def shown(value: Any) -> str:
    """A value as text on one line: floats with six digits, NaN in words."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}" if math.isfinite(value) else "not a finite number"
    return "none" if value is None else clean(value)


def signed(value: float) -> str:
    """A difference with its sign: 1.25 -> "+1.2"."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def ending(path: str, length: int = 30) -> str:
    """The last parts of a long path, which tell files apart: "/data/trees/ash/1.png" -> "…/ash/1.png"."""
    if len(path) <= length:
        return path
    kept, parts = "", path.split("/")
    while parts and len(kept) + len(parts[-1]) + 2 <= length:
        kept = f"/{parts.pop()}{kept}"
    return f"…{kept or path[1 - length :]}"


def short(name: str, length: int = NAME_LENGTH) -> str:
    """The name, truncated to `length` characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def duration(seconds: Any) -> str:
    """58.2 -> "58 s", 5000 -> "1 h 23 min"; empty if it is not a number."""
    seconds = number(seconds)
    if not math.isfinite(seconds):
        return ""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
