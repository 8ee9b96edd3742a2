"""The workdir of a run: config, description of the data, results. It belongs to one run only."""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from gensupcon_jax import json_files, paths
from gensupcon_jax.disk import not_written, writing
from gensupcon_jax.errors import UserError
from gensupcon_jax.extension import Extension
from gensupcon_jax.paths import Path
from gensupcon_jax.store import changes, file_rules

CONFIG = "config.json"
HISTORY = "config_history.json"  # of the changes of config.json
DATASET = "dataset.json"
METRICS = "metrics.jsonl"
RESULTS = "results.json"
REPORT = "report.html"
PROBE = "probe.npz"
NEIGHBORS = "neighbors.npz"
PREDICTIONS = "predictions.npz"
CHECKPOINTS = "checkpoints"
DIVERGED = "diverged"
TENSORBOARD = "tensorboard"
DAMAGED = "damaged_images.txt"
_REMEDY = "restore it from a copy, or choose another --workdir"
DATA_CACHE = ".data_cache"  # beside the workdir, shared by runs on the same data
COMPILED = "compiled"


class Claim(NamedTuple):
    """What a start must write to claim a workdir: file name -> content, in this order; and its entry in the history, or None."""

    files: dict[str, dict]
    start: changes.Start | None


def check(
    workdir: Path,
    config: dict,
    dataset: dict,
    *,
    extensions: tuple[Extension, ...] = (),
    command: str = "",
    step: int = 0,
) -> Claim:
    """What this run must still write to claim the folder, which is created.

    Fields that leave every training step as it is may differ from those in the folder (`configs.fields`), and, where the run
    has more extensions than there, its length. command, step: of the entry in the history of changes.
    A kill may leave only one of config.json and dataset.json: it is accepted if it is the same and there are no results.
    Raises UserError if the folder cannot be written, contains a run with other settings or other data (the differing fields
    are named), or contains results of unknown origin.
    """
    _make_writable(workdir)
    missing = [name for name in (CONFIG, DATASET) if not paths.exists(workdir / name)]
    own = (METRICS, RESULTS, REPORT, CHECKPOINTS, PROBE, NEIGHBORS, PREDICTIONS)
    results = [name for name in own if paths.exists(workdir / name)]
    if missing and results:
        raise UserError(
            f"workdir {workdir} has no {' and no '.join(missing)} but contains {', '.join(results)}, "
            "which would be overwritten; choose another --workdir"
        )
    of_data = _differences(workdir, DATASET, dataset)
    of_config = _differences(workdir, CONFIG, config)
    history = read_history(workdir)
    added = extensions[len(changes.extensions_of(history)) :]
    same_content = not of_data.keys() - {changes.NAME}
    changed = changes.allowed(of_config, config, same_content=same_content, is_extended=bool(added))
    _refuse(workdir, {name: pair for name, pair in of_config.items() if name not in changed}, "config fields")
    _refuse(workdir, {} if same_content else of_data, "data")
    files = {name: {CONFIG: config, DATASET: dataset}[name] for name in missing}
    if not changed:
        return Claim(files if same_content and not of_data else files | {DATASET: dataset}, None)
    start = changes.new_start(changed, step=step, command=command, extension=added[-1] if added else None)
    written = {HISTORY: {"starts": [each._asdict() for each in (*history, start)]}, CONFIG: config, DATASET: dataset}
    return Claim(written, start)


def claim(workdir: Path, config: dict, dataset: dict, **settings: Any) -> changes.Start | None:
    """Claim the folder for this run: write what `check` says, with its settings and errors; what this start changed, or None."""
    found = check(workdir, config, dataset, **settings)
    for name, content in found.files.items():
        write_json(workdir / name, content)
    return found.start


def check_is_there(workdir: Path) -> None:
    """NotWritten if the folder has gone while the run went on: what is written would be in a new one, without the rest."""
    with writing(workdir / CONFIG):
        (workdir / CONFIG).stat()


def read_history(workdir: Path) -> list[changes.Start]:
    """The starts that changed something in config.json, oldest first; UserError for a damaged file."""
    if not paths.exists(workdir / HISTORY) or not paths.exists(workdir / CONFIG):
        return []
    starts = [changes.Start(**entry) for entry in read_json(workdir / HISTORY)["starts"]]
    return changes.that_were_written(starts, read_json(workdir / CONFIG))


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The content of config.json, None without one; UserError if it is damaged."""
    if not paths.exists(workdir / CONFIG):
        return None
    return read_json(workdir / CONFIG)


def read_results(workdir: Path, *, with_report: bool = True) -> dict[str, Any] | None:
    """The results.json of a finished run; None if it or the report is missing, as the run is not finished then.

    with_report: False: the report may be missing, as many short runs write none.  Raises UserError if results.json is damaged.
    """
    if not paths.exists(workdir / RESULTS) or (with_report and not paths.exists(workdir / REPORT)):
        return None
    return read_json(
        workdir / RESULTS, "move it away to evaluate the trained encoder again, or choose another --workdir"
    )


def _make_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".write_test_{os.getpid()}"
        probe.touch()
        probe.unlink()
    except paths.failures() as error:
        raise cannot_be_written(workdir, error) from error


def cannot_be_written(workdir: Path, error: Exception) -> UserError:
    """The error of a workdir in which nothing can be written."""
    instead = "set --workdir to a folder that you may write"
    return not_written(workdir, error, what=f"workdir {workdir}", instead=instead)


def _differences(workdir: Path, name: str, wanted: dict) -> changes.Differences:
    """Those to a file of the folder; none without the file."""
    if not paths.exists(workdir / name):
        return {}
    return changes.differing(read_json(workdir / name), wanted)


def _refuse(workdir: Path, found: changes.Differences, what: str) -> None:
    if found:
        listed = changes.there_and_now(found)
        is_of_another_version = any(there == changes.ABSENT for there, _ in found.values())
        same = "the version of this program that began it" if is_of_another_version else "the same settings"
        raise UserError(
            f"workdir {workdir} contains a run with different {what}: {listed}; choose another --workdir, or {same}"
        )


_CHECKS = {
    CONFIG: file_rules.check_saved_config,
    DATASET: file_rules.check_data,
    RESULTS: file_rules.check_results,
    HISTORY: file_rules.check_history,
}


def read_json(path: Path, remedy: str = _REMEDY) -> dict[str, Any]:
    """The JSON object in a file; UserError with the remedy if it is damaged, also where a field has a value that none has."""
    found = json_files.read_object(path, remedy)
    if path.name in _CHECKS:
        _CHECKS[path.name](found, where=path, remedy=remedy)
    return found


def write_json(path: Path, content: dict) -> None:
    """Write the file atomically."""
    paths.write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write the lines as a text file, atomically; no file without lines."""
    if lines:
        paths.write_whole(path, "".join(f"{line}\n" for line in lines).encode())
