"""The run: build, restore, loop, judge, report."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gensupcon_jax import __version__, report
from gensupcon_jax.cluster import processes, sharding
from gensupcon_jax.cluster.stopping import StopRequest, stop_requests
from gensupcon_jax.cluster.watchdog import Watchdog
from gensupcon_jax.data import datasets
from gensupcon_jax.data.input_pipeline import (
    HostCrops,
    Prefetched,
    centered_images,
    epoch_order,
    steps_per_epoch,
    train_batches,
)
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.errors import RunStopped, UserError
from gensupcon_jax.evaluation import evaluate, summary
from gensupcon_jax.method.objectives import MixedBatch
from gensupcon_jax.method.state import TrainState, abstract, saved_fields, state_shardings
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.run import assemble, divergence
from gensupcon_jax.run.advice import Advisor
from gensupcon_jax.run.assemble import Lengths, Parts
from gensupcon_jax.run.config_check import check_combinations, check_config
from gensupcon_jax.run.progress import Progress
from gensupcon_jax.store import tensorboard, workdir
from gensupcon_jax.store.checkpoint import Checkpoints
from gensupcon_jax.weights import initial, teachers

# More than 32 unawaited steps with collectives hang on several CPU devices; 2 keep an accelerator busy.
_STEPS_IN_FLIGHT = 2
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def train_and_evaluate(
    config: ConfigDict,
    workdir_path: str | Path,
    dataset: datasets.Dataset | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    teacher_fn: Callable | None = None,
    command: str = "",
    watchdog_seconds: float = 0.0,
) -> dict[str, Any]:
    """Train the config's encoder, judge it, leave everything in the workdir; returns what results.json holds.

    dataset: images and labels of your own (`datasets.from_arrays`); None: the one that `dataset.name` says.
    devices: None is all of them.  teacher_fn: the teacher of `teacher.kind = "callable"`, normalized images -> logits.
    command: what to type to repeat the run, for the report.  watchdog_seconds: that a step may take; 0: any.
    A workdir with the same config goes on where it stopped; a finished one gives its results again.
    Raises UserError, before anything compiles, for settings, data or a workdir that cannot work, RunStopped after a signal.
    """
    with stop_requests() as stop_request, Watchdog(watchdog_seconds) as watchdog:
        return _run(config, as_path(workdir_path), dataset, devices, teacher_fn, command, stop_request, watchdog)


def _run(
    config: ConfigDict,
    folder: Path,
    dataset: datasets.Dataset | None,
    devices: Sequence[jax.Device] | None,
    teacher_fn: Callable | None,
    command: str,
    stop_request: StopRequest,
    watchdog: Watchdog,
) -> dict[str, Any]:
    started = time.monotonic()
    check_config(config)
    config = config.copy_and_resolve_references()
    dataset = _dataset(config, folder, dataset)
    mesh = sharding.make_mesh(devices)
    check_combinations(config, dataset.train.num_images, mesh.size)
    description = dataset.description()
    data = DataShape.of(description)
    lengths = assemble.lengths(config, _steps_per_epoch(config, dataset))
    teacher = _load_teacher(config, description, teacher_fn)
    given = initial.read_weights(config.model.weights, assemble.encoder_of(config, data), data)
    # Of what a run rests on, but does not save, it keeps the fingerprint.
    identities = {"teacher": teacher and teacher.identity, "weights": given and given.identity}
    description |= {name: identity for name, identity in identities.items() if identity}
    workdir.check(folder, config.to_dict(), description)
    # Process 0 decides for all: the others may see a shared folder a little later.
    finished = processes.share(workdir.read_results(folder) if processes.is_first() else None)
    if finished is not None:
        return finished
    if teacher is not None:
        accuracy = teachers.teacher_accuracy(
            teacher,
            dataset.validation,
            student_mean=data.mean,
            student_std=data.std,
            **_extraction_settings(config, mesh),
        )
        # Before the workdir is claimed: what the message advises is another config.
        _say(teachers.judge_accuracy(accuracy, data.num_classes, config.teacher.allow_poor))
    if processes.is_first():
        workdir.claim(folder, config.to_dict(), description)
        workdir.write_lines(folder / workdir.DAMAGED, dataset.damaged)
    for note in dataset.notes:
        _say(note)
    if dataset.damaged:
        _say(f"{len(dataset.damaged)} damaged images were left out; they are listed in {folder / workdir.DAMAGED}")
    parts = assemble.build_parts(config, data, lengths, mesh, teacher)
    frozen = _frozen(config, teacher, given, mesh)
    state = _initial_state(config, parts, given, mesh)
    batches_fn = _batches_fn(config, dataset, mesh)
    pictured = _pictured_batch(config, dataset, parts, batches_fn)
    chance_loss = assemble.chance_loss(config, pictured.mixed.labels)
    train_started = time.monotonic()
    record = _record(config, identities)
    with contextlib.ExitStack() as opened:
        state, trained = _train(
            config,
            dataset,
            parts,
            lengths,
            mesh,
            folder,
            state,
            frozen,
            batches_fn,
            chance_loss,
            record,
            stop_request,
            watchdog,
            opened,
        )
    trained_seconds, judge_started = _trained_seconds(folder, lengths.total_steps), time.monotonic()

    judged = summary.judge(
        lambda images: parts.predict_fn(state, frozen, images),
        _compared(config, dataset),
        knn=_knn_settings(config, dataset),
        penalties=tuple(config.evaluate.probe_penalties) if config.evaluate.linear_probe else (),
        extraction=_extraction_settings(config, mesh),
    )
    results = summary.accuracies(judged) | {
        "objective": config.objective,
        "dataset": dataset.name,
        "num_train": dataset.train.num_images,
        "num_validation": dataset.validation.num_images,
        "num_test": dataset.test.num_images,
        "seed": config.seed,
        "steps": lengths.total_steps,
        "epochs": lengths.total_steps / lengths.per_epoch,
        "chance_loss": chance_loss,
        "device": mesh.devices.flat[0].device_kind,
        "num_devices": mesh.size,
        "best_step": (trained["best"] or {}).get("step"),
        "skipped_steps": int(state.skipped_steps),
        "versions": record["versions"],
        "train_seconds": trained_seconds,
        "seconds": trained_seconds + time.monotonic() - judge_started + train_started - started,
    }
    test_embeddings = evaluate.extract(
        lambda images: _embeddings(parts.predict_fn(state, frozen, images)),
        dataset.test,
        **_extraction_settings(config, mesh),
    )
    if processes.is_first():
        embed_fn = _embed_fn(parts, state, frozen)
        page = _report_data(config, dataset, data, judged, results, folder, pictured, embed_fn, test_embeddings)
        report.write_report(folder / workdir.REPORT, dataclasses.replace(page, command=command))
        # Last: where it exists, all of the run exists.
        workdir.write_json(folder / workdir.RESULTS, results)
    return processes.share(results)


def _train(
    config: ConfigDict,
    dataset: datasets.Dataset,
    parts: Parts,
    lengths: Lengths,
    mesh: Mesh,
    folder: Path,
    state: TrainState,
    frozen: dict[str, Any],
    batches_fn: Callable,
    chance_loss: float,
    record: dict[str, Any],
    stop_request: StopRequest,
    watchdog: Watchdog,
    opened: contextlib.ExitStack,
) -> tuple[TrainState, dict[str, Any]]:
    """The loop, from the newest checkpoint to the last step: the state, and what is recorded beside its checkpoint.

    RunStopped when a signal ended it earlier, all saved; UserError when it diverged, the last good state saved.
    """
    end_step = lengths.total_steps
    seed_key = sharding.place(_key(config, "step"), sharding.replicated(mesh))
    advisor = _advisor(config, dataset, chance_loss, state)
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, keep=config.checkpoint.keep)
    opened.callback(checkpoints.settle)
    restored = checkpoints.restore_newest(abstract(saved_fields(state)))
    start_step = 0
    if restored is not None:
        start_step, state = restored.step, state.replace(**restored.fields)
        record |= _continued(record, restored.record, folder)
    metrics_writer = workdir.MetricsWriter(folder, start_step) if processes.is_first() else None
    if not tensorboard.is_available():
        _say(tensorboard.LEFT_OUT)
    progress = Progress(
        start_step=start_step, end_step=end_step, batch_size=config.batch_size, is_shown=processes.is_first()
    )
    progress.say(_opening(folder, dataset, state, lengths, start_step, mesh) + f", chance-level loss {chance_loss:.4f}")
    for row in workdir.read_metrics(folder):
        advisor.sentences(row["step"], row)  # said by an earlier start

    in_flight = collections.deque()
    started, earlier_seconds = time.monotonic(), _trained_seconds(folder, start_step)
    rate_step, rate_time, rate_waited, stall_seconds = start_step, started, 0.0, 0.0
    has_diverged = stops = False
    step = start_step
    with stop_request.deferred():
        watchdog.watch(f"step {start_step + 1}")
        batches = opened.enter_context(Prefetched(batches_fn(start_step, end_step)))
        for step, batch in enumerate(batches, start=start_step + 1):
            if len(in_flight) == _STEPS_IN_FLIGHT and float(in_flight.popleft()["diverged"]):
                has_diverged = True
                break
            state, metrics = parts.train_step_fn(state, frozen, batch, seed_key)
            in_flight.append(metrics)
            progress.advance()

            row, notes = {}, {}
            stops = stop_request.is_due()  # asked once: a signal that comes later waits for the next step
            evaluates = step == end_step or (lengths.evaluate_steps > 0 and step % lengths.evaluate_steps == 0)
            saves = stops or step == end_step or step % lengths.checkpoint_steps == 0
            if saves or evaluates or step % config.log_steps == 0 or step == 1:
                metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
                if metrics.pop("diverged"):
                    has_diverged = True
                    break
            if saves or step % config.log_steps == 0 or step == 1:
                seconds = time.monotonic() - rate_time
                rate = (step - rate_step) * config.batch_size / seconds
                input_wait = (batches.waited_seconds - rate_waited) / seconds
                rate_step, rate_time, rate_waited = step, time.monotonic(), batches.waited_seconds
                row = {f"train/{name}": value for name, value in metrics.items()} | {
                    "train/input_wait": min(1.0, input_wait),
                    "train/learning_rate": float(parts.schedule(step - 1)),
                    "train/images_per_second": rate,
                    "train/epoch": step / lengths.per_epoch,
                    "train/seconds": earlier_seconds + time.monotonic() - started,
                    "train/stall_seconds": stall_seconds,
                }
                stall_seconds = 0.0
                notes["loss"] = f"{row['train/loss']:.4f}"
                if "train/contrastive_accuracy" in row:
                    notes["accuracy"] = f"{100 * row['train/contrastive_accuracy']:.0f} %"
                for sentence in advisor.sentences(step, row):
                    progress.say(sentence)
            if evaluates:
                watchdog.pause()
                paused = time.monotonic()
                # Process 0's scores count for all: they decide which checkpoint is kept.
                scores = processes.share(_validation_scores(config, dataset, parts, state, frozen, mesh))
                row |= {name: value for name, (value, _) in scores.items()}
                notes |= {label: f"{value:.2f} %" for value, label in scores.values() if label}
                is_best, record["best"] = _best(record["best"], scores, step)
                saves = saves or is_best
                rate_time += time.monotonic() - paused
            if row and metrics_writer:
                metrics_writer.write(step, row)
            if row:
                progress.show(step, force=evaluates, **notes)
            if saves:
                if metrics_writer:
                    metrics_writer.flush()
                stall_seconds += checkpoints.save(step, saved_fields(state), record)
            watchdog.watch(f"step {step + 1}")
            if stops:
                break
        watchdog.pause()
        if has_diverged:
            progress.close()
            _refuse_divergence(config, parts, mesh, folder, state, frozen, batches_fn, seed_key, checkpoints, record)
        if end_step == 0:
            checkpoints.save(0, saved_fields(state), record)  # what was judged can be exported, probed, or teach
        checkpoints.close()
        if metrics_writer:
            metrics_writer.close()
        progress.close()
        # A signal that came after the last step was looked at ends the run too: nothing has been judged yet.
        if stops or (stop_request.signal_name and processes.group().num_processes == 1):
            processes.finish()  # all have saved
            raise RunStopped(
                f"{stop_request.signal_name}: saved step {step} of {end_step}; the same command goes on from there"
            )
    return state, record


def _record(config: ConfigDict, identities: dict[str, str | None]) -> dict[str, Any]:
    """What is kept beside the arrays of every checkpoint: what the run rests on, and the best step so far.

    The position in the data is a function of the step: input_pipeline.
    """
    content = json.loads(json.dumps(config.to_dict()))
    return {
        "config": content,
        "config_hash": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "versions": {"gensupcon_jax": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "identities": identities,
        "best": None,
    }


def _continued(record: dict[str, Any], saved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What goes on from a checkpoint's record; UserError when it is of another config, a warning for other versions."""
    for name, what in (("config_hash", "config"), ("identities", "teacher or weights")):
        if saved[name] != record[name]:
            raise UserError(
                f"the checkpoint of step {saved['step']} in {folder} was saved with another {what} than the one in "
                f"{folder / workdir.CONFIG}; put that file back, or choose another --workdir"
            )
    changed = [
        f"{name} {saved['versions'].get(name)} -> {version}"
        for name, version in record["versions"].items()
        if saved["versions"].get(name) != version
    ]
    if changed:
        _say(f"warning: saved with other versions ({', '.join(changed)}): what follows may differ in its last digits")
    return {"best": saved["best"]}


