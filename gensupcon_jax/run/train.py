"""Train and evaluate a config's encoder: build the run, train it, evaluate it, write its results and its report."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from gensupcon_jax import report
from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.stopping import stop_requests
from gensupcon_jax.cluster.watchdog import Limits, Watchdog
from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.evaluation.choices import ON_VALIDATION
from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.evaluation.final import Evaluation, numbers_of
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.run import assemble, longer, loop
from gensupcon_jax.run.account import Account
from gensupcon_jax.run.final_steps import evaluate_best, evaluate_last, numbers_of_best
from gensupcon_jax.run.kept import keep_predictions, keep_predictors
from gensupcon_jax.run.label_sets import LabelSets
from gensupcon_jax.run.log import trained_seconds
from gensupcon_jax.run.pictures import (
    PicturedBatch,
    batch_pictures,
    classes_of_test,
    compared_pictures,
    embed_fn_of,
    embeddings_of,
    pictured_batch,
    sets_of,
)
from gensupcon_jax.run.profiled_steps import Wanted, steps_of
from gensupcon_jax.run.record import new_record
from gensupcon_jax.run.run import Run, build_run, say
from gensupcon_jax.slow import said_if_slow
from gensupcon_jax.store import lock, workdir
from gensupcon_jax.store.changes import Start, notes_on_changes
from gensupcon_jax.store.checkpoint import saved_steps
from gensupcon_jax.store.metrics import read_metrics
from gensupcon_jax.store.writers import RowFn
from gensupcon_jax.weights import teachers


class Launch(NamedTuple):
    """How a run was started: the command line, for the report, and the seconds that its parts may take.

    holds_workdir: this process has locked the workdir already.  writes_report: False for many short runs in one process.
    account: of this process's time; None: it begins with the call.  profile: the steps to profile.
    """

    command: str = ""
    limits: Limits = Limits()
    holds_workdir: bool = False
    writes_report: bool = True
    account: Account | None = None
    profile: Wanted | None = None


_BY_PYTHON = Launch()


def train_and_evaluate(
    config: ConfigDict,
    workdir_path: str | Path,
    dataset: Dataset | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    teacher_fn: Callable | None = None,
    writers: Sequence[str | RowFn] = (),
    launch: Launch = _BY_PYTHON,
) -> dict[str, Any]:
    """Train the config's encoder, evaluate it, and write everything into the workdir; returns the content of results.json.

    dataset: images and labels of your own (`from_arrays`); None: the one that `dataset.name` names.
    devices: None: all of them.  teacher_fn: the teacher of `teacher.kind = "callable"`, normalized images -> logits.
    writers: further writers of metrics: names in `store.writers.WRITERS`, or functions of step and values.
    The same call resumes an interrupted run; for a finished one it returns the results again.
    Raises UserError, before anything compiles, for settings, data or a workdir that cannot work, or in which another process
    trains, RunStopped after a signal.

        from gensupcon_jax.configs import digits

        results = train_and_evaluate(digits.get_config(), "runs/mine", from_arrays(images, labels))
        results["linear_top1"]  # percent, on the test split
    """
    folder = as_path(workdir_path)
    alone = contextlib.nullcontext() if launch.holds_workdir else lock.held(folder, launch.command)
    account = launch.account or Account()
    with stop_requests() as stop_request, alone, Watchdog(launch.limits) as watchdog, account:
        with account.phase("data"):
            run = build_run(config, folder, dataset, devices=devices, teacher_fn=teacher_fn, writers=writers)
            workdir.check(*_claim_of(run), extensions=run.lengths.extensions)
            # Process 0 decides for all: the others may see a shared folder with a delay.
            finished = processes.share(_results(run) if processes.is_first() else None)
            profile = _profiled_steps(run, launch.profile)
            if finished is not None:
                return finished
            _check_teacher(run)  # before the workdir is claimed: its message recommends another config
            history = _claim(run, launch.command)
            account.keep_in(folder)
            with said_if_slow("compiling the views of an image, and the chance-level loss", say):
                pictured = pictured_batch(run)
                chance_loss = assemble.chance_loss(run.config, pictured.mixed, run.class_shares())
            record = new_record(run.config, run.fingerprints(), history)
        trained = loop.train(run, record, chance_loss, loop.Supervision(stop_request, watchdog, account, profile))
        watchdog.watch("evaluation", "the final evaluation")
        evaluate_fn = _evaluate if run.dataset.has_labels else _pictures_alone
        page, results = evaluate_fn(run, trained, pictured if launch.writes_report else None, account)
        watchdog.watch("report", "writing the report")
        page |= {"command": launch.command, "chance_loss": chance_loss}
        page = page if launch.writes_report else None
        return _write_end(run, page, results | {"chance_loss": chance_loss}, account)


def _profiled_steps(run: Run, wanted: Wanted | None) -> range:
    """The steps to profile, said if none are left; UserError if the run does not have them."""
    if wanted is None:
        return range(0)
    newest = max(saved_steps(run.folder / workdir.CHECKPOINTS), default=0) if processes.is_first() else None
    steps = steps_of(wanted, processes.share(newest), run.lengths.total_steps, run.folder)
    if not steps:
        run.say("no profile is written: this start takes none of the steps of --profile")
    return steps


def _check_teacher(run: Run) -> None:
    """Report the teacher's score on the validation split, or on training images; UserError if it is near chance."""
    if run.teacher is None:
        return
    images = run.teacher_images()
    if images is None:
        run.say("teacher: no training image has a label, so how good its predictions are is not known")
        return
    split, which = images
    settings = {"student_mean": run.data.mean, "student_std": run.data.std, **run.evaluation_settings().extraction}
    predictions = teachers.teacher_predictions(run.teacher, split, **settings)
    allow_poor = run.config.teacher.allow_poor
    if run.dataset.label_kind == "several":
        score, chance = teachers.teacher_label_precision(predictions, split)
        run.say(teachers.check_score(score, chance, allow_poor, f"mean average precision on the {which}"))
    elif run.dataset.bins is not None:
        score = teachers.teacher_explained_variance(predictions, split, run.dataset.bins)
        run.say(teachers.check_values(score, allow_poor, which))
    else:
        accuracy = teachers.teacher_accuracy(predictions, split)
        run.say(teachers.check_accuracy(accuracy, run.data.num_classes, allow_poor, which))


