"""The numbers at the top: the main scores, accuracies with their intervals, and the comparison with the raw pixels."""

import math
from typing import Any

from gensupcon_jax.report.data import PREDICTORS
from gensupcon_jax.report.values import number, whole
from gensupcon_jax.score_names import SCORE_NAMES, score_name_of

_OPTIONAL = "classifier"  # only of runs that train one
_SHOWN = (
    ("classifier", "Classifier", "trained in this run"),
    ("linear", "Linear probe", "frozen encoder, one linear layer on top"),
    ("knn", "k-NN", "frozen encoder, nearest neighbors: {neighbors}"),
    ("raw_pixel_knn", "Raw-pixel k-NN", "without an encoder: the baseline"),
)


def score_entries(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name in the results, heading, note) of each main score that a page shows, measured or not."""
    score = score_name_of(results).key
    entries = [(f"{predictor}_{score}", name, note) for predictor, name, note in _SHOWN]
    return [entry for entry in entries if entry[0] in results or entry[0] != f"{_OPTIONAL}_{score}"]


def score_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The main scores: text, interval, and their positions (0..100) on the common scale."""
    neighbors = whole(results.get("knn_neighbors")) or "the nearest"
    neighbors = f"{neighbors}, not chosen on validation images" if results.get("num_validation") == 0 else neighbors
    low, high = _ruler(results)
    rows = []
    named = score_name_of(results)
    why_none = "no interval: number of test images unknown" if named == SCORE_NAMES["class"] else named.title
    for key, name, note in score_entries(results):
        percent, interval = _score(results, key)
        row = {"name": name, "note": note.format(neighbors=neighbors), "percent": None, "interval": None}
        row["why_none"] = why_none
        if percent is not None:
            row |= {"percent": f"{percent:.1f}", "at": _place(percent, low, high)}
        if interval is not None:
            left, right = (_place(end, low, high) for end in interval)
            row |= {"interval": f"{interval[0]:.1f} to {interval[1]:.1f} %", "left": left, "width": right - left}
        rows.append(row)
    return rows


def ruler_ticks(results: dict[str, Any]) -> list[str]:
    """Labels of the scale: its ends and its center."""
    low, high = _ruler(results)
    return [f"{tick:g}" for tick in (low, (low + high) / 2, high)]


def _ruler(results: dict[str, Any]) -> tuple[float, float]:
    """The range of the scale, wide enough for all intervals."""
    ends = []
    for key, *_ in score_entries(results):
        percent, interval = _score(results, key)
        ends += [end for end in (percent, *(interval or ())) if end is not None]
    low = 10 * math.floor((min(ends, default=100.0) - 2) / 10)
    high = min(100.0, 10 * math.ceil((max(ends, default=100.0) + 2) / 10))
    return max(0.0, float(low)), float(high)


def _place(percent: float, low: float, high: float) -> float:
    return round(100 * (percent - low) / (high - low), 2)


def _score(results: dict[str, Any], key: str) -> tuple[float | None, tuple[float, float] | None]:
    """One score in percent and its interval, each None if unknown; only an accuracy, a share of images, has an interval."""
    percent, count = number(results.get(key)), whole(results.get("num_test"))
    if score_name_of(results) == SCORE_NAMES["value"] and percent < 0:
        percent = 0.0  # worse than the mean value, by however much
    if not 0 <= percent <= 100:
        return None, None
    is_share = score_name_of(results) == SCORE_NAMES["class"]
    return percent, wilson_interval(percent, count) if count and is_share else None


def wilson_interval(percent: float, count: int) -> tuple[float, float]:
    """The 95 % Wilson score interval (in percent) of a share in `count` trials."""
    z = 1.959964
    share = percent / 100
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return 100 * max(0.0, center - half), 100 * min(1.0, center + half)


def verdict(results: dict[str, Any]) -> dict[str, str]:
    """The result in words: the learned features against the raw pixels.

    state: "ok", "warning" or "unknown".  key: of the predictor that is compared, if there is a difference to explain.
    """
    ranked = [(name, key) for key, name in PREDICTORS.items() if _score(results, key)[0] is not None]
    score = score_name_of(results)
    name, key = ranked[0] if ranked else ("", f"linear_{score.key}")
    percent, baseline = (_score(results, each)[0] for each in (key, f"raw_pixel_knn_{score.key}"))
    if percent is None:
        return {"state": "unknown", "text": f"No final {score.title} was measured.", "key": ""}
    if baseline is None:
        article = "an" if score.title[0] in "aeiou" else "a"
        text = f"The {name} has {article} {score.title} of {percent:.1f} % on the test images."
        text += " There is no raw-pixel baseline to compare with."
        return {"state": "unknown", "text": text, "key": ""}
    difference = round(percent - baseline, 1)
    side = "above" if difference > 0 else "below"
    text = f"The {name} is {side} the raw-pixel baseline by {abs(difference):.1f} points."
    if difference == 0:
        text = f"The {name} is equal to the raw-pixel baseline: training has no measurable effect."
    return {"state": "ok" if difference > 0 else "warning", "text": text, "key": key if difference else ""}
