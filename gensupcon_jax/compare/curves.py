"""The curves of several runs over each other, against steps and against epochs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gensupcon_jax.compare.groups import SeedGroup
from gensupcon_jax.compare.runs import ComparedRun
from gensupcon_jax.report.charts import Line, line_chart
from gensupcon_jax.report.curves import training_loss
from gensupcon_jax.report.values import clean, number, short

AXES = {"step": "step", "epoch": "train/epoch"}  # what the curves are drawn against -> its name in the metrics
_COLORS = 5  # of style.css
_LOOKS = ("", "dashes", "points")  # of every further five groups
_Metric = Callable[[ComparedRun], str]


def charts(groups: Sequence[SeedGroup]) -> list[dict[str, Any]]:
    """Loss, accuracies on validation, learning rate and throughput, where the runs have logged them.

    Each is axis -> chart, for the macro `chart` of figures.html.
    """
    titles = dict.fromkeys(run.score.title for group in groups for run in group.runs)
    score = " or ".join(titles)  # of runs with other kinds of labels
    found = [
        {axis: _chart(groups, title.format(score=score), axis, metric) for axis in AXES} for title, metric in _KINDS
    ]
    return [by_axis for by_axis in found if by_axis["step"]["lines"]]


def group_look(place: int) -> str:
    """The classes of style sheet that draw a group: its color, and dashes where the colors repeat."""
    return f"c{place % _COLORS} {_LOOKS[place // _COLORS % len(_LOOKS)]}".strip()


_KINDS: tuple[tuple[str, _Metric], ...] = (
    ("Training loss", lambda run: training_loss(run.metrics)),
    ("k-NN {score} on validation, percent", lambda run: f"knn/{run.score.key}"),
    ("Classifier {score} on validation, percent", lambda run: f"classifier/{run.score.key}"),
    ("Learning rate", lambda _: "train/learning_rate"),
    ("Throughput, images per second", lambda _: "train/images_per_second"),
)


def _chart(groups: Sequence[SeedGroup], title: str, axis: str, metric: _Metric) -> dict[str, Any]:
    """The chart of one kind: the runs of a group have one color."""
    lines, looks = [], []
    for place, group in enumerate(groups):
        for run in group.runs:
            steps, values = _points(run, AXES[axis], metric(run))
            if len(steps):
                lines.append(Line(short(clean(run.name)), steps, values))
                looks.append(group_look(place))
    chart = line_chart(title, lines, x_name=axis, most=100.0 if "percent" in title else math.inf)
    for line, look in zip(chart["lines"], looks, strict=True):
        line["color"] = look
    return chart


def _points(run: ComparedRun, axis_name: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Places on the axis and values; of steps that a resumed run logged twice, the later row counts."""
    points = {number(row.get(axis_name)): number(row[key]) for row in run.metrics if key in row}
    places = sorted(place for place in points if math.isfinite(place))
    return np.array(places), np.array([points[place] for place in places])
