"""Computes a step that went wrong again, on the devices that are here and in another data type, and says where it is bad."""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs.fields import FIELDS, LONGER, SAME_CONTENT
from gensupcon_jax.data.datasets import Dataset
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.extension import Extension
from gensupcon_jax.method import spikes
from gensupcon_jax.method.state import state_shardings
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.run import assemble, diverged, divergence
from gensupcon_jax.run.bad_values import Bad
from gensupcon_jax.run.config_check import check_config, check_devices
from gensupcon_jax.run.diverged import KeptStep
from gensupcon_jax.run.record import changed_versions, new_record
from gensupcon_jax.run.run import build_run, teacher_of
from gensupcon_jax.store import workdir
from gensupcon_jax.text import flatten
from gensupcon_jax.weights import initial
from gensupcon_jax.weights.teachers import Teacher

_MOST_NAMED = 8  # images in a sentence


class Replayed(NamedTuple):
    """What a replay has found.

    kept: the step.  found: by data type, in the order of computation.  num_devices, device: of the replay.
    notes: sentences on what differs from the run.
    """

    kept: KeptStep
    found: dict[str, divergence.Looked]
    num_devices: int
    device: str
    notes: list[str]

    @property
    def is_bad(self) -> bool:
        """Whether the step goes wrong here too, in the first data type: it is not finite, or is the spike that it was."""
        first = next(iter(self.found.values()))
        rule = assemble.spike_rule(ConfigDict(self.kept.about["config"]))
        if first.bad is not None or rule is None or self.kept.about["why"] != diverged.SPIKE:
            return first.bad is not None
        return bool(rule.is_spike(_window(self.kept), {"loss": first.loss, "gradient_norm": first.gradient_norm}))


def replay(
    folder: str | Path,
    *,
    step: int | None = None,
    dtype: str | None = None,
    num_devices: int | None = None,
    dataset: Dataset | None = None,
    teacher_fn: Callable | None = None,
) -> Replayed:
    """Compute a kept step of a workdir again, and where it is not finite in another type than float32, in float32 as well.

    step: None: the newest.  dtype: None: that of the run.  num_devices: None: those of the run, or as
    many as there are and the batch can be divided among.
    dataset: of arrays, where the images of the step were too large to be kept.  teacher_fn: of `teacher.kind` callable.
    Raises UserError where there is no such step, or where its data, teacher or weights are not found or are others.
    """
    kept = diverged.read_kept_step(as_path(folder), step)
    config = _config_of(kept, as_path(folder))
    if dtype is not None:
        config.model.dtype = dtype
    devices = jax.devices()[: _num_devices(kept, config, num_devices)]
    config, notes = _with_statistics_of_the_run(kept, config, len(devices))
    mesh = sharding.make_mesh(devices)
    batch = _placed_batch(kept, config, mesh, as_path(folder), dataset)
    found = {}
    for each in dict.fromkeys([config.model.dtype, "float32"]):
        if not found or next(iter(found.values())).bad is not None:
            config.model.dtype = each
            found[each] = _looked(kept, config, mesh, batch, teacher_fn)
    notes += changed_versions(new_record(config, {}), kept.about)
    return Replayed(kept, found, mesh.size, mesh.devices.flat[0].device_kind, notes)


def _config_of(kept: KeptStep, folder: Path) -> ConfigDict:
    """The config of the step; paths and length are those that the run has now, as they may have changed since then."""
    values = copy.deepcopy(kept.about["config"])
    for name, value in flatten(workdir.read_config(folder) or {}).items():
        group, _, field = name.rpartition(".")
        if name in FIELDS and FIELDS[name].may_change in (SAME_CONTENT, LONGER):
            (values[group] if group else values)[field] = value
    config = ConfigDict(values)
    for group in [config, *(value for value in config.values() if isinstance(value, ConfigDict))]:
        for name, value in group.items():
            if isinstance(value, list):  # JSON has no tuples
                group[name] = tuple(value)
    try:
        check_config(config)
    except UserError as error:
        raise UserError(
            f"step {kept.step} was kept with gensupcon_jax {kept.about['versions']['gensupcon_jax']}, whose config this version "
            f"does not take ({str(error).splitlines()[0]}); use that version"
        ) from error
    return config


