"""The record in every checkpoint: what the run depends on, and its best step so far."""

import importlib.metadata
import json
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from gensupcon_jax import __version__
from gensupcon_jax.errors import UserError
from gensupcon_jax.extension import Extension
from gensupcon_jax.paths import Path
from gensupcon_jax.score_names import score_keys
from gensupcon_jax.store import changes, workdir

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")
_CHOOSING = (
    *score_keys("knn"),
    *score_keys("classifier"),
)  # the first of these metrics that is present decides which step is the best


def new_record(
    config: ConfigDict, fingerprints: dict[str, str | None], history: Sequence[changes.Start] = ()
) -> dict[str, Any]:
    """The record of a run that starts; the position in the data is a function of the step, so it is not recorded.

    history: of the changes of the config, and by which the run became longer.
    """
    return {
        "config": json.loads(json.dumps(config.to_dict())),
        "history": [start._asdict() for start in history],
        "versions": {"gensupcon_jax": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "fingerprints": fingerprints,
        "best": None,
    }


def resumed_record(record: dict[str, Any], saved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record with the best step of a checkpoint's record; UserError if that has a different config, teacher or weights.

    Fields that leave every step as it is may differ, and the length where the run became longer after this checkpoint.
    """
    made, then = (_extensions_in(each) for each in (record, saved))
    is_longer = made[: len(then)] == then and all(each.start >= saved["step"] for each in made[len(then) :])
    pair = record["config"], saved["config"]
    are_same, are_alike = (
        len({json.dumps(changes.training_of(each, with_length=with_length), sort_keys=True) for each in pair}) == 1
        for with_length in (made == then, False)
    )
    for differs, what, file in (
        (not are_alike, "config", workdir.CONFIG),
        (not are_same or not is_longer, "length, or longer by other steps,", workdir.HISTORY),
        (saved["fingerprints"] != record["fingerprints"], "teacher or weights", workdir.CONFIG),
    ):
        if differs:
            raise UserError(
                f"the checkpoint of step {saved['step']} in {folder} was saved with a different {what} than that in "
                f"{folder / file}; put that file back, or choose another --workdir"
            )
    return record | {"best": saved["best"]}


def _extensions_in(record: dict[str, Any]) -> tuple[Extension, ...]:
    """By which the run of a record became longer."""
    return changes.extensions_of([changes.Start(**start) for start in record.get("history", ())])


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
