"""The last lines of a run: its test scores, of the last and of the best step, and where the rest lies."""

from typing import Any

from gensupcon_jax.evaluation.choices import BY_DEFAULT
from gensupcon_jax.paths import Path
from gensupcon_jax.phases import PHASES
from gensupcon_jax.report.values import duration
from gensupcon_jax.score_names import score_name_of
from gensupcon_jax.store import workdir
from gensupcon_jax.text import aligned

_PREDICTORS = {
    "classifier": "classifier of this run",
    "linear": "linear probe on frozen features",
    "knn": "k-NN on frozen features",
    "raw_pixel_knn": "k-NN on raw pixels (baseline)",
}


def summary(results: dict[str, Any], folder: Path) -> str:
    """The lines for these results, the content of results.json."""
    averaged = ", of the moving average" if results.get("encoder") == "ema" else ""
    best = results.get("best") or {"step": results["steps"]}
    columns = [results] if best["step"] == results["steps"] else [results, best]
    score = score_name_of(results)
    rows = [
        [f"  {text:31}", *(f"{each[f'{name}_{score.key}']:6.2f}{score.unit}" for each in columns)]
        for name, text in _PREDICTORS.items()
        if f"{name}_{score.key}" in results
    ]
    where = [*_time(results.get("time")), f"results: {folder / workdir.RESULTS}", f"report:  {folder / workdir.REPORT}"]
    if not rows:
        return "\n".join([f"trained on {results['num_train']} images of {results['dataset']} without labels", *where])
    if len(columns) > 1:
        rows.insert(0, ["", f"step {results['steps']} (last)", f"step {best['step']} (best by validation)"])
    return "\n".join(
        [
            f"test {score.title} on {results['num_test']} images of {results['dataset']}, seed {results['seed']}{averaged}:",
            *aligned(rows).splitlines(),
            *([_not_chosen(results["choices"])] if results.get("num_validation") == 0 else []),
            *where,
        ]
    )


def _time(account: dict[str, Any] | None) -> list[str]:
    """A line on where the time went: the three longest phases; none for results of before there was an account."""
    if account is None:
        return []
    longest = sorted(account["seconds"], key=account["seconds"].__getitem__, reverse=True)[:3]
    parts = ", ".join(f"{PHASES[phase]} {100 * account['seconds'][phase] / account['wall']:.0f} %" for phase in longest)
    return [f"time:    {duration(account['wall'])}: {parts}"]


def _not_chosen(source: str) -> str:
    of = "the defaults" if source == BY_DEFAULT else f"those of {source}"
    return f"there was no validation split: the last step, with k and penalty that were not chosen but {of}"