def _claim_of(run: Run) -> tuple[Path, dict, dict]:
    return run.folder, run.config.to_dict(), run.description()


def _results(run: Run) -> dict[str, Any] | None:
    """The results of a finished run; None before it is finished, and for those that it had when it was shorter."""
    found, steps = workdir.read_results(run.folder), run.lengths.total_steps
    return found if found is not None and found.get("steps", steps) == steps else None


def _claim(run: Run, command: str) -> list[Start]:
    """Claim the workdir for this run, and print what changed, and notes on data and initial weights; returns all changes."""
    changed: list[str] = []
    if processes.is_first():
        newest = max(saved_steps(run.folder / workdir.CHECKPOINTS), default=0)
        about = {"extensions": run.lengths.extensions, "command": command, "step": newest}
        start = workdir.claim(*_claim_of(run), **about)
        changed = [] if start is None else notes_on_changes(start)
        longer.keep_results(run.folder, run.lengths.total_steps)
        workdir.write_lines(run.folder / workdir.DAMAGED, run.dataset.damaged)
    for note in [*changed, *run.notes()]:
        run.say(note)
    # Process 0 has the file; the others may see a shared folder with a delay.
    history = [start._asdict() for start in workdir.read_history(run.folder)] if processes.is_first() else None
    return [Start(**start) for start in processes.share(history)]


