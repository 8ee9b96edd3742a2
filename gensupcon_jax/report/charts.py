"""Line charts as geometry: numbers and paths that the template draws as inline SVG in the colors of the page."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# In units of the view box: the page shows it 1 to 1.6 times as large, so that its letters stay readable on a phone.
WIDTH, HEIGHT = 360, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
_MOST_POINTS = 240  # of a curve; a longer one is drawn as the mean and the range of neighboring steps
_MARKED_POINTS = 40
_BOX = {
    "width": WIDTH, "height": HEIGHT, "left": _LEFT, "right": WIDTH - _RIGHT, "bottom": HEIGHT - _BOTTOM, "top": _TOP,
}  # fmt: skip


class Line(NamedTuple):
    """A curve: values that are not finite are gaps."""

    name: str
    steps: np.ndarray
    values: np.ndarray


class _Frame(NamedTuple):
    """The ranges of both axes."""

    left: float
    right: float
    low: float
    high: float

    def x(self, step: float) -> float:
        share = 0.5 if self.right == self.left else (step - self.left) / (self.right - self.left)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - _TOP - _BOTTOM), 1)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    first_color: int = 0,
    level: tuple[str, float] | None = None,
    from_zero: bool = False,
    most: float = math.inf,
    x_name: str = "step",
) -> dict[str, Any]:
    """Curves over the training steps, for the macro `chart` of figures.html.

    x_name: of the steps of the lines.  first_color: of the color cycle.  level: a named dashed line.
    from_zero: the scale begins at 0.  most: its end at the latest.
    """
    given = [level[1]] if level is not None and math.isfinite(level[1]) else []
    frame = _frame(lines, given, from_zero=from_zero)
    frame = frame._replace(high=min(frame.high, most) if frame.low < most else frame.high)
    return {
        "title": title,
        "alt": _in_words(title, lines, x_name),
        "x_name": x_name,
        "lines": [_drawn(line, frame, first_color + place) for place, line in enumerate(lines)],
        "x_ticks": [(frame.x(tick), tick_text(tick)) for tick in ticks(frame.left, frame.right, 5, whole=True)],
        "y_ticks": [(frame.y(tick), tick_text(tick)) for tick in ticks(frame.low, frame.high, 5)],
        "level": {"y": frame.y(level[1]), "name": level[0], "value": f"{level[1]:.3g}"} if given and level else None,
        **_BOX,
    }


def range_chart(title: str, ranges: Sequence[tuple[float, float, float, float]]) -> dict[str, Any]:
    """Bars from low to high with a mark at the middle, for the macro `ranges` of figures.html.

    ranges: (label similarity 0..1, low, middle, high), the last three are cosines.
    """
    lowest = math.floor(2 * min((low for _, low, _, _ in ranges), default=0.0)) / 2
    frame = _Frame(-0.05, 1.05, min(lowest, 0.5) - 0.04, 1.04)
    middles = ", ".join(f"{middle:.2f} at {place:g}" for place, _, middle, _ in ranges)
    return {
        "title": title,
        "alt": f"{title}: median latent similarity {middles}",
        "bars": [(frame.x(place), frame.y(low), frame.y(middle), frame.y(high)) for place, low, middle, high in ranges],
        "x_ticks": [(frame.x(tick), tick_text(tick)) for tick in (0.0, 0.25, 0.5, 0.75, 1.0)],
        "y_ticks": [(frame.y(tick), tick_text(tick)) for tick in ticks(frame.low, frame.high, 5)],
        **_BOX,
    }


def _frame(lines: Sequence[Line], given: Sequence[float], *, from_zero: bool) -> _Frame:
    steps = np.concatenate([line.steps for line in lines] or [np.zeros(0)])
    values = np.concatenate([line.values[np.isfinite(line.values)] for line in lines] + [np.asarray(given, float)])
    left, right = (float(steps.min()), float(steps.max())) if steps.size else (0.0, 1.0)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    space = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return _Frame(left, right, low if from_zero and low == 0 else low - space, high + space)


def _drawn(line: Line, frame: _Frame, color: int) -> dict[str, Any]:
    finite = np.isfinite(line.values)
    last = line.values[finite][-1] if finite.any() else None
    points = [
        (frame.x(step), frame.y(value)) for step, value in zip(line.steps[finite], line.values[finite], strict=True)
    ]
    entry = {
        "name": line.name,
        "color": f"c{color % 5}",
        "last": "no finite value" if last is None else f"{last:.4g}",
        "band": "",
        "dots": points if len(points) <= _MARKED_POINTS else [],
    }
    if finite.sum() <= _MOST_POINTS:
        return entry | {"path": _path(line.steps, line.values, frame)}
    centers, lows, means, highs = binned(line.steps[finite], line.values[finite], _MOST_POINTS // 2)
    upper = [f"{frame.x(step)} {frame.y(value)}" for step, value in zip(centers, highs, strict=True)]
    lower = [f"{frame.x(step)} {frame.y(value)}" for step, value in zip(centers, lows, strict=True)]
    return entry | {"path": _path(centers, means, frame), "band": f"M{'L'.join(upper + lower[::-1])}Z"}


def _path(steps: np.ndarray, values: np.ndarray, frame: _Frame) -> str:
    """The curve as a path of SVG; a new piece begins after a gap."""
    parts, is_open = [], False
    for step, value in zip(steps.tolist(), values.tolist(), strict=True):
        if math.isfinite(value):
            parts.append(f"{'L' if is_open else 'M'}{frame.x(step)} {frame.y(value)}")
        is_open = math.isfinite(value)
    return "".join(parts)


def binned(steps: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(center step, lowest, mean, highest value) of `count` runs of neighboring points."""
    groups = np.array_split(np.arange(len(values)), count)
    return (
        np.array([steps[group].mean() for group in groups]),
        np.array([values[group].min() for group in groups]),
        np.array([values[group].mean() for group in groups]),
        np.array([values[group].max() for group in groups]),
    )


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """At most `most` round numbers (1, 2 or 5 times a power of ten apart) from low to high.

    >>> ticks(0.0, 1.0, 3)
    [0.0, 0.5, 1.0]
    """
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    if whole:
        power = max(1.0, power)
    for width in (factor * power for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
        if last - first + 1 <= most:
            return [round(number * width, 10) for number in range(first, last + 1)]
    return [low]


def tick_text(value: float) -> str:
    """A number of an axis in few letters: 12000 -> "12k"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{unit}"
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _in_words(title: str, lines: Sequence[Line], x_name: str) -> str:
    parts = []
    for line in lines:
        finite = np.isfinite(line.values)
        if finite.any():
            values, steps = line.values[finite], line.steps[finite]
            parts.append(
                f"{line.name} goes from {values[0]:.4g} at {x_name} {steps[0]:g} to {values[-1]:.4g} at {x_name} {steps[-1]:g}"
            )
        else:
            parts.append(f"{line.name} has no finite value")
    return f"{title}: {'; '.join(parts)}"
