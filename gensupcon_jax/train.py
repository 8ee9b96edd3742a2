"""The run: build, restore, loop, judge, report. The only room that sees the whole config."""

import collections
import dataclasses
import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gensupcon_jax import __version__, datasets, evaluate, objectives, optimizer, report, sharding, summary, workdir
from gensupcon_jax.augment import build_augment_fn, normalize
from gensupcon_jax.checkpoint import Checkpoints
from gensupcon_jax.config_check import check_combinations, check_config
from gensupcon_jax.input_pipeline import steps_per_epoch, train_batches
from gensupcon_jax.mixing import build_mix_fn
from gensupcon_jax.models import build_model
from gensupcon_jax.progress import Progress
from gensupcon_jax.state import TrainState, abstract, create_state, saved_fields
from gensupcon_jax.train_step import build_train_step_fn, build_view_fn

# More than 32 unawaited steps with collectives hang on several CPU devices; 2 keep an accelerator busy.
_STEPS_IN_FLIGHT = 2
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


class Durations(NamedTuple):
    """The lengths of a run, in steps."""

    per_epoch: int
    warmup_steps: int
    total_steps: int
    evaluate_steps: int
    checkpoint_steps: int


class Parts(NamedTuple):
    """Everything that the loop calls."""

    objective: objectives.Objective
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    view_fn: Callable
    train_step_fn: Callable
    predict_fn: Callable


