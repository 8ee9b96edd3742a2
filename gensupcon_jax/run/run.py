"""A training run as one object: everything that is fixed before its first step, nothing that changes afterwards."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from gensupcon_jax.cluster import processes, sharding
from gensupcon_jax.data import datasets, input_pipeline, memory_cache
from gensupcon_jax.data.long_tail import with_long_tail
from gensupcon_jax.data.sampling import drawn_shares
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.data.splits import NO_CLASS, AnySplit, EncodedSplit
from gensupcon_jax.data.value_labels import rebinned
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation import final
from gensupcon_jax.evaluation.choices import Choices, choices_of_run, default_choices
from gensupcon_jax.evaluation.features import fitting_batch_size
from gensupcon_jax.method.state import TrainState, state_shardings
from gensupcon_jax.paths import Path
from gensupcon_jax.run import assemble, longer
from gensupcon_jax.run.advice import Advisor
from gensupcon_jax.run.class_similarity import label_similarity_of
from gensupcon_jax.run.config_check import check_combinations, check_config, check_devices
from gensupcon_jax.run.estimate import Amounts, amounts_left
from gensupcon_jax.run.given_weights import suited
from gensupcon_jax.run.graded import alike_by_degrees
from gensupcon_jax.run.local_views import local_crops, views_in_pixels
from gensupcon_jax.run.unlabeled import check_labels, notes_on_labels, with_instances
from gensupcon_jax.run.view_sizes import parts_of, weighted_steps
from gensupcon_jax.store import workdir
from gensupcon_jax.store.writers import RowFn, check_writers
from gensupcon_jax.weights import initial, teachers
from gensupcon_jax.weights.initial import GivenWeights

_TEACHER_IMAGES = 5_000  # of the training split, on which a teacher is checked
_TRAINING_ONLY = (
    "weight",
    "temperature",
    "allow_poor",
)  # fields of `teacher` that do not describe the teacher itself


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A training run before its first step, built by `build_run`.

    folder: the workdir.  data: sizes and statistics of the images.  teacher, given: a trained classifier, and weights to start
    from, where the config names them.  frozen: variables that are read and never updated, on every device.
    choices: of the evaluation, where there is no validation split.
    data_description: of the data set, with its fingerprint, computed once: it reads every image in memory; its mean and std are
    those that images are normalized with.  source_notes: sentences on the weights that it starts from.
    writers: where rows go in addition to metrics.jsonl and TensorBoard, see `store.writers`.  said: by `say`, for the report.
    """

    config: ConfigDict
    folder: Path
    dataset: datasets.Dataset
    data: DataShape
    lengths: assemble.Lengths
    mesh: Mesh
    teacher: teachers.Teacher | None
    given: GivenWeights | None
    parts: assemble.Parts
    frozen: dict[str, Any]
    data_description: dict[str, Any]
    source_notes: tuple[str, ...] = ()
    writers: tuple[str | RowFn, ...] = ()
    choices: Choices | None = None
    said: list[str] = dataclasses.field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line on standard error, from process 0 only, and keep it for the report."""
        self.said.append(text)
        say(text)

    def description(self) -> dict[str, Any]:
        """The content of `dataset.json`: the data, and the fingerprints and steps of what the run uses without saving it."""
        used = self.fingerprints() | {
            "teacher_step": self.teacher and self.teacher.step,
            "weights_step": self.given and self.given.step,
        }
        return self.data_description | {name: value for name, value in used.items() if value is not None}

    def fingerprints(self) -> dict[str, str | None]:
        """Those of the teacher and of the initial weights; None if there are none."""
        return {
            "teacher": self.teacher.fingerprint if self.teacher else None,
            "weights": self.given.fingerprint if self.given else None,
        }

    def notes(self) -> list[str]:
        """What a user should know before training, in sentences; the same at every start."""
        damaged = f"{len(self.dataset.damaged)} damaged images were left out; they are listed in {self.folder / workdir.DAMAGED}"
        found = [
            *self.dataset.notes,
            *notes_on_labels(self.dataset),
            *([damaged] if self.dataset.damaged else []),
            *self.source_notes,
        ]
        found += assemble.shortened(self.config, self.lengths.per_epoch, self.lengths.extensions)
        return found + longer.notes_on_extensions(self.folder, self.lengths.extensions, self.lengths.per_epoch)

    def key(self, purpose: str) -> jax.Array:
        """The random key for a purpose: "init" draws the parameters, "step" everything in a step."""
        init_key, step_key = jax.random.split(jax.random.key(self.config.seed))
        return {"init": init_key, "step": step_key}[purpose]

    def batches(self, start_step: int, end_step: int, placement: Any = None) -> Iterator[Batch]:
        """The batches of the steps after start_step up to end_step: a function of the config and the step alone."""
        for size, steps in parts_of(self.parts.sizes, range(start_step, end_step)):
            yield from self._batches_of_size(size, steps, placement)

    def _batches_of_size(self, size: int, steps: range, placement: Any) -> Iterator[Batch]:
        """The batches of these steps; encoded images are cropped to this size."""
        train, augment = self.dataset.train, self.config.augment
        train = dataclasses.replace(train, image_size=size) if isinstance(train, EncodedSplit) else train
        scale = None if augment.policy == "none" else tuple(augment.crop_scale)
        return input_pipeline.train_batches(
            train,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            steps=steps,
            sharding=placement or sharding.batch_sharding(self.mesh),
            order=self._order(),
            crops=input_pipeline.HostCrops(
                augment.num_views, scale, tuple(augment.crop_ratio), local_crops(self.config, size)
            ),
        )

    def indices(self, step: int) -> np.ndarray:
        """The numbers of the training images in the step after `step` of them."""
        return input_pipeline.orders_of(
            self.dataset.train, self.config.seed, self.config.batch_size, self._order()
        ).indices(step)

    def _order(self) -> input_pipeline.Order:
        return input_pipeline.Order(self.config.dataset.remainder, self.config.dataset.sampling)

    def initial_state(self) -> TrainState:
        """The state before the first step: drawn from the seed, or with the given weights."""
        shardings = state_shardings(assemble.abstract_state(self.parts), self.mesh)
        state = jax.jit(self.parts.initial_state_fn, out_shardings=shardings)(self.key("init"))
        if self.given is None or self.config.objective == "linear_probe":
            return state
        return sharding.place(self.given.into(state), shardings)

    def predict_fn(self, state: TrainState) -> Callable:
        """A function from the data's uint8 images to the `Prediction` of this state, the same on every device."""
        return lambda images: self.parts.predict_fn(state, self.frozen, images)

    def evaluation_settings(self) -> final.Settings:
        """How the network is evaluated."""
        fields = self.config.evaluate
        return final.Settings.of(
            fields,
            dataset=self.dataset,
            extraction={
                "batch_size": fitting_batch_size(fields.batch_size, self._num_compared(), self.mesh.size),
                "sharding": sharding.batch_sharding(self.mesh),
            },
            choices=self.choices,
            measures=tuple(fields.measures),
            fits_probe=fields.linear_probe,
        )

    def compared_dataset(self) -> datasets.Dataset:
        """The data with the training images for k-NN and probe, always the same.

        All that have a label, or `evaluate.train_images` of them.
        """
        dataset = self.dataset.only_labeled()
        num, train = self.config.evaluate.train_images, dataset.train
        if num is None or num >= train.num_images:
            return dataset
        chosen = np.sort(input_pipeline.epoch_order(0, 0, train.num_images)[:num])
        return dataclasses.replace(dataset, train=train.subset(chosen))

    def _num_compared(self) -> list[int]:
        """The sizes of the splits of `compared_dataset`."""
        num, dataset = self.config.evaluate.train_images, self.dataset
        sizes = [split.num_images for name, split in dataset.splits.items() if name != "train"]
        labeled = int(dataset.train.is_labeled.sum())
        return [*sizes, labeled if num is None else min(num, labeled)]

    def teacher_images(self) -> tuple[AnySplit, str] | None:
        """The images on which the teacher is checked, and their name; None where no image has a label.

        Without a validation split, some of the training images that have one.
        """
        if self.dataset.validation is not None:
            return self.dataset.validation, "validation images"
        if not self.dataset.has_labels:
            return None
        train = self.dataset.only_labeled().train
        chosen = np.sort(input_pipeline.epoch_order(0, 0, train.num_images)[:_TEACHER_IMAGES])
        return train.subset(chosen), f"{len(chosen)} training images, as there is no validation split,"

    def class_shares(self) -> list[float]:
        """The share of each class in what training sees."""
        return _class_shares(self.dataset, self.config.dataset.sampling).tolist()

    def separable_share(self) -> float | None:
        """The share of the chance-level loss that perfectly separated classes remove; None: not known.

        An image without a label is a class, too. Where labels are alike by degrees, it is the share that embeddings remove whose
        similarities follow those of the labels.
        """
        if (
            self.dataset.label_kind != "class"
            and self.config.objective == "contrastive"
            and self.config.loss.use_labels
        ):
            share = alike_by_degrees(self.config, self.dataset)
        else:
            shares = with_instances(self.config, self.dataset, self.class_shares())
            share = assemble.separable_loss(self.config, shares)
        return share if share is None else min(share, 1.0)  # fewer contrasts than images without a label

    def amounts_left(self, step: int) -> Amounts:
        """What this run has still to do after a step."""
        compared = self.compared_dataset()
        num_images = {"validation": 0} | {name: split.num_images for name, split in compared.splits.items()}
        batch_views = round(self.config.batch_size * views_in_pixels(self.config, self.parts.sizes[0].size))
        left = amounts_left(self.lengths, num_images, batch_views, step)
        return left._replace(weighted_steps=weighted_steps(self.parts.sizes, step))

    def advisor(self, state: TrainState, chance_loss: float) -> Advisor:
        """The advisor that reads this run's metrics."""
        config = self.config
        momentum = config.objective == "contrastive" and config.loss.mode == "momentum"
        return Advisor(
            objective=config.objective,
            chance_loss=chance_loss,
            separable=self.separable_share(),
            num_classes=self.dataset.num_classes,
            label_kind=self.dataset.label_kind,
            normalizer=config.loss.normalizer,
            learning_rate=config.optimizer.learning_rate,
            mode=config.loss.mode,
            batch_size=config.batch_size,
            queue_size=config.momentum_encoder.queue_size if momentum else 0,
            has_teacher=config.teacher.kind != "none",
            optimizer=config.optimizer.name,
            parameter_norm=float(jax.jit(optax.global_norm)(state.params)),
            input_bound_share=config.dataset.input_bound_share,
            decoding_threads=(config.dataset.num_threads or os.cpu_count() or 1) if self.dataset.is_encoded else 0,
        )