def _evaluate(
    run: Run, trained: loop.Trained, pictured: PicturedBatch | None, account: Account
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluate the last and the best step, and keep what predicts; the fields of the report, on process 0, and the results.

    pictured: None: there will be no report.
    """
    with account.phase("final_evaluation"):
        evaluation = evaluate_last(run, trained.state)
        predict_fn, settings = run.predict_fn(trained.state), run.evaluation_settings()
        page: dict[str, Any] = {}
        if pictured is not None:
            images = run.dataset.test
            page["test_embeddings"] = extract(
                lambda batch: embeddings_of(predict_fn(batch)), images, **settings.extraction
            )
            with account.phase("report"):
                page |= _report_data(run, trained.state, evaluation, pictured) if processes.is_first() else {}
        evaluation = evaluation._replace(features={})  # those of the best step are as large
        # After all that needs the trained network, whose memory it takes.
        best = evaluate_best(run, trained, evaluation)
        if processes.is_first():
            evaluations = [evaluation] if best is None or best is evaluation else [evaluation, best]
            keep_predictors(run.folder, evaluations)
            keep_predictions(run.folder, run.dataset, evaluations)
    return page, numbers_of(evaluation) | {"best": numbers_of_best(best)} | _facts(run, trained)


def _pictures_alone(
    run: Run, trained: loop.Trained, pictured: PicturedBatch | None, account: Account
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of a run on images without a label, of which there is nothing to evaluate."""
    with account.phase("report"):
        page = _report_of_training(run, trained.state, pictured) if pictured and processes.is_first() else {}
    return page, {"best": None} | _facts(run, trained)


def _write_end(run: Run, page: dict[str, Any] | None, results: dict[str, Any], account: Account) -> dict[str, Any]:
    """Write the report of these fields, if there are any, and results.json last: where it exists, the run is complete.

    Returns the results of process 0.
    """
    results["train_seconds"] = trained_seconds(run.folder, run.lengths.total_steps)
    results["seconds"] = account.total()["wall"]
    if processes.is_first():
        workdir.check_is_there(run.folder)
        if page is not None:
            with account.phase("report"):
                data = report.ReportData(**page, results=results, account_fn=account.total)
                report.write_report(run.folder / workdir.REPORT, data)
        results["time"] = account.total()
        results["seconds"] = results["time"]["wall"]
        workdir.write_json(run.folder / workdir.RESULTS, results)
    return processes.share(results)


def _facts(run: Run, trained: loop.Trained) -> dict[str, Any]:
    """The content of results.json other than the scores."""
    return {
        "objective": run.config.objective,
        "dataset": run.dataset.name,
        "label_kind": run.dataset.label_kind,
        "num_train": run.dataset.train.num_images,
        "num_validation": run.dataset.num_validation,
        "num_test": run.dataset.test.num_images,
        "choices": run.choices.source if run.choices else ON_VALIDATION,
        "encoder": run.config.evaluate.encoder,
        "seed": run.config.seed,
        "steps": run.lengths.total_steps,
        "epochs": run.lengths.total_steps / run.lengths.per_epoch,
        "extensions": [each._asdict() for each in run.lengths.extensions],
        "device": run.mesh.devices.flat[0].device_kind,
        "num_devices": run.mesh.size,
        "best_step": (trained.record["best"] or {}).get("step"),
        "skipped_steps": int(trained.state.skipped_steps),
        "spikes": int(trained.state.spikes["num_spikes"]) if trained.state.spikes else 0,
        "versions": trained.record["versions"],
    }


def _report_data(run: Run, state: TrainState, evaluation: Evaluation, pictured: PicturedBatch) -> dict[str, Any]:
    """Fields of `report.ReportData` that need the trained network or its evaluation."""
    predictor, predictions = evaluation.main_predictions()
    sets = sets_of(run, pictured)
    return {
        **_report_of_training(run, state, pictured, sets),
        "test_predictions": predictions,
        "predicted_values": predictions if run.dataset.label_kind == "value" else None,
        "predictor": predictor,
        **classes_of_test(run.dataset, sets),
        "test_confidences": evaluation.confidences(),
        **compared_pictures(run.compared_dataset(), evaluation, sets),
    }


def _report_of_training(
    run: Run, state: TrainState, pictured: PicturedBatch, sets: LabelSets | None = None
) -> dict[str, Any]:
    """Fields of `report.ReportData` that need the trained network, but no evaluation."""
    return {
        "title": run.folder.name,
        "dataset": run.dataset.name,
        "metrics": read_metrics(run.folder),
        "separable": run.separable_share(),
        "notes": run.said,
        "config": run.config.to_dict(),
        **batch_pictures(run, pictured, embed_fn_of(run, state), sets),
    }