def _num_devices(kept: KeptStep, config: ConfigDict, asked: int | None) -> int:
    """As many devices as the run had; where there are fewer, as many as the batch can be divided among."""
    there = jax.device_count()
    if asked is not None:
        if asked > there:
            raise UserError(f"--devices is {asked}; allowed: 1 to {there}, the devices of this machine")
        check_devices(config, asked)
        return asked
    for number in range(min(there, kept.about["num_devices"]), 1, -1):
        try:
            check_devices(config, number)
        except UserError:
            continue
        return number
    check_devices(config, 1)
    return 1


def _with_statistics_of_the_run(kept: KeptStep, config: ConfigDict, num_devices: int) -> tuple[ConfigDict, list[str]]:
    """Where BatchNorm's statistics are those of a device, microbatches take the place of the devices that are not here."""
    had = kept.about["num_devices"]
    if had == num_devices or config.model.batch_norm != "local":
        return config, []
    parts, rest = divmod(had * config.microbatches, num_devices)
    can_be = config.objective == "contrastive" and not rest and config.batch_size % (num_devices * parts) == 0
    if not can_be:
        return config, [
            f"the run had {had} devices: BatchNorm's statistics, which are per device, are of other images here"
        ]
    config.microbatches = parts
    if config.loss.mode == "momentum" and had > 1:
        return config, [
            f"the run had {had} devices, which exchanged the images of keys: BatchNorm's statistics, which are per device, are "
            "of other keys here"
        ]
    return config, []


def _placed_batch(kept: KeptStep, config: ConfigDict, mesh: Mesh, folder: Path, dataset: Dataset | None) -> Batch:
    placed = sharding.batch_sharding(mesh)
    if kept.batch is not None:
        return Batch(**jax.device_put(kept.batch, placed))
    limit = diverged.MOST_IMAGE_BYTES >> 20
    why = f"the images of step {kept.step} take more than {limit} MiB and were not kept"
    try:
        run = build_run(config.copy_and_resolve_references(), folder, dataset, devices=list(mesh.devices.flat))
    except UserError as error:
        raise UserError(f"{why}, and its data cannot be read: {error}") from error
    found, needed = (data["fingerprint"] for data in (run.data_description, kept.about["data"]))
    if found != needed:
        raise UserError(
            f"{why}, and {run.dataset.name} now has other data: its fingerprint is {found}, that of the run {needed}; "
            "put back the data of the run"
        )
    (batch,) = run.batches(kept.step - 1, kept.step)
    return batch


def _looked(
    kept: KeptStep, config: ConfigDict, mesh: Mesh, batch: Batch, teacher_fn: Callable | None
) -> divergence.Looked:
    data = DataShape.of(kept.about["data"])._replace(
        class_shares=None if kept.about["class_shares"] is None else np.array(kept.about["class_shares"]),
        some_unlabeled=kept.about["some_unlabeled"],
    )
    lengths = assemble.Lengths(**kept.about["lengths"])
    lengths = lengths._replace(extensions=tuple(Extension(*each) for each in lengths.extensions))
    teacher = _teacher(kept, config, teacher_fn)
    parts = assemble.build_parts(config, data, lengths, mesh, teacher)
    state = diverged.state_like(kept, assemble.abstract_state(parts))
    frozen = assemble.frozen_variables(config, teacher, functools.partial(_encoder, kept, config, data))
    return divergence.look_inside(
        divergence.step_of(config, data, lengths, teacher, parts.at(kept.step - 1).view_fn, mesh),
        sharding.place(state, state_shardings(state, mesh)),
        sharding.place(frozen, sharding.replicated(mesh)),
        batch,
        sharding.place(jax.random.wrap_key_data(jnp.asarray(kept.seed_key)), sharding.replicated(mesh)),
    )


def _teacher(kept: KeptStep, config: ConfigDict, teacher_fn: Callable | None) -> Teacher | None:
    if config.teacher.kind == "callable" and teacher_fn is None:
        raise UserError(
            "teacher.kind is 'callable': a function of Python is not kept with the step; allowed: "
            "gensupcon_jax.run.replay.replay(folder, teacher_fn=...)"
        )
    teacher = teacher_of(config, kept.about["data"], teacher_fn)
    if teacher is None:
        return None
    _check_same("teacher", teacher.fingerprint, kept)
    of_run = kept.about["teacher"]
    mean, std = (np.array(of_run[name], np.float32) for name in ("mean", "std"))
    return teacher._replace(mean=mean, std=std, image_size=of_run["image_size"], output=of_run["output"])


def _encoder(kept: KeptStep, config: ConfigDict, data: DataShape) -> Any:
    """The variables of the encoder that a linear probe evaluates."""
    source = initial.open_weights(config.model.weights, kept.about["data"].get("weights_step"))
    given = initial.read_weights(source, assemble.encoder_of(config, data), data)
    assert given is not None  # a probe has weights
    _check_same("weights", given.fingerprint, kept)
    return given.backbone_variables()


