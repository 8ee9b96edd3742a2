"""The final numbers against each other: learned features and raw pixels on the same images, the best step and the last."""

from typing import Any

from gensupcon_jax.report.data import PREDICTORS, ReportData
from gensupcon_jax.report.scores import score_entries
from gensupcon_jax.report.values import number, shown, signed
from gensupcon_jax.score_names import score_name_of

SIGNIFICANT = 0.05


def comparisons_section(data: ReportData) -> dict[str, Any] | None:
    """Both tables; None where there is nothing to compare."""
    paired = [
        {
            "name": PREDICTORS[key],
            "only_first": f"{data.paired[key].only_first:,}",
            "only_second": f"{data.paired[key].only_second:,}",
            "difference": signed(data.paired[key].difference),
            "interval": f"{signed(data.paired[key].low)} to {signed(data.paired[key].high)}",
            "test": f"{p_value_text(data.paired[key].p_value)}{_meaning(data.paired[key].p_value)}",
        }
        for key in PREDICTORS
        if key in data.paired
    ]
    best = data.results.get("best") or {}
    steps = [
        {"name": name, "best": f"{number(best[key]):.1f}", "last": f"{number(data.results[key]):.1f}"}
        for key, name, _ in score_entries(data.results)
        if key in best and key in data.results and not key.startswith("raw_pixel")
    ]
    if not paired and not steps:
        return None
    score = score_name_of(data.results).title
    return {
        "score": score,
        "paired": paired,
        "steps": steps,
        "best_step": shown(best.get("step", data.results.get("best_step"))),
    }


def p_value_text(p_value: float) -> str:
    """0.0123 -> "p = 0.012"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _meaning(p_value: float) -> str:
    return ": more than chance" if p_value < SIGNIFICANT else ": may be chance"


def luck(paired: Any, name: str) -> str:
    """In words, what McNemar's test says about a predictor against the raw pixels."""
    counts = (
        f"{paired.only_first:,} test images are right only with the {name}, {paired.only_second:,} only with raw pixels"
    )
    test = f"McNemar's exact test: {p_value_text(paired.p_value)}"
    if paired.p_value < SIGNIFICANT:
        return f"{counts}. {test}, chance is an unlikely explanation."
    return f"{counts}. {test}, chance can explain it."