def _best(best: dict[str, Any] | None, scores: dict[str, tuple], step: int) -> tuple[bool, dict[str, Any]]:
    """Whether this step is the best by validation so far, of equals the first, and the one that is."""
    metric = next(name for name in ("knn/top1", "classifier/top1") if name in scores)
    value = scores[metric][0]
    is_best = best is None or value > best["value"]
    return is_best, {"step": step, "metric": metric, "value": value} if is_best else best


def _trained_seconds(folder: Path, step: int) -> float:
    """How long the steps up to this one took, over all starts of the run."""
    seconds = [
        row["train/seconds"] for row in workdir.read_metrics(folder) if row["step"] <= step and "train/seconds" in row
    ]
    return seconds[-1] if seconds else 0.0


def _refuse_divergence(
    config: ConfigDict,
    parts: Parts,
    mesh: Mesh,
    folder: Path,
    state: TrainState,
    frozen: dict[str, Any],
    batches_fn: Callable,
    seed_key: jax.Array,
    checkpoints: Checkpoints,
    record: dict[str, Any],
) -> NoReturn:
    """Save the last good state, which the step has kept, and raise UserError that says what happened."""
    # Its count as it was before the step: started again, the step gets another chance.
    state = state.replace(skipped_steps=state.skipped_steps - 1)
    good_step, skipped = int(state.step), int(state.skipped_steps)
    checkpoints.save(good_step, saved_fields(state), record)
    (batch,) = batches_fn(good_step, good_step + 1)
    found = divergence.first_bad_value(parts.objective, parts.view_fn, mesh, state, frozen, batch, seed_key)
    checkpoints.close()
    raise UserError(
        f"step {good_step + 1} is not finite: {found}"
        + (f"; {skipped} such steps were skipped before it (optimizer.max_skipped_steps)" if skipped else "")
        + f". {divergence.likely_causes(config.objective)}. The last good state, of step {good_step}, is saved in {folder}; "
        "start again with other settings in another --workdir"
    )


