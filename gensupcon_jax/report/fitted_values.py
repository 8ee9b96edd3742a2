"""Labels that are numbers: predicted against true values of the test images, and the errors of each predictor."""

from typing import Any

import numpy as np

from gensupcon_jax.report.charts import tick_text, ticks
from gensupcon_jax.report.data import PREDICTORS, ReportData
from gensupcon_jax.report.values import number
from gensupcon_jax.score_names import PREDICTOR_NAMES

_SIDE = 420  # of the picture
_MOST_POINTS = 1_000


def fitted_values_section(data: ReportData) -> dict[str, Any] | str:
    """Points, axes and the table of errors, or why they are not shown."""
    if data.test_values is None:
        return "Labels are classes."
    if data.predicted_values is None:
        return "The run has no predictions."
    true, predicted = np.asarray(data.test_values, float), np.asarray(data.predicted_values, float)
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    span = (high - low) or 1.0
    order = np.random.default_rng(0).permutation(len(true))[:_MOST_POINTS]

    def place(value: float) -> float:
        return round(_SIDE * (value - low) / span, 1)

    marks = [{"at": place(tick), "text": tick_text(tick)} for tick in ticks(low, high, 6)]
    return {
        "predictor": PREDICTORS[data.predictor],
        "side": _SIDE,
        "count": len(true),
        "shown": len(order),
        "points": [
            {"x": place(float(true[row])), "y": round(_SIDE - place(float(predicted[row])), 1)} for row in order
        ],
        "ticks": marks,
        "rows": _error_rows(data.results),
        "mean_error": _short(data.results.get("mean_value_mae")),
    }


def _error_rows(results: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"name": words, "error": _short(results[f"{name}_mae"]), "r2": f"{number(results.get(f'{name}_r2')):.1f}"}
        for name, words in PREDICTOR_NAMES.items()
        if f"{name}_mae" in results
    ]


def _short(value: Any) -> str:
    return "-" if value is None else f"{number(value):.4g}"