def train_and_evaluate(
    config: ConfigDict,
    workdir_path: str | Path,
    dataset: datasets.Dataset | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Train the config's encoder, judge it, leave everything in the workdir; returns what results.json holds (ours).

    dataset: images and labels of your own (`datasets.from_arrays`); None: the one that `dataset.name` says.
    devices: None is all of them.  command: what to type to repeat the run, for the report.
    A workdir with the same config goes on where it stopped; a finished one gives its results again.
    Raises UserError, before anything compiles, for settings, data or a workdir that cannot work.
    """
    started = time.monotonic()
    folder = Path(workdir_path)
    check_config(config)
    config = config.copy_and_resolve_references()
    if dataset is None:
        dataset = datasets.load(config.dataset.name)
    else:
        config.dataset.name = "arrays"  # what the recipe named is not what is trained on
    mesh = sharding.make_mesh(devices)
    check_combinations(config, dataset, mesh.size)
    description = dataset.description()
    workdir.claim(folder, config.to_dict(), description)
    if (folder / workdir.RESULTS).exists():
        return json.loads((folder / workdir.RESULTS).read_text())

    mean, std = np.array(description["mean"], np.float32), np.array(description["std"], np.float32)
    durations = _durations(config, steps_per_epoch(len(dataset.train.images), config.batch_size))
    parts = _build(config, dataset, durations, mesh, mean, std)
    state = _train(config, dataset, parts, durations, mesh, folder)
    trained_seconds = time.monotonic() - started

    judged = summary.judge(
        lambda images: parts.predict_fn(state, images).features,
        dataset,
        knn=_knn_settings(config, dataset),
        penalties=tuple(config.evaluate.probe_penalties),
        extraction=_extraction_settings(config, mesh),
    )
    results = summary.accuracies(judged) | {
        "dataset": dataset.name,
        "num_train": len(dataset.train.images),
        "num_validation": len(dataset.validation.images),
        "num_test": len(dataset.test.images),
        "seed": config.seed,
        "steps": durations.total_steps,
        "epochs": durations.total_steps / durations.per_epoch,
        "device": mesh.devices.flat[0].device_kind,
        "num_devices": mesh.size,
        "versions": {"gensupcon_jax": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "train_seconds": trained_seconds,
        "seconds": time.monotonic() - started,
    }
    data = _report_data(config, dataset, parts, state, judged, results, folder, mean, std)
    report.write_report(folder / workdir.REPORT, dataclasses.replace(data, command=command))
    # Last: where it exists, all of the run exists.
    workdir.write_json(folder / workdir.RESULTS, results)
    return results


def _durations(config: ConfigDict, per_epoch: int) -> Durations:
    total_steps = config.steps if config.steps is not None else max(1, round(config.epochs * per_epoch))
    evaluate_steps = round(config.evaluate.every_epochs * per_epoch)
    return Durations(
        per_epoch=per_epoch,
        warmup_steps=min(round(config.optimizer.warmup_epochs * per_epoch), total_steps),
        total_steps=total_steps,
        evaluate_steps=evaluate_steps if config.evaluate.every_epochs == 0 else max(1, evaluate_steps),
        checkpoint_steps=max(1, round(config.checkpoint.every_epochs * per_epoch)),
    )


def _build(
    config: ConfigDict, dataset: datasets.Dataset, durations: Durations, mesh: Mesh, mean: np.ndarray, std: np.ndarray
) -> Parts:
    model = build_model(image_size=dataset.image_size, **config.model.to_dict())
    objective = objectives.contrastive(model, **config.loss.to_dict())
    schedule = optimizer.warmup_cosine(
        peak=config.optimizer.learning_rate,
        start=config.optimizer.warmup_learning_rate,
        final=config.optimizer.final_learning_rate,
        warmup_steps=durations.warmup_steps,
        total_steps=durations.total_steps,
    )
    augment_fn = build_augment_fn(image_size=dataset.image_size, mean=mean, std=std, **config.augment.to_dict())
    view_fn = build_view_fn(augment_fn, build_mix_fn(**config.mix.to_dict()))

    def predict(state, images):
        return objective.predict(state, None, normalize(images, mean, std))

    return Parts(
        objective=objective,
        tx=optimizer.sgd(schedule, momentum=config.optimizer.momentum, weight_decay=config.optimizer.weight_decay),
        schedule=schedule,
        view_fn=view_fn,
        train_step_fn=build_train_step_fn(objective, view_fn, mesh),
        predict_fn=jax.jit(predict, out_shardings=sharding.replicated(mesh)),
    )


def _initial_state(config: ConfigDict, dataset: datasets.Dataset, parts: Parts, mesh: Mesh) -> TrainState:
    def create(key):
        sample = jnp.zeros((1, *dataset.train.images.shape[1:]))
        return create_state(parts.objective.init(key, sample), parts.tx)

    return jax.jit(create, out_shardings=sharding.replicated(mesh))(_key(config, "init"))


def _key(config: ConfigDict, purpose: str) -> jax.Array:
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    return {"init": init_key, "step": step_key}[purpose]


def _train(
    config: ConfigDict, dataset: datasets.Dataset, parts: Parts, durations: Durations, mesh: Mesh, folder: Path
) -> TrainState:
    """The loop, from the newest checkpoint to the last step."""
    everywhere = sharding.replicated(mesh)
    end_step = durations.total_steps
    state = _initial_state(config, dataset, parts, mesh)
    seed_key = jax.device_put(_key(config, "step"), everywhere)
    checkpoints = Checkpoints(folder / workdir.CHECKPOINTS, keep=config.checkpoint.keep)
    start_step = checkpoints.latest_step() or 0
    if start_step:
        state = state.replace(**checkpoints.restore(start_step, abstract(saved_fields(state), everywhere)))
    metrics_writer = workdir.MetricsWriter(folder, start_step)
    progress = Progress(start_step=start_step, end_step=end_step, batch_size=config.batch_size)
    progress.say(_opening(folder, dataset, state, durations, start_step, mesh))

    batches = train_batches(
        dataset.train,
        seed=config.seed,
        batch_size=config.batch_size,
        start_step=start_step,
        end_step=end_step,
        sharding=sharding.batch_sharding(mesh),
    )
    in_flight = collections.deque()
    rate_step, rate_time = start_step, time.monotonic()
    for step, batch in enumerate(batches, start=start_step + 1):
        state, metrics = parts.train_step_fn(state, None, batch, seed_key)
        in_flight.append(metrics)
        if len(in_flight) > _STEPS_IN_FLIGHT:
            jax.block_until_ready(in_flight.popleft())
        progress.advance()

        row, notes = {}, {}
        if step % config.log_steps == 0 or step in (1, end_step):
            row = {f"train/{name}": float(value) for name, value in jax.device_get(metrics).items()}
            rate = (step - rate_step) * config.batch_size / (time.monotonic() - rate_time)
            rate_step, rate_time = step, time.monotonic()
            row |= {
                "train/learning_rate": float(parts.schedule(step - 1)),
                "train/images_per_second": rate,
                "train/epoch": step / durations.per_epoch,
            }
            notes["loss"] = f"{row['train/loss']:.4f}"
        if step == end_step or (durations.evaluate_steps and step % durations.evaluate_steps == 0):
            paused = time.monotonic()
            features = evaluate.dataset_features(
                lambda images, state=state: parts.predict_fn(state, images).features,
                dataset,
                ("train", "validation"),
                **_extraction_settings(config, mesh),
            )
            row["knn/neighbors"], row["knn/top1"] = evaluate.best_neighbors(features, **_knn_settings(config, dataset))
            notes["k-NN"] = f"{row['knn/top1']:.2f} %"
            rate_time += time.monotonic() - paused
        if row:
            progress.show(step, force="k-NN" in notes, **notes)
            metrics_writer.write(step, row)
        if step == end_step or step % durations.checkpoint_steps == 0:
            checkpoints.save(step, saved_fields(state))
    checkpoints.close()
    metrics_writer.close()
    progress.close()
    return state


def _opening(
    folder: Path, dataset: datasets.Dataset, state: TrainState, durations: Durations, start_step: int, mesh: Mesh
) -> str:
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    begin = f"goes on at step {start_step} of" if start_step else "trains for"
    return (
        f"{folder} {begin} {durations.total_steps} steps ({durations.per_epoch} an epoch): "
        f"{len(dataset.train.images)} training images of {dataset.name}, {dataset.num_classes} classes, "
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
    parts: Parts,
    state: TrainState,
    judged: summary.Judged,
    results: dict[str, Any],
    folder: Path,
    mean: np.ndarray,
    std: np.ndarray,
) -> report.ReportData:
    first_batch = next(
        train_batches(
            dataset.train,
            seed=config.seed,
            batch_size=config.batch_size,
            start_step=0,
            end_step=1,
            sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
        )
    )
    mixed = jax.jit(parts.view_fn)(_key(config, "step"), first_batch.images, first_batch.labels, 0)
    embed_fn = jax.jit(lambda images: parts.objective.predict(state, None, images).embeddings)
    pictures = summary.batch_pictures(mixed, embed_fn, mean=mean, std=std)
    num_sheet = len(pictures["view_images"])
    return report.ReportData(
        title=folder.name,
        dataset=dataset.name,
        results=results,
        metrics=workdir.read_metrics(folder),
        chance_loss=objectives.chance_loss(mixed.labels, **config.loss.to_dict()),
        class_names=dataset.class_names,
        test_embeddings=judged.test.values,
        test_labels=judged.test.classes,
        test_predictions=judged.linear.test_predictions,
        original_images=np.asarray(first_batch.images[:num_sheet]),
        original_labels=np.asarray(first_batch.labels[:num_sheet]).argmax(1),
        config=config.to_dict(),
        **pictures,
    )