def build_run(
    config: ConfigDict,
    folder: Path,
    dataset: datasets.Dataset | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    teacher_fn: Callable | None = None,
    writers: Sequence[str | RowFn] = (),
) -> Run:
    """Read the data, check and assemble the run of a config; nothing is compiled or written into the workdir.

    dataset: in place of the one that `dataset.name` names.  teacher_fn: the teacher of kind "callable".
    Raises UserError for settings, data, a teacher or weights that cannot work.
    """
    check_config(config)
    check_writers(writers)
    config = config.copy_and_resolve_references()
    mesh = sharding.make_mesh(devices)
    check_devices(config, mesh.size)  # before the data is read
    dataset = read_dataset(config, folder, dataset)
    check_combinations(config, dataset.train.num_images, mesh.size)
    source = initial.open_weights(config.model.weights, config.model.weights_step)
    dataset, of_data, description, notes = suited(config, dataset, source)
    data = DataShape.of(description)._replace(
        class_shares=_class_shares(dataset, config.dataset.sampling),
        some_unlabeled=not dataset.train.is_labeled.all(),  # with several labels: that has none of them
    )
    per_epoch = input_pipeline.steps_per_epoch(dataset.train.num_images, config.batch_size, config.dataset.remainder)
    total_steps = assemble.lengths(config, per_epoch).total_steps
    lengths = assemble.lengths(config, per_epoch, longer.extensions(folder, config, total_steps, per_epoch))
    if said := label_similarity_of(config.loss.label_similarity, data.num_classes)[1]:
        say(said)
    check_labels(config, dataset)
    teacher = teacher_of(config, of_data, teacher_fn)
    given = initial.read_weights(source, assemble.encoder_of(config, data), data)
    parts = assemble.build_parts(config, data, lengths, mesh, teacher)
    frozen = assemble.frozen_variables(config, teacher, lambda: given and given.backbone_variables())
    frozen = sharding.place(frozen, sharding.replicated(mesh))
    own = (notes, tuple(writers), _choices(config, dataset))
    return Run(config, folder, dataset, data, lengths, mesh, teacher, given, parts, frozen, description, *own)


