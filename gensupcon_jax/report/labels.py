"""The table of labels where an image has several: images, average precision and AUC of each, against raw pixels."""

from typing import Any

from gensupcon_jax.report.data import PREDICTORS, ReportData
from gensupcon_jax.report.values import clean, number, short
from gensupcon_jax.score_names import score_name_of

_LISTED = 20  # labels that the page shows at once; the others are one click away
_BASELINE = "raw_pixel_knn"
_CHANCE_AUC = 50.0


def labels_section(data: ReportData) -> dict[str, Any] | str:
    """The table, or why it is not shown."""
    if not data.label_names:
        return "An image has one class."
    found = _scores(data, _predictor(data))
    if not found:
        return "The run has no scores of its labels."
    baseline = _scores(data, _BASELINE)
    rows = [
        _row(row, baseline[place] if baseline else {}) | {"name": short(clean(name))}
        for place, (name, row) in enumerate(zip(data.label_names, found, strict=True))
    ]
    present = [place for place, row in enumerate(found) if row["average_precision"] is not None]
    order = sorted(present, key=lambda place: found[place]["average_precision"])
    return {
        "predictor": PREDICTORS[data.predictor],
        "rows": rows if len(rows) <= _LISTED else [rows[place] for place in order[:_LISTED]],
        "all_rows": rows if len(rows) > _LISTED else [],
        "left_out": len(found) - len(present),
        "has_baseline": bool(baseline),
    }


def label_check(data: ReportData) -> tuple[str, str, str]:
    """State, name and text of the check whether each label is predicted better than chance."""
    scores = _scores(data, _predictor(data))
    poor = [
        clean(name) for name, row in zip(data.label_names, scores, strict=False) if number(row["auc"]) <= _CHANCE_AUC
    ]
    if not scores:
        return "unknown", "Predictions", "No scores of the labels."
    if poor:
        more = f" and {len(poor) - 3} more" if len(poor) > 3 else ""
        some = ", ".join(short(name) for name in poor[:3])
        return "warning", "Predictions", f"The {PREDICTORS[data.predictor]} ranks {some}{more} no better than chance."
    return (
        "ok",
        "Predictions",
        f"The {PREDICTORS[data.predictor]} ranks each label better than chance (AUC above 50 %).",
    )


def _predictor(data: ReportData) -> str:
    """The beginning of the names of the shown predictor's scores."""
    return data.predictor.removesuffix(f"_{score_name_of(data.results).key}")


def _scores(data: ReportData, predictor: str) -> list[dict[str, Any]]:
    """images, average_precision and auc of each label by this predictor; empty where they are not known."""
    precisions = (data.results.get("per_label_average_precision") or {}).get(predictor) or []
    areas = (data.results.get("per_label_auc") or {}).get(predictor) or []
    images = data.results.get("per_label_images") or []
    names = ("images", "average_precision", "auc")
    return [dict(zip(names, row, strict=True)) for row in zip(images, precisions, areas, strict=False)]


def _row(row: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    def percent(value: Any) -> str:
        return "-" if value is None else f"{number(value):.1f}"

    return {
        "images": f"{row['images']:,}",
        "precision": percent(row["average_precision"]),
        "auc": percent(row["auc"]),
        "baseline": percent(baseline.get("average_precision")),
        "bar": round(row["average_precision"] or 0.0),
    }
