"""The record in every checkpoint: what the run depends on, and its best step so far."""

import importlib.metadata
import json
from typing import Any

from ml_collections import ConfigDict

from gensupcon_jax import __version__
from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.paths import Path
from gensupcon_jax.score_names import score_keys
from gensupcon_jax.store import workdir

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")
_CHOOSING = (
    *score_keys("knn"),
    *score_keys("classifier"),
)  # the first of these metrics that is present decides which step is the best


def new_record(config: ConfigDict, fingerprints: dict[str, str | None]) -> dict[str, Any]:
    """The record of a run that starts; the position in the data is a function of the step, so it is not recorded."""
    content = json.loads(json.dumps(config.to_dict()))
    return {
        "config": content,
        "config_fingerprint": fingerprint([json.dumps(content, sort_keys=True)]),
        "versions": {"gensupcon_jax": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "fingerprints": fingerprints,
        "best": None,
    }


def resumed_record(record: dict[str, Any], saved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record with the best step of a checkpoint's record; UserError if that has a different config, teacher or weights."""
    for name, what in (("config_fingerprint", "config"), ("fingerprints", "teacher or weights")):
        if saved[name] != record[name]:
            raise UserError(
                f"the checkpoint of step {saved['step']} in {folder} was saved with a different {what} than that in "
                f"{folder / workdir.CONFIG}; put that file back, or choose another --workdir"
            )
    return record | {"best": saved["best"]}


def changed_versions(record: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """A sentence where a checkpoint's record has other versions, or none."""
    changed = [
        f"{name} {saved['versions'].get(name)} -> {version}"
        for name, version in record["versions"].items()
        if saved["versions"].get(name) != version
    ]
    listed = ", ".join(changed)
    return [f"saved with different versions ({listed}): results may differ in their last digits"] if changed else []


def best_so_far(best: dict[str, Any] | None, row: dict[str, Any], step: int) -> dict[str, Any] | None:
    """The better of the best step so far and this one, by the validation scores in its row; the earlier one in a tie.

    None without scores, as no step is then known to be better than another.
    """
    if not row:
        return None
    metric = next(name for name in _CHOOSING if name in row)
    if best is not None and row[metric] <= best["value"]:
        return best
    return {"step": step, "metric": metric, "value": row[metric]}