def _validation_scores(
    config: ConfigDict, dataset: datasets.Dataset, parts: Parts, state: TrainState, frozen: dict, mesh: Mesh
) -> dict[str, tuple[float | int, str]]:
    """Metric name -> (value, its name beside the progress bar): of the classifier where there is one, and of k-NN."""
    settings, scores = _extraction_settings(config, mesh), {}
    if config.objective != "contrastive" or config.classifier.beside:
        logits = evaluate.extract(
            lambda images: parts.predict_fn(state, frozen, images).logits, dataset.validation, **settings
        )
        accuracy = evaluate.top1(logits.argmax(1), dataset.validation.classes)
        scores["classifier/top1"] = (accuracy, "classifier")
    if config.objective == "contrastive":
        features = evaluate.dataset_features(
            lambda images: parts.predict_fn(state, frozen, images).features,
            _compared(config, dataset),
            ("train", "validation"),
            **settings,
        )
        neighbors, accuracy = evaluate.best_neighbors(features, **_knn_settings(config, dataset))
        scores |= {"knn/neighbors": (neighbors, ""), "knn/top1": (accuracy, "k-NN")}
    return scores


def _compared(config: ConfigDict, dataset: datasets.Dataset) -> datasets.Dataset:
    """With the training images that k-NN and probe compare with: all, or so many, always the same ones."""
    num = config.evaluate.train_images
    if num is None or num >= dataset.train.num_images:
        return dataset
    chosen = np.sort(epoch_order(0, 0, dataset.train.num_images)[:num])
    return dataclasses.replace(dataset, train=dataset.train.subset(chosen))