def _choices(config: ConfigDict, dataset: datasets.Dataset) -> Choices | None:
    """What takes the place of a choice on the validation split; None where there is one, or nothing to choose."""
    fields = config.evaluate
    if not dataset.has_labels:
        return None
    if dataset.validation is not None:
        if fields.choices_from is None:
            return None
        raise UserError(
            f"evaluate.choices_from is {fields.choices_from!r}; allowed with {dataset.num_validation} validation images, "
            "on which this run chooses: None"
        )
    defaults = default_choices(fields.neighbors, fields.probe_penalties)
    return defaults if fields.choices_from is None else choices_of_run(fields.choices_from, defaults)


def _class_shares(dataset: datasets.Dataset, sampling: str) -> np.ndarray:
    """The share of each class in what training sees; images are drawn by their most likely class.

    With several labels per image: the share of the images that have each label.
    """
    train = dataset.train
    if dataset.label_kind == "several":
        return train.labels_of(np.arange(train.num_images)).mean(axis=0, dtype=np.float64)
    if sampling == "uniform":
        return train.class_shares
    return drawn_shares(np.bincount(train.classes[train.is_labeled], minlength=train.num_classes), sampling)


def say(text: str) -> None:
    """Print a line on standard error, from process 0 only."""
    if processes.is_first():
        print(text, file=sys.stderr, flush=True)


