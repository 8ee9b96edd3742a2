"""Reading of saved runs: the config, the description of the data, and the network of a checkpoint of a workdir."""

from typing import Any, NamedTuple

import flax.linen as nn
import ml_collections

from gensupcon_jax import paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import BACKBONE_FIELDS, ENCODER_FIELDS, build_backbone, choose_stem
from gensupcon_jax.paths import Path, as_path, split_entry
from gensupcon_jax.store import changes, checkpoint, workdir
from gensupcon_jax.store.averaged import AVERAGED_FIELDS, averaged_fields

COLLECTIONS = ("params", "batch_stats")
NEEDS = ("backbone", "classifier")
STEPS = ("last", "best")  # or a number
# Without which nothing can be read.
_ENTRIES = {
    workdir.CONFIG: {"model": dict},
    workdir.DATASET: {"image_shape": list, "mean": list, "std": list, "class_names": list},
}
MOST_WORKDIRS = 4  # a longer chain of probes is a cycle


class SavedRun(NamedTuple):
    """A workdir: config.json, dataset.json, and numpy trees by collection ("params", "batch_stats") and part of the network.

    Parts are "backbone", "head", "classifier". `weights_file`: the file of a backbone that was not trained by a run, else
    None. `step`: of the checkpoint.
    """

    folder: Path
    config: ml_collections.ConfigDict
    description: dict[str, Any]
    variables: dict[str, Any]
    step: int
    weights_file: Path | None = None


def read_run(folder: str | Path, *, need: str | None = None, step: int | str = "last") -> SavedRun:
    """The run in a workdir, finished or not; backbone, model config and weights of a probe are those of the run it evaluates.

    `need`: "backbone" | "classifier" (which includes its backbone) | None: as it is in the checkpoint. Where the chain of
    `model.weights` ends at a file, `weights_file` is that file (`weights.load_run` fills it in).
    step: "last": the newest intact checkpoint | "best": the best by validation | the number of a saved step.
    Raises UserError if the workdir, its checkpoint, the step (the saved ones are listed) or the needed part is missing.
    """
    step = checked_step(step)
    if need not in (None, *NEEDS):
        raise UserError(f"need is {need!r}; allowed: {', '.join(NEEDS)}, None")
    run = _read_one(as_path(folder), step)
    if need == "classifier":
        _check_part(run, "classifier", "train one with objective cross_entropy or linear_probe, or classifier.beside")
    return run if need is None else _with_backbone(run)


def checked_step(step: int | str) -> int | str:
    """The step of a run, as a number where it is one; UserError for anything else than "last", "best" or a number."""
    if step in STEPS:
        return step
    if str(step).isdecimal():
        return int(step)
    raise UserError(f"step is {step!r}; allowed: {', '.join(STEPS)}, or the number of a saved step")


def run_backbone(run: SavedRun, *, batch_norm: str = "local") -> nn.Module:
    """The backbone of the run, for inference, where `batch_norm` has no effect."""
    fields = {name: value for name, value in run.config.model.items() if name in BACKBONE_FIELDS}
    return build_backbone(image_size=run.description["image_shape"][0], batch_norm=batch_norm, **fields)


def _with_backbone(run: SavedRun) -> SavedRun:
    """The run with its backbone, which is found by following `model.weights` from run to run."""
    visited, current = [run.folder], run
    while "backbone" not in current.variables["params"]:
        source = current.config.model.get("weights")
        if source is None:
            _check_part(current, "backbone", "choose the workdir of a contrastive or cross_entropy run")
        path = _find(as_path(str(source)), current.folder)
        if paths.is_file(split_entry(path)[0]):
            return run._replace(weights_file=path, config=_with_model_of(run.config, current))
        visited.append(path)
        if len(visited) > MOST_WORKDIRS:
            raise UserError(
                f"no encoder is found from {run.folder}: model.weights leads through "
                f"{' -> '.join(str(folder) for folder in visited)}; choose the workdir of the encoder itself"
            )
        current = _read_one(path, _step_of_weights(current))
    if current is run:
        return run
    merged = {
        name: run.variables[name] | {key: tree for key, tree in current.variables[name].items() if key == "backbone"}
        for name in COLLECTIONS
    }
    return run._replace(variables=merged, config=_with_model_of(run.config, current))


