"""The last lines of a run: its test accuracies, of the last and of the best step, and where the rest lies."""

from typing import Any

from gensupcon_jax.evaluation.choices import BY_DEFAULT
from gensupcon_jax.paths import Path
from gensupcon_jax.store import workdir
from gensupcon_jax.text import aligned

_ACCURACIES = {
    "classifier_top1": "classifier of this run",
    "linear_top1": "linear probe on frozen features",
    "knn_top1": "k-NN on frozen features",
    "raw_pixel_knn_top1": "k-NN on raw pixels (baseline)",
}


def summary(results: dict[str, Any], folder: Path) -> str:
    """The lines for these results, the content of results.json."""
    best = results.get("best") or {"step": results["steps"]}
    columns = [results] if best["step"] == results["steps"] else [results, best]
    rows = [
        [f"  {text:31}", *(f"{each[name]:6.2f} %" for each in columns)]
        for name, text in _ACCURACIES.items()
        if name in results
    ]
    if len(columns) > 1:
        rows.insert(0, ["", f"step {results['steps']} (last)", f"step {best['step']} (best by validation)"])
    return "\n".join(
        [
            f"test accuracy on {results['num_test']} images of {results['dataset']}, seed {results['seed']}:",
            *aligned(rows).splitlines(),
            *([_not_chosen(results["choices"])] if results.get("num_validation") == 0 else []),
            f"results: {folder / workdir.RESULTS}",
            f"report:  {folder / workdir.REPORT}",
        ]
    )


def _not_chosen(source: str) -> str:
    of = "the defaults" if source == BY_DEFAULT else f"those of {source}"
    return f"there was no validation split: the last step, with k and penalty that were not chosen but {of}"
