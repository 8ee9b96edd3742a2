"""Section 1: loss, learning rate and accuracy over the steps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gensupcon_jax.report.data import ReportData
from gensupcon_jax.report.drawing import BLUE, CLASS_COLORS, MUTED, ORANGE, halo, new_figure, png, tidy
from gensupcon_jax.report.values import clean, number

Curve = tuple[np.ndarray, np.ndarray]  # steps, values


def curves_section(data: ReportData) -> dict[str, Any] | str:
    """The curves, or why they are not shown."""
    drawn = training_loss(data.metrics)
    keys = [drawn if key == "train/loss" else key for key in _curve_keys(data.metrics, "loss")]
    losses = {key: curve(data.metrics, key) for key in keys}
    accuracies = {key: curve(data.metrics, key) for key in _curve_keys(data.metrics, "top1")}
    if not losses and not accuracies:
        return "The run logged neither a loss nor an accuracy."
    rates = curve(data.metrics, "train/learning_rate")
    return {
        "picture": _curves_picture(losses, accuracies, rates, data.chance_loss),
        "has_chance": data.chance_loss is not None and bool(losses),
        "has_accuracy": bool(accuracies),
    }


def training_loss(metrics: Sequence[dict[str, Any]]) -> str:
    """The loss to compare with the chance level: with a teacher, the part of the labels, as the sum has another chance level."""
    return "train/label_loss" if any("train/label_loss" in row for row in metrics) else "train/loss"


def _curve_keys(metrics: Sequence[dict[str, Any]], ending: str) -> list[str]:
    """Names of the curves in order of appearance, train/... first."""
    keys = dict.fromkeys(key for row in metrics for key in row if key.rsplit("/", 1)[-1] == ending)
    return sorted(keys, key=lambda key: not key.startswith("train/"))


def curve(metrics: Sequence[dict[str, Any]], key: str) -> Curve:
    """Steps and values of one name; of steps that a resumed run logged twice, the later row counts."""
    points = {number(row.get("step", index)): number(row[key]) for index, row in enumerate(metrics) if key in row}
    steps = sorted(step for step in points if math.isfinite(step))
    return np.array(steps), np.array([points[step] for step in steps])


def _curves_picture(losses: dict[str, Curve], accuracies: dict[str, Curve], rates: Curve, chance: float | None) -> str:
    """Loss with the learning rate under it, and accuracy next to it: PNG as a data URI."""
    columns = bool(losses) + bool(accuracies)
    figure = new_figure(10.6, 3.9)
    grid = figure.add_gridspec(2, columns, height_ratios=(4, 1))
    has_rates = bool(np.isfinite(rates[1]).any())
    if losses:
        axes = figure.add_subplot(grid[0, 0] if has_rates else grid[:, 0])
        _draw_curves(axes, losses, "Loss")
        _draw_chance(axes, chance)
        if has_rates:
            axes.tick_params(labelbottom=False)
            axes.set_xlabel("")
            _draw_rates(figure.add_subplot(grid[1, 0], sharex=axes), rates)
    if accuracies:
        _draw_curves(figure.add_subplot(grid[:, -1]), accuracies, "Accuracy, percent", ORANGE)
    return png(figure)


def _draw_rates(axes: Any, rates: Curve) -> None:
    axes.plot(*rates, color=BLUE, linewidth=1.4, marker="o" if len(rates[0]) == 1 else None)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    tidy(axes)
    axes.set_ylabel("learning\nrate", rotation=0, ha="right", va="center", fontsize=9)


def _draw_curves(axes: Any, curves: dict[str, Curve], title: str, color: str = BLUE) -> None:
    colors = [color, *(other for other in CLASS_COLORS[4:] if other != color)]
    for place, (key, (steps, values)) in enumerate(curves.items()):
        if np.isfinite(values).any():
            _draw_curve(axes, steps, values, colors[place % len(colors)])
            _name_curve(axes, steps, values, colors[place % len(colors)], key)
    if not any(np.isfinite(values).any() for _, values in curves.values()):
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=ORANGE, weight="bold")
    axes.margins(y=0.12)
    axes.set_title(title)
    axes.set_xlabel("step")
    tidy(axes)


def _draw_curve(axes: Any, steps: np.ndarray, values: np.ndarray, color: str) -> None:
    """One line with gaps where values are not finite; a long line is faint, with its running mean on top."""
    finite = np.isfinite(values)
    many = finite.sum() > 150
    shown = np.where(finite, values, np.nan)
    axes.plot(steps, shown, color=color, linewidth=0.8 if many else 1.8, alpha=0.35 if many else 1)
    if many:
        axes.plot(*running_mean(steps[finite], values[finite]), color=color, linewidth=1.8)
    if len(steps) <= 40:
        axes.plot(steps, shown, color=color, linewidth=0, marker="o", markersize=3.5)


def _name_curve(axes: Any, steps: np.ndarray, values: np.ndarray, color: str, key: str) -> None:
    """Write name and value at the last finite point."""
    finite = np.isfinite(values)
    last = steps[finite][-1], values[finite][-1]
    label = axes.annotate(
        f"{clean(key)}: {last[1]:.4g}".replace("$", r"\$"), last, (-2, 7), textcoords="offset points",
        ha="right" if finite.sum() > 1 else "center", va="bottom",
        fontsize=9, color=color, weight="bold", path_effects=halo(),
    )  # fmt: skip
    label.set_in_layout(False)


def running_mean(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Means over a fortieth of the run, each at its center step."""
    half = max(1, len(values) // 80)
    return steps[half:-half], np.convolve(values, np.full(2 * half + 1, 1 / (2 * half + 1)), "valid")


def _draw_chance(axes: Any, chance: float | None) -> None:
    if chance is None or not math.isfinite(chance):
        return
    axes.axhline(chance, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
    axes.annotate(
        f"chance level: {chance:.3g}", (1, chance), (0, 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", va="bottom", fontsize=9, color=MUTED,
    )  # fmt: skip