def _step_of_weights(run: SavedRun) -> int | str:
    """The step of the workdir in `model.weights` that the run started from, or evaluates."""
    recorded = run.description.get("weights_step")
    return recorded if recorded is not None else run.config.model.get("weights_step") or "last"


def _with_model_of(config: ml_collections.ConfigDict, encoder: SavedRun) -> ml_collections.ConfigDict:
    """A copy with the model fields of the encoder; stem "auto" is resolved by the image size of the encoder's data."""
    own = {name: value for name, value in config.model.items() if name not in ENCODER_FIELDS}
    model = encoder.config.model.to_dict() | own
    if model["stem"] == "auto":
        model["stem"] = choose_stem(encoder.description["image_shape"][0])
    return ml_collections.ConfigDict(config.to_dict() | {"model": model})


def _find(source: Path, folder: Path) -> Path:
    """The path of `model.weights`, or the same name in the parent of the workdir, for runs that were moved together."""
    for path in (source, folder.parent / source.name):
        if paths.exists(split_entry(path)[0]):
            return path
    raise UserError(
        f"model.weights of {folder} is {source}, which does not exist, nor does {folder.parent / source.name}; "
        "move the workdir of the encoder to one of these paths"
    )


def _read_one(folder: Path, step: int | str = "last") -> SavedRun:
    config, description = (_read_json(folder, name) for name in (workdir.CONFIG, workdir.DATASET))
    is_averaged = (config.get("evaluate") or {}).get("encoder") == "ema"
    restored = _read_checkpoint(folder, step, AVERAGED_FIELDS if is_averaged else COLLECTIONS)
    _check_config(folder, config, restored)
    variables = averaged_fields(restored.fields) if is_averaged else restored.fields
    return SavedRun(folder, ml_collections.ConfigDict(config), description, variables, restored.step)


def _check_config(folder: Path, config: dict[str, Any], restored: checkpoint.Restored) -> None:
    """UserError where the checkpoint was saved by a run with another config: its arrays would not fit."""
    saved = changes.training_of(restored.record.get("config", config), with_length=False)
    found = changes.differing(changes.training_of(config, with_length=False), saved)
    if found:
        listed = ", ".join(f"{name} ({now!r}, not {there!r})" for name, (there, now) in found.items())
        raise UserError(
            f"the checkpoint of step {restored.step} in {folder} was saved with another config than {folder / workdir.CONFIG}: "
            f"{listed}; two runs have written there, or the file was changed: put the file of that run back, or choose another "
            "workdir"
        )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    if not paths.is_folder(folder):
        raise UserError(f"{folder} is not a folder; allowed: the --workdir of a run")
    if not paths.is_file(folder / name):
        raise UserError(f"{folder} contains no {name}: it is not the workdir of a run; allowed: the --workdir of a run")
    found = workdir.read_json(folder / name, "choose another workdir")
    for entry, kind in _ENTRIES[name].items():
        if not isinstance(found.get(entry), kind):
            raise UserError(f"{folder / name} is not that of a run: it has no {entry}; choose another workdir")
    return found


def _read_checkpoint(folder: Path, step: int | str, names: tuple[str, ...]) -> checkpoint.Restored:
    """These fields of a checkpoint, as NumPy arrays; nothing else is read."""
    checkpoints = folder / workdir.CHECKPOINTS
    is_newest = step == "last"
    restored = (
        checkpoint.read_newest(checkpoints, names) if is_newest else checkpoint.read_step(checkpoints, names, step)
    )
    if restored is None:
        raise UserError(f"{folder} contains no checkpoint; train it first, or choose another workdir")
    return restored._replace(fields={name: {} for name in names} | restored.fields)


def _check_part(run: SavedRun, part: str, remedy: str) -> None:
    if part not in run.variables["params"]:
        found = ", ".join(sorted(run.variables["params"])) or "nothing"
        what = {"backbone": "encoder"}.get(part, part)
        raise UserError(
            f"{run.folder} contains no {what}: its objective is {run.config.get('objective', 'contrastive')!r} and its "
            f"checkpoint has {found}; {remedy}"
        )
