"""A finished run that is made longer: when that is allowed, what is said about it, and where its former results stay."""

import json

from ml_collections import ConfigDict

from gensupcon_jax import paths
from gensupcon_jax.cluster import processes
from gensupcon_jax.configs.fields import FIELDS, LONGER
from gensupcon_jax.errors import UserError
from gensupcon_jax.extension import Extension
from gensupcon_jax.paths import Path
from gensupcon_jax.report.duplicates_page import DUPLICATES_FILE
from gensupcon_jax.report.suspicious_page import SUSPICIOUS_FILE
from gensupcon_jax.run.durations import duration_steps
from gensupcon_jax.store import changes, workdir
from gensupcon_jax.text import flatten

_FIELD = "optimizer.extension"
# What a finished run has; the results, which say the step, are moved last.
_OF_THE_END = (
    workdir.REPORT,
    SUSPICIOUS_FILE,
    DUPLICATES_FILE,
    workdir.PROBE,
    workdir.NEIGHBORS,
    workdir.PREDICTIONS,
    workdir.RESULTS,
)


def extensions(folder: Path, config: ConfigDict, total_steps: int, per_epoch: int) -> tuple[Extension, ...]:
    """By which the run in a workdir became longer, and becomes now; a collective call, decided by process 0.

    Raises UserError for a run that would become shorter, that is not finished, or that does not say how its rate goes on.
    """
    found = None
    if processes.is_first():
        found = [list(each) for each in _extensions(folder, config, total_steps, per_epoch)]
    return tuple(Extension(*each) for each in processes.share(found))


def _extensions(folder: Path, config: ConfigDict, total_steps: int, per_epoch: int) -> tuple[Extension, ...]:
    there = workdir.read_config(folder)
    if there is None:
        return ()
    made = changes.extensions_of(workdir.read_history(folder))
    now = json.loads(json.dumps(config.to_dict()))
    if changes.training_of(there, with_length=False) != changes.training_of(now, with_length=False):
        return made  # another run, whose differences `workdir.check` names
    before = _total_steps(flatten(there), per_epoch)
    if total_steps == before:
        return made
    lengths = f"workdir {folder} contains a run of {before} steps, and {_given(config)} makes {total_steps}"
    if total_steps < before:
        raise UserError(
            f"{lengths}: a run cannot be made shorter; allowed: the same length, more for a run that is finished, or another "
            "--workdir"
        )
    results = workdir.read_results(folder, with_report=False)
    if results is None or results.get("steps", before) != before:
        raise UserError(
            f"{lengths}: its learning rate is planned for {before}, and it is not finished; allowed: finish it with the same "
            "length first and raise it then, or another --workdir"
        )
    if config.optimizer.extension is None:
        raise UserError(
            f"{lengths}: how does its learning rate go on? Allowed: --config.{_FIELD}=constant (that of its last step) or "
            f"--config.{_FIELD}=rewarm (a new warm-up and schedule over the added steps), or another --workdir"
        )
    if before == 0:
        raise UserError(f"{lengths}: a run without a step has no rate that could go on; choose another --workdir")
    return (*made, Extension(before, total_steps, config.optimizer.extension))


def keep_results(folder: Path, total_steps: int) -> Path | None:
    """Move the results of this run when it was shorter to a folder with their step: results_600; returns it, or None.

    A kill may fall between two files: the next start moves the rest. Raises UserError where that folder has one of them already.
    """
    results = workdir.read_json(folder / workdir.RESULTS) if paths.exists(folder / workdir.RESULTS) else {}
    steps = results.get("steps", total_steps)
    if steps >= total_steps:
        return None
    kept = results_folder(folder, steps)
    paths.make_folder(kept)
    for name in _OF_THE_END:
        if not paths.exists(folder / name):
            continue
        if paths.exists(kept / name):
            raise UserError(f"{folder / name} belongs into {kept}, which has one already; move one of them away")
        paths.move(folder / name, kept / name)
    return kept


def results_folder(folder: Path, steps: int) -> Path:
    """Where the results of the run stay that it had after so many steps."""
    return folder / f"results_{steps}"


def notes_on_extensions(folder: Path, made: tuple[Extension, ...], per_epoch: int) -> list[str]:
    """What a report says about the extensions of its run."""
    rates = {
        "constant": "its learning rate stays that of its last step",
        "rewarm": "its learning rate rises again to the peak, and its schedule begins anew over the added steps",
    }
    return [
        f"the run was finished after {each.start} steps ({each.start / per_epoch:g} epochs) and was made longer, to {each.end} "
        f"({each.end / per_epoch:g} epochs): {rates[each.how]}; its former results are in {results_folder(folder, each.start)}"
        for each in made
    ]


def _given(config: ConfigDict) -> str:
    """The field of the duration that counts, with its value."""
    unit = next(unit for unit in ("steps", "images", "epochs") if config[unit] is not None)
    assert FIELDS[unit].may_change == LONGER
    return f"{unit}={config[unit]:g}"


def _total_steps(fields: dict, per_epoch: int) -> int:
    given = {unit: fields[unit] for unit in ("steps", "images", "epochs")}
    return duration_steps(**given, steps_per_epoch=per_epoch, batch_size=fields["batch_size"], name="")