def _load_teacher(config: ConfigDict, description: dict, function: Callable | None) -> teachers.Teacher | None:
    fields = {
        name: value for name, value in config.teacher.items() if name not in ("weight", "temperature", "allow_poor")
    }
    teacher = teachers.load_teacher(
        **fields, dataset_description=description, function=function, dtype=config.model.dtype
    )
    if teacher is not None:
        teachers.check_classes(teacher, len(description["class_names"]))
    return teacher


def _frozen(config: ConfigDict, teacher: teachers.Teacher | None, given, mesh: Mesh) -> dict[str, Any]:
    frozen = {}
    if teacher is not None and config.teacher.weight > 0:
        frozen["teacher"] = teacher.variables
    if config.objective == "linear_probe":
        frozen["encoder"] = given.backbone_variables()
    return sharding.place(frozen, sharding.replicated(mesh))


def _initial_state(config: ConfigDict, parts: Parts, given, mesh: Mesh) -> TrainState:
    shardings = state_shardings(assemble.abstract_state(parts), mesh)
    state = jax.jit(parts.initial_state_fn, out_shardings=shardings)(_key(config, "init"))
    if given is None or config.objective == "linear_probe":
        return state
    return sharding.place(given.into(state), shardings)


def _key(config: ConfigDict, purpose: str) -> jax.Array:
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    return {"init": init_key, "step": step_key}[purpose]