def _check_same(what: str, fingerprint: str, kept: KeptStep) -> None:
    needed = kept.about["data"].get(what)
    if fingerprint != needed:
        raise UserError(
            f"the {what} of step {kept.step} are others now: their fingerprint is {fingerprint}, that of the run {needed}; put "
            f"back the {what} of the run"
        )


def replay_in_words(replayed: Replayed) -> str:
    """The result, in sentences: the step, where it is bad, the images, and whether float32 helps."""
    kept, (dtype, first) = replayed.kept, next(iter(replayed.found.items()))
    devices = f"{replayed.num_devices} x {replayed.device}"
    lines = [
        f"step {kept.step}, which was kept as {kept.about['why']}, in {dtype} on {devices} (the run: "
        f"{kept.about['config']['model']['dtype']} on {kept.about['num_devices']} x {kept.about['device']})",
        *replayed.notes,
        f"loss {first.loss:.6g}, norm of the gradient {first.gradient_norm:.6g}",
    ]
    if first.bad is None:
        is_spike = kept.about["why"] == diverged.SPIKE
        metrics = {"loss": first.loss, "gradient_norm": first.gradient_norm}
        lines += [spikes.heights_in_words(_window(kept), metrics)] if is_spike else []
        return "\n".join([*lines, "every value is finite here"])
    lines.append(divergence.bad_in_words(first.bad))
    lines += _place_in_words(first.bad) + _images_in_words(kept, first.bad)
    lines += _comparison(kept.found and kept.found.bad, first.bad)
    return "\n".join([*lines, _verdict(replayed)])


def _comparison(of_run: Bad | None, here: Bad) -> list[str]:
    """Whether the run found the same; nothing of a step that it skipped, in which it did not look."""
    if of_run is None:
        return []
    is_same = (of_run.kind, of_run.name) == (here.kind, here.name)
    return ["the run found the same" if is_same else f"the run found another: {divergence.bad_in_words(of_run)}"]


def _window(kept: KeptStep) -> dict[str, Any]:
    """The steps that a spike was measured by."""
    prefix = "spikes/"
    return {name.removeprefix(prefix): array for name, array in kept.state.items() if name.startswith(prefix)}


def _place_in_words(bad: Bad) -> list[str]:
    shape = " x ".join(map(str, bad.shape)) or "one number"
    index = f" at {list(bad.index)}" if bad.index else ""
    total = int(np.prod(bad.shape, dtype=np.int64))
    several = f", one of {bad.count} that are not finite" if bad.count > 1 else ""
    size = f" ({shape} on a device: {total} values)" if bad.shape else ""
    return [f"{bad.kind} {bad.name}{index}{size} of device {bad.device}: {bad.value}{several}"]


def _images_in_words(kept: KeptStep, bad: Bad) -> list[str]:
    if not bad.images:
        return []
    if len(bad.images) == len(kept.indices):
        return [f"images: all {len(kept.indices)} of the batch"]
    shown = [_image(kept, place) for place in bad.images[:_MOST_NAMED]]
    more = f", and {len(bad.images) - _MOST_NAMED} more" if len(bad.images) > _MOST_NAMED else ""
    mixed = "" if kept.about["config"]["mix"]["kind"] == "none" else "; each may be mixed with a partner of its block"
    return [f"images of the batch: {', '.join(shown)}{more}{mixed}"]


def _image(kept: KeptStep, place: int) -> str:
    name = f": {kept.names[place]}" if kept.names else ""
    return f"{place} (training image {int(kept.indices[place])}{name})"


def _verdict(replayed: Replayed) -> str:
    """Whether the range of bfloat16 is the cause."""
    if len(replayed.found) == 1:
        return f"in float32 the step is not finite: {_cause(next(iter(replayed.found.values())).bad)}"
    dtype, other = replayed.found.keys()
    bad = replayed.found[other].bad
    if bad is None:
        return f"in {other} every value is finite: the cause is the data type, {dtype}; set model.dtype to {other}"
    return f"in {other} it is not finite either ({divergence.bad_in_words(bad)}): {_cause(bad)}"


def _cause(bad: Bad | None) -> str:
    is_teacher = bad is not None and bad.kind == "predictions"
    return f"the cause is {'the teacher' if is_teacher else 'the data, the rate or the temperature'}, not the data type"