def read_dataset(config: ConfigDict, folder: Path, given: datasets.Dataset | None = None) -> datasets.Dataset:
    """The data that the config names, or the given data, with the training images that the config asks for."""
    fields = config.dataset
    if given is None:
        reading = {name: config.dataset[name] for name in datasets.Reading._fields if name in config.dataset}
        caches = {"cache_folder": folder.parent / workdir.DATA_CACHE, "arrays_folder": memory_cache.user_folder()}
        dataset = datasets.load(config.dataset.name, **caches, **reading)
    else:
        config.dataset.name = "arrays"  # the name in the recipe is not that of the given data
        if config.dataset.label_kind != "class":  # asked for
            datasets.check_label_kind(given, config.dataset.label_kind)
        config.dataset.label_kind = given.label_kind
        check_config(config)  # once more, as other fields may not go with this kind
        dataset = datasets.in_channels(given, config.dataset.channels)
        dataset = datasets.seen_at(dataset, config.dataset.image_size, config.dataset.center_share)
    if dataset.label_kind == "value":
        bins = {"num_bins": fields.num_bins, "width": fields.value_width, "value_range": fields.value_range}
        dataset = rebinned(dataset, **bins)
    if config.dataset.train_images is not None:
        dataset = datasets.with_fewer_images(dataset, config.dataset.train_images)
    if config.dataset.imbalance_factor is not None:
        dataset = with_long_tail(dataset, config.dataset.imbalance_factor)
    if config.dataset.labeled_images is not None:
        dataset = datasets.with_fewer_labels(dataset, config.dataset.labeled_images)
    return dataset


def teacher_of(config: ConfigDict, description: dict, function: Callable | None) -> teachers.Teacher | None:
    """The teacher that the config names, None without one; description: of the data."""
    fields = {name: value for name, value in config.teacher.items() if name not in _TRAINING_ONLY}
    if config.teacher.kind != "none" and tuple(description["class_names"]) == (NO_CLASS,):
        raise UserError(
            f"teacher.kind is {config.teacher.kind!r}, but no image of {description['name']} has a label that says which "
            "classes there are; allowed: teacher.kind=none, labels of some images, or from_arrays(..., class_names=...) with "
            "those of the teacher"
        )
    teacher = teachers.load_teacher(
        **fields, dataset_description=description, function=function, dtype=config.model.dtype
    )
    if teacher is not None:
        teachers.check_classes(teacher, len(description["class_names"]))
    return teacher