def _dataset(config: ConfigDict, folder: Path, given: datasets.Dataset | None) -> datasets.Dataset:
    """What the config names, or what was handed over, with as many training images as are asked for."""
    if given is None:
        reading = {name: config.dataset[name] for name in datasets.Reading._fields if name in config.dataset}
        dataset = datasets.load(config.dataset.name, cache_folder=folder.parent / workdir.DATA_CACHE, **reading)
    else:
        config.dataset.name = "arrays"  # what the recipe named is not what is trained on
        dataset = datasets.seen_at(given, config.dataset.image_size)
    if config.dataset.train_images is not None:
        dataset = datasets.with_fewer_images(dataset, config.dataset.train_images)
    return dataset


def _steps_per_epoch(config: ConfigDict, dataset: datasets.Dataset) -> int:
    return steps_per_epoch(dataset.train.num_images, config.batch_size, config.dataset.remainder)


def _batches_fn(config: ConfigDict, dataset: datasets.Dataset, mesh: Mesh) -> Callable:
    scale = None if config.augment.policy == "none" else tuple(config.augment.crop_scale)
    crops = HostCrops(config.augment.num_views, scale, tuple(config.augment.crop_ratio))

    def batches(start_step: int, end_step: int, placement=None):
        return train_batches(
            dataset.train,
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=start_step,
            end_step=end_step,
            sharding=placement or sharding.batch_sharding(mesh),
            remainder=config.dataset.remainder,
            crops=crops,
        )

    return batches


@dataclasses.dataclass(frozen=True)
class _Pictured:
    """One batch as training sees it, on one device."""

    batch: Batch
    mixed: MixedBatch
    originals: np.ndarray


def _pictured_batch(config: ConfigDict, dataset: datasets.Dataset, parts: Parts, batches_fn: Callable) -> _Pictured:
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    (batch,) = batches_fn(0, 1, one_device)
    shown = epoch_order(config.seed, 0, dataset.train.num_images)[: min(summary.SHEET_IMAGES, config.batch_size)]
    mixed = jax.jit(parts.view_fn)(_key(config, "step"), batch.images, batch.labels, 0)
    return _Pictured(batch, mixed, centered_images(dataset.train, shown))


