"""The workdir of a run: config, description of the data, results. It belongs to one run only."""

import json
import os
from collections.abc import Sequence
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.text import flatten, reason

CONFIG = "config.json"
DATASET = "dataset.json"
METRICS = "metrics.jsonl"
RESULTS = "results.json"
REPORT = "report.html"
PROBE = "probe.npz"
NEIGHBORS = "neighbors.npz"
PREDICTIONS = "predictions.npz"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
DAMAGED = "damaged_images.txt"
DATA_CACHE = ".data_cache"  # beside the workdir, shared by runs on the same data
COMPILED = "compiled"


def check(workdir: Path, config: dict, dataset: dict) -> dict[str, dict]:
    """The files, name -> content, that this run must still write to claim the folder; creates the folder.

    A kill may leave only one of config.json and dataset.json: it is accepted if it is the same and there are no results.
    Raises UserError if the folder cannot be written, contains a run with other settings or other data (the differing fields
    are named), or contains results of unknown origin.
    """
    _make_writable(workdir)
    missing = [name for name in (CONFIG, DATASET) if not (workdir / name).exists()]
    own = (METRICS, RESULTS, REPORT, CHECKPOINTS, PROBE, NEIGHBORS, PREDICTIONS)
    results = [name for name in own if (workdir / name).exists()]
    if missing and results:
        raise UserError(
            f"workdir {workdir} has no {' and no '.join(missing)} but contains {', '.join(results)}, "
            "which would be overwritten; choose another --workdir"
        )
    claims = {CONFIG: (config, "config fields"), DATASET: (dataset, "data")}
    for name, (wanted, what) in claims.items():
        if name not in missing:
            _refuse_differences(workdir, name, wanted, what)
    return {name: claims[name][0] for name in missing}


def claim(workdir: Path, config: dict, dataset: dict) -> None:
    """Claim the folder for this run: write config.json and dataset.json unless they exist; errors as in `check`."""
    for name, content in check(workdir, config, dataset).items():
        write_json(workdir / name, content)


def read_results(workdir: Path) -> dict[str, Any] | None:
    """The results.json of a finished run; None if it or the report is missing, as the run is not finished then.

    Raises UserError if results.json is damaged.
    """
    if not ((workdir / RESULTS).exists() and (workdir / REPORT).exists()):
        return None
    return _read_object(
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
    return UserError(
        f"workdir {workdir} cannot be written ({reason(error)}); set --workdir to a folder that you may write"
    )


def _refuse_differences(workdir: Path, name: str, wanted: dict, what: str) -> None:
    found = _read_object(workdir / name, "restore it from a copy, or choose another --workdir")
    wanted, found = flatten(json.loads(json.dumps(wanted))), flatten(found)
    differing = [key for key in sorted(wanted | found) if wanted.get(key, "absent") != found.get(key, "absent")]
    if differing:
        listed = ", ".join(
            f"{key} ({found.get(key, 'absent')!r} there, {wanted.get(key, 'absent')!r} now)" for key in differing
        )
        raise UserError(
            f"workdir {workdir} contains a run with different {what}: {listed}; choose another --workdir, or the same settings"
        )


def _read_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (*paths.failures(), ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} cannot be read (it contains {type(found).__name__}, not a JSON object); {remedy}")
    return found


def write_json(path: Path, content: dict) -> None:
    """Write the file atomically."""
    paths.write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write the lines as a text file, atomically; no file without lines."""
    if lines:
        paths.write_whole(path, "".join(f"{line}\n" for line in lines).encode())
