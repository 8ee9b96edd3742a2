"""Loss, learning rate and accuracy over the steps, and how well the machine was used."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gensupcon_jax.report.charts import Line, line_chart
from gensupcon_jax.report.data import ReportData
from gensupcon_jax.report.values import clean, number
from gensupcon_jax.score_names import score_name_of

Curve = tuple[np.ndarray, np.ndarray]  # steps, values

# Curves of the machine: title -> (key in the metrics, factor to the unit of the title). A row without a key has a gap.
_MACHINE = {
    "Throughput, images per second": (("train/images_per_second", 1.0),),
    "Memory in use, GiB": (("train/device_memory", 1 / 2**30), ("train/process_memory", 1 / 2**30)),
    "Waiting for images, percent of the time": (("train/input_wait", 100.0),),
}


def curves_section(data: ReportData) -> dict[str, Any] | str:
    """The curves of learning, or why they are not shown."""
    drawn = training_loss(data.metrics)
    losses = _lines(data.metrics, [drawn if key == "train/loss" else key for key in _curve_keys(data.metrics, "loss")])
    score = score_name_of(data.results)
    accuracies = _lines(data.metrics, _curve_keys(data.metrics, score.key))
    if not losses and not accuracies:
        return f"The run logged neither a loss nor an {score.title}."
    chance = None if data.chance_loss is None else ("chance level", data.chance_loss)
    charts = [line_chart("Loss", losses, level=chance)] if losses else []
    charts += (
        [line_chart(f"{score.title.capitalize()}, percent", accuracies, first_color=1, most=100.0)]
        if accuracies
        else []
    )
    rates = _lines(data.metrics, ["train/learning_rate"])
    charts += [line_chart("Learning rate", rates, first_color=2, from_zero=True)] if rates else []
    return {
        "charts": charts,
        "has_chance": data.chance_loss is not None and bool(losses),
        "score": score.title,
        "has_accuracy": bool(accuracies),
    }


def machine_section(data: ReportData) -> dict[str, Any] | str:
    """The curves of throughput, memory and waiting, or why they are not shown."""
    charts = []
    for place, (title, parts) in enumerate(_MACHINE.items()):
        lines = [
            Line(clean(key), steps, factor * values)
            for key, factor in parts
            for steps, values in [curve(data.metrics, key)]
            if len(steps)
        ]
        charts += [line_chart(title, lines, first_color=place, from_zero=True)] if lines else []
    if not charts:
        return "The run logged neither throughput nor memory."
    _, waits = curve(data.metrics, "train/input_wait")
    later = waits[1:][np.isfinite(waits[1:])]  # the first row waits for the first batch
    return {"charts": charts, "wait": f"{100 * later.mean():.0f}" if later.size else None}


def training_loss(metrics: Sequence[dict[str, Any]]) -> str:
    """The loss to compare with the chance level: with a teacher, the part of the labels, as the sum has another chance level."""
    return "train/label_loss" if any("train/label_loss" in row for row in metrics) else "train/loss"


def _lines(metrics: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[Line]:
    found = [(key, curve(metrics, key)) for key in keys]
    return [Line(clean(key), steps, values) for key, (steps, values) in found if len(steps)]


def _curve_keys(metrics: Sequence[dict[str, Any]], ending: str) -> list[str]:
    """Names of the curves in order of appearance, train/... first."""
    keys = dict.fromkeys(key for row in metrics for key in row if key.rsplit("/", 1)[-1] == ending)
    return sorted(keys, key=lambda key: not key.startswith("train/"))


def curve(metrics: Sequence[dict[str, Any]], key: str) -> Curve:
    """Steps and values of one name; of steps that a resumed run logged twice, the later row counts."""
    points = {number(row.get("step", index)): number(row[key]) for index, row in enumerate(metrics) if key in row}
    steps = sorted(step for step in points if math.isfinite(step))
    return np.array(steps), np.array([points[step] for step in steps])