def _embed_fn(parts: Parts, state: TrainState, frozen: dict) -> Callable:
    """Normalized images -> what the report compares, on one device of this process alone."""
    variables = jax.device_get((state.replace(opt_state=None, queue=None), frozen))
    embed_fn = jax.jit(lambda variables, images: _embeddings(parts.objective.predict(*variables, images)))
    return functools.partial(embed_fn, variables)


def _embeddings(prediction) -> jax.Array:
    """What the report compares: unit embeddings, or the features of a network without a head, at unit length."""
    if prediction.embeddings is not None:
        return prediction.embeddings
    return prediction.features / jax.numpy.maximum(
        jax.numpy.linalg.norm(prediction.features, axis=1, keepdims=True), 1e-12
    )


def _advisor(config: ConfigDict, dataset: datasets.Dataset, chance_loss: float, state: TrainState) -> Advisor:
    momentum = config.objective == "contrastive" and config.loss.mode == "momentum"
    return Advisor(
        objective=config.objective,
        chance_loss=chance_loss,
        num_classes=dataset.num_classes,
        normalizer=config.loss.normalizer,
        learning_rate=config.optimizer.learning_rate,
        mode=config.loss.mode,
        batch_size=config.batch_size,
        queue_size=config.momentum_encoder.queue_size if momentum else 0,
        has_teacher=config.teacher.kind != "none",
        optimizer=config.optimizer.name,
        parameter_norm=float(optax.global_norm(state.params)),
        input_bound_share=config.dataset.input_bound_share,
        decoding_threads=(config.dataset.num_threads or os.cpu_count() or 1) if dataset.is_encoded else 0,
    )


def _opening(
    folder: Path, dataset: datasets.Dataset, state: TrainState, lengths: Lengths, start_step: int, mesh: Mesh
) -> str:
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    begin = f"goes on at step {start_step} of" if start_step else "trains for"
    return (
        f"{folder} {begin} {lengths.total_steps} steps ({lengths.per_epoch} an epoch): "
        f"{dataset.train.num_images} training images of {dataset.name}, {dataset.num_classes} classes, "
        f"{num_parameters:,} parameters, {mesh.size} x {mesh.devices.flat[0].device_kind}"
    )


def _knn_settings(config: ConfigDict, dataset: datasets.Dataset) -> dict[str, Any]:
    return {
        "neighbors": tuple(config.evaluate.neighbors),
        "temperature": config.evaluate.knn_temperature,
        "num_classes": dataset.num_classes,
    }


def _extraction_settings(config: ConfigDict, mesh: Mesh) -> dict[str, Any]:
    """Evaluation batches are rounded up to a multiple of the devices."""
    batch_size = -(-config.evaluate.batch_size // mesh.size) * mesh.size
    return {"batch_size": batch_size, "sharding": sharding.batch_sharding(mesh)}


def _report_data(
    config: ConfigDict,
    dataset: datasets.Dataset,
    data: DataShape,
    judged: summary.Judged,
    results: dict[str, Any],
    folder: Path,
    pictured: _Pictured,
    embed_fn: Callable,
    test_embeddings: np.ndarray,
) -> report.ReportData:
    pictures = summary.batch_pictures(pictured.mixed, embed_fn, mean=data.mean, std=data.std)
    num_sheet = len(pictures["view_images"])
    predictor, predictions = judged.main_predictions()
    return report.ReportData(
        title=folder.name,
        dataset=dataset.name,
        results=results,
        metrics=workdir.read_metrics(folder),
        chance_loss=results["chance_loss"],
        class_names=dataset.class_names,
        test_embeddings=test_embeddings,
        test_labels=judged.test.classes,
        test_predictions=predictions,
        predictor=predictor,
        original_images=pictured.originals[:num_sheet],
        original_labels=np.asarray(pictured.batch.labels[:num_sheet]).argmax(1),
        config=config.to_dict(),
        **pictures,
    )


def _say(text: str) -> None:
    if processes.is_first():
        print(text, file=sys.stderr, flush=True)
