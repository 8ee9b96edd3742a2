"""From a checked config to the functions that the loop calls. Shapes only: nothing is compiled or drawn here."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from gensupcon_jax import verdicts
from gensupcon_jax.cluster import sharding
from gensupcon_jax.data.shapes import Batch, DataShape
from gensupcon_jax.extension import Extension
from gensupcon_jax.losses import AnchorLoss
from gensupcon_jax.method import diagnostics, objectives, optimizer
from gensupcon_jax.method.averages import Average, with_average
from gensupcon_jax.method.extended import extended
from gensupcon_jax.method.network import Microbatches
from gensupcon_jax.method.prototypes import Prototypes
from gensupcon_jax.method.spikes import SpikeRule
from gensupcon_jax.method.state import TrainState, create_state
from gensupcon_jax.method.train_step import build_train_step_fn, build_view_fn
from gensupcon_jax.models import ENCODER_FIELDS, Classifier, HeadedEncoder, build_model
from gensupcon_jax.run.class_similarity import label_similarity_of
from gensupcon_jax.run.durations import duration_steps
from gensupcon_jax.run.local_views import LOCAL_FIELDS, check_local_views, local_crops
from gensupcon_jax.run.view_sizes import SIZE_FIELDS, SizedSteps, check_view_sizes, size_at, view_sizes
from gensupcon_jax.similarities import Similarity
from gensupcon_jax.views.augment import build_augment_fn, choose_auto_policy, normalize, resize
from gensupcon_jax.views.mixing import build_mix_fn
from gensupcon_jax.weights import teachers

_UNITS = ("steps", "images", "epochs")  # of a duration; the first that is given counts
_SHORT_WARMUP = 0.1  # share of the run that a warm-up gets which would be longer than the run


# Fields of `optimizer` that make its rate.
_OF_THE_RATE = (
    "schedule",
    "schedule_per",
    "learning_rate",
    "final_learning_rate",
    "decay_epochs",
    "decay_factor",
    "extension",
)


class Lengths(NamedTuple):
    """The durations of a run, in steps; evaluate_steps 0: only at the end.  extensions: by which it became longer."""

    per_epoch: int
    warmup_steps: int
    total_steps: int
    evaluate_steps: int
    checkpoint_steps: int
    extensions: tuple[Extension, ...] = ()

    @property
    def planned_steps(self) -> int:
        """Those for which the schedules were made: all, or those before the first extension."""
        return self.extensions[0].start if self.extensions else self.total_steps


class SizedParts(NamedTuple):
    """What depends on the size of the views: the functions of the steps that have it."""

    size: int
    steps: range
    view_fn: Callable
    train_step_fn: Callable


class Parts(NamedTuple):
    """Everything that the loop calls.

    sized: one entry for each size of the views, in turn.  view_fn, train_step_fn: those of the first.
    """

    objective: objectives.Objective
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    sized: tuple[SizedParts, ...]
    predict_fn: Callable
    initial_state_fn: Callable

    @property
    def view_fn(self) -> Callable:
        """From stored images to views, of the first step."""
        return self.sized[0].view_fn

    @property
    def train_step_fn(self) -> Callable:
        """The first step."""
        return self.sized[0].train_step_fn

    @property
    def sizes(self) -> tuple[SizedSteps, ...]:
        """The sizes of the views, and the steps that have them."""
        return tuple(SizedSteps(each.size, each.steps) for each in self.sized)

    def at(self, step: int) -> SizedParts:
        """The functions of the step after `step` of them."""
        return self.sized[size_at(self.sizes, step)]


def lengths(config: ConfigDict, per_epoch: int, extensions: tuple[Extension, ...] = ()) -> Lengths:
    """The config's durations, which may be given in epochs, steps or images; a warm-up longer than the run is shortened."""
    asked = _asked(config, per_epoch)._replace(extensions=extensions)
    return asked._replace(
        warmup_steps=_fitting_warmup(asked.warmup_steps, asked.planned_steps),
        checkpoint_steps=max(1, asked.checkpoint_steps),
    )


def _fitting_warmup(warmup_steps: int, total_steps: int) -> int:
    return warmup_steps if warmup_steps <= total_steps else math.ceil(_SHORT_WARMUP * total_steps)


def shortened(config: ConfigDict, per_epoch: int, extensions: tuple[Extension, ...] = ()) -> list[str]:
    """A sentence on the durations of a config that are longer than its run, or than a part with its own rate, or none."""
    asked, used = _asked(config, per_epoch), lengths(config, per_epoch, extensions)
    total, planned, found = asked.total_steps, used.planned_steps, []
    parts = [planned, *(each.end - each.start for each in extensions if each.how == "rewarm")]
    if asked.warmup_steps > min(parts) > 0:
        field = _given(config.optimizer, "warmup_", "optimizer.warmup_")
        fitting = dict.fromkeys(_fitting_warmup(used.warmup_steps, part) for part in parts)
        found.append(
            f"the warm-up of {asked.warmup_steps} ({field}) is shortened to {', then '.join(map(str, fitting))}"
        )
    every = (("evaluate.every_", asked.evaluate_steps), ("checkpoint.every_", asked.checkpoint_steps))
    rare = [_given(config[name.split(".")[0]], "every_", name) for name, steps in every if steps > total > 0]
    if rare:
        found.append(f"{' and '.join(rare)} {'are' if len(rare) > 1 else 'is'} longer, so only its end counts")
    decays = [epoch for epoch in config.optimizer.decay_epochs if epoch * per_epoch >= max(parts)]
    if decays and config.optimizer.schedule == "step" and total > 0:
        listed = ", ".join(f"{epoch:g}" for epoch in decays)
        found.append(
            f"the rate is not lowered at the epochs {listed} (optimizer.decay_epochs), which it does not reach"
        )
    first = f", {planned} before it was made longer" if extensions else ""
    return [f"this run has {total} steps{first}: {'; '.join(found)}"] if found else []


def _asked(config: ConfigDict, per_epoch: int) -> Lengths:
    def steps(group: ConfigDict, prefix: str, name: str) -> int:
        given = {unit: group[prefix + unit] for unit in _UNITS}
        return duration_steps(**given, steps_per_epoch=per_epoch, batch_size=config.batch_size, name=name)

    return Lengths(
        per_epoch=per_epoch,
        warmup_steps=steps(config.optimizer, "warmup_", "optimizer.warmup"),
        total_steps=steps(config, "", ""),
        evaluate_steps=steps(config.evaluate, "every_", "evaluate.every"),
        checkpoint_steps=steps(config.checkpoint, "every_", "checkpoint.every"),
    )


def _given(group: ConfigDict, prefix: str, name: str) -> str:
    """The field of a duration that counts, with its value: optimizer.warmup_epochs 10."""
    unit = next(unit for unit in _UNITS if group[prefix + unit] is not None)
    return f"{name}{unit} {group[prefix + unit]:g}"


def build_parts(
    config: ConfigDict,
    data: DataShape,
    durations: Lengths,
    mesh: Mesh | AbstractMesh,
    teacher: teachers.Teacher | None = None,
) -> Parts:
    """The functions of a run."""
    objective, average = _averaged(config, build_objective(config, data, durations, teacher), durations)
    settings = {name: value for name, value in config.optimizer.items() if not name.startswith("warmup_")}
    max_skipped_steps, rule = settings.pop("max_skipped_steps"), spike_rule(config)
    settings = {
        name: value for name, value in settings.items() if name not in _OF_THE_RATE and not name.startswith("spike_")
    }
    schedule = _rate(config, durations)
    tx = optimizer.build_optimizer(schedule, **settings)
    average_fn = average and average.updated

    def sized(size: int, steps: range) -> SizedParts:
        view_fn = _view_fn(config, data, size)
        step_fn = build_train_step_fn(objective, view_fn, mesh, max_skipped_steps, average_fn, rule)
        return SizedParts(size, steps, view_fn, step_fn)

    def predict(state, frozen, images):
        seen = resize(images, data.image_size, data.center_share)
        return objective.predict(state, frozen, normalize(seen, data.mean, data.std))

    def initial_state(key):
        sample = jnp.zeros((1, data.image_size, data.image_size, data.num_channels))
        fields = objective.init(key, sample)
        return create_state(fields if rule is None else fields | {"spikes": rule.empty()}, tx)

    return Parts(
        objective=objective,
        tx=tx,
        schedule=schedule,
        sized=tuple(
            sized(*each) for each in view_sizes(config, data.image_size, durations.per_epoch, durations.total_steps)
        ),
        predict_fn=jax.jit(predict, out_shardings=sharding.replicated(mesh)),
        initial_state_fn=initial_state,
    )


def _rate(config: ConfigDict, durations: Lengths) -> optax.Schedule:
    """The learning rate of each step, also of those by which a finished run became longer."""
    fields = {name: config.optimizer[name] for name in _OF_THE_RATE if name != "extension"}
    build_fn = functools.partial(optimizer.build_schedule, **fields, steps_per_epoch=durations.per_epoch)

    def again(last, num_steps):
        warmup_steps = _fitting_warmup(durations.warmup_steps, num_steps)
        return build_fn(warmup_learning_rate=last, warmup_steps=warmup_steps, total_steps=num_steps)

    first = build_fn(
        warmup_learning_rate=config.optimizer.warmup_learning_rate,
        warmup_steps=durations.warmup_steps,
        total_steps=durations.planned_steps,
    )
    return extended(first, durations.extensions, again)


def spike_rule(config: ConfigDict) -> SpikeRule | None:
    """What is a spike, None where none is looked for."""
    fields = config.optimizer
    return SpikeRule(fields.spike_deviations, fields.spike_window) if fields.spike_deviations else None


def _view_fn(config: ConfigDict, data: DataShape, size: int) -> Callable:
    """From stored images to views of this size, mixed, and to local views where the config has them."""
    fields = {name: value for name, value in config.augment.items() if name not in (*LOCAL_FIELDS, *SIZE_FIELDS)}
    fields["auto_policy"] = choose_auto_policy(config.augment.auto_policy, data.name, data.image_size)
    of_data = {"mean": data.mean, "std": data.std, "dataset_name": data.name}
    augment_fn = build_augment_fn(image_size=size, **of_data, **fields)
    local_augment_fn = None
    if local := local_crops(config, size):
        fields |= {"num_views": local.num_views, "crop_scale": local.scale}
        local_augment_fn = build_augment_fn(image_size=local.size, **of_data, **fields)
    mix_fn = build_mix_fn(**config.mix.to_dict())
    return build_view_fn(
        augment_fn, mix_fn, _num_places(config, data), local_augment_fn, use_labels=config.loss.use_labels
    )


def _averaged(
    config: ConfigDict, objective: objectives.Objective, durations: Lengths
) -> tuple[objectives.Objective, Average | None]:
    """The objective that evaluates what `evaluate.encoder` says, and the average that the step has to update."""
    if config.evaluate.encoder == "online":
        return objective, None
    is_kept = config.objective == "contrastive" and config.loss.mode == "momentum"
    fields = config.momentum_encoder
    length = {"total_steps": durations.planned_steps, "extensions": durations.extensions}
    decay = objectives.Momentum(fields.momentum, fields.schedule, **length)
    return with_average(objective, is_kept=is_kept), None if is_kept else Average(decay)


def encoder_of(config: ConfigDict, data: DataShape) -> HeadedEncoder:
    """The backbone and head of a config's `model` fields; UserError for local views of a size that it cannot take."""
    fields = {name: value for name, value in config.model.items() if name in ENCODER_FIELDS}
    model = build_model(image_size=data.image_size, **fields)
    check_local_views(config, model, data)
    check_view_sizes(config, model)
    return model


def build_objective(
    config: ConfigDict,
    data: DataShape,
    durations: Lengths,
    teacher: teachers.Teacher | None = None,
    *,
    unrolled: bool = False,
) -> objectives.Objective:
    """The config's objective; unrolled: microbatches without a loop, for a look inside."""
    microbatches = Microbatches(config.microbatches, unrolled)
    model, classifier = encoder_of(config, data), Classifier(data.num_classes)
    of_classifier = {
        "label_smoothing": config.classifier.label_smoothing,
        "label_kind": config.dataset.label_kind,
    }
    if config.objective == "cross_entropy":
        of_teacher = teacher_labels(config, data, teacher)
        return objectives.cross_entropy(
            model, classifier, **of_classifier, teacher=of_teacher, microbatches=microbatches
        )
    if config.objective == "linear_probe":
        return objectives.linear_probe(model, classifier, **of_classifier)
    loss = _loss_fields(config, data.num_classes)
    return objectives.contrastive(
        model,
        **{name: value for name, value in loss.items() if name != "symmetric"},
        num_views=config.augment.num_views,
        num_classes=data.num_classes,
        num_places=_num_places(config, data),
        momentum=_momentum(config, durations),
        teacher=teacher_labels(config, data, teacher),
        classifier=classifier if config.classifier.beside or config.prototypes.use else None,
        **of_classifier,
        prototypes=_prototypes(config, data.class_shares),
        microbatches=microbatches,
        diagnose_fn=functools.partial(
            _diagnose,
            scale=config.loss.temperature / (config.loss.base_temperature or config.loss.temperature),
            normalizer=config.loss.normalizer,
            label_similarity=loss["label_similarity"],
        ),
    )


def _num_places(config: ConfigDict, data: DataShape) -> int | None:
    """The images of a block whose mixes are told apart, where some have no label; None where all images have one."""
    if config.loss.use_labels and not data.some_unlabeled:
        return None
    is_apart = config.mix.kind == "none" or config.objective != "contrastive" or has_teacher(config)
    return 1 if is_apart else config.mix.block


def has_teacher(config: ConfigDict) -> bool:
    """Whether a teacher's predictions are labels."""
    return config.teacher.kind != "none" and config.teacher.weight > 0


def _loss_fields(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """The config's `loss` fields, with the similarity of labels in place of its name."""
    similarity, _ = label_similarity_of(config.loss.label_similarity, num_classes)
    fields = {name: value for name, value in config.loss.items() if name != "use_labels"}
    return fields | {"label_similarity": similarity}


def frozen_variables(
    config: ConfigDict, teacher: teachers.Teacher | None, encoder_variables_fn: Callable[[], Any]
) -> dict[str, Any]:
    """The variables that a step reads and never updates: those of a teacher, and of the encoder of a linear probe."""
    frozen = {}
    if teacher is not None and config.teacher.weight > 0:
        frozen["teacher"] = teacher.variables
    if config.objective == "linear_probe":
        frozen["encoder"] = encoder_variables_fn()
    return frozen


def chance_loss(config: ConfigDict, batch: objectives.MixedBatch, class_shares: Sequence[float]) -> float:
    """The loss of a network that has learned nothing about the images.

    batch: of which the labels are read.  class_shares: of the training split; with several labels per image, the
    share of the images that have each. Contrastive: all embeddings are equal. Otherwise: every image gets these shares as its
    probabilities.
    """
    if config.objective != "contrastive":
        smoothing = config.classifier.label_smoothing
        if config.dataset.label_kind == "several":
            shares = [(1 - smoothing) * share + smoothing / 2 for share in class_shares]
            return sum(verdicts.entropy((share, 1 - share)) for share in shares)
        return verdicts.entropy((1 - smoothing) * share + smoothing / len(class_shares) for share in class_shares)
    momentum = config.loss.mode == "momentum"
    return objectives.contrastive_chance_loss(
        batch,
        queue_size=config.momentum_encoder.queue_size if momentum else 0,
        queue_labels=config.momentum_encoder.queue_labels,
        prototypes=_prototypes(config, np.asarray(class_shares)),
        **{**_loss_fields(config, batch.labels.shape[-1]), "symmetric": momentum and config.loss.symmetric},
    )


def num_contrasts(config: ConfigDict) -> int:
    """The contrasts of one anchor of the contrastive loss."""
    views, batch = config.augment.num_views, config.batch_size
    if config.loss.mode == "all":
        return batch * views - 1
    return batch * (views - 1) + (config.momentum_encoder.queue_size if config.loss.mode == "momentum" else 0)


def separable_loss(config: ConfigDict, class_shares: Sequence[float]) -> float | None:
    """The share of the chance-level loss that perfectly separated classes remove; None: not known."""
    if config.objective != "contrastive" and config.dataset.label_kind == "value":
        return None  # a number is a distribution over several bins, whose entropy remains
    if config.objective != "contrastive" or config.loss.denominator == "balanced":
        return 1.0
    return verdicts.separable_share(verdicts.entropy(class_shares), num_contrasts(config))


def abstract_batch(config: ConfigDict, data: DataShape, view_size: int | None = None) -> Batch:
    """Shapes of one step's batch; view_size: of the views, None: that of evaluations."""
    size = (view_size or data.image_size) if data.is_encoded else data.stored_size or data.image_size
    views = (config.augment.num_views,) if data.is_encoded else ()
    images = (config.batch_size, *views, size, size, data.num_channels)
    local = local_crops(config, view_size or data.image_size) if data.is_encoded else None
    shapes: list[Any] = [
        jax.ShapeDtypeStruct(images, jnp.uint8),
        jax.ShapeDtypeStruct((config.batch_size, data.num_classes), jnp.float32),
    ]
    if local is not None:
        local_images = (config.batch_size, local.num_views, local.size, local.size, data.num_channels)
        shapes.append(jax.ShapeDtypeStruct(local_images, jnp.uint8))
    return Batch(*shapes)


def abstract_state(parts: Parts) -> TrainState:
    """Shapes of the state before the first step."""
    return jax.eval_shape(parts.initial_state_fn, jax.random.key(0))


def _momentum(config: ConfigDict, durations: Lengths) -> objectives.Momentum | None:
    if config.loss.mode != "momentum":
        return None
    return objectives.Momentum(
        **config.momentum_encoder.to_dict(),
        batch_size=config.batch_size,
        symmetric=config.loss.symmetric,
        total_steps=durations.planned_steps,
        extensions=durations.extensions,
        shuffle_devices=config.model.batch_norm == "local",
    )


def _prototypes(config: ConfigDict, class_shares: np.ndarray | None) -> Prototypes | None:
    """The config's class centers; where the shares of the classes are not known, as in a plan, they are equal."""
    fields = config.prototypes
    if not fields.use:
        return None
    return Prototypes(fields.alpha, fields.beta, fields.label_smoothing, class_shares if fields.prior else None)


def teacher_labels(
    config: ConfigDict, data: DataShape, teacher: teachers.Teacher | None
) -> objectives.TeacherLabels | None:
    """The teacher's part in the loss; None where it has none."""
    if teacher is None or config.teacher.weight == 0:
        return None
    fixed = teacher._replace(variables=None)  # the arrays are passed as the step's frozen argument
    probabilities_fn = functools.partial(
        teachers.teacher_probabilities,
        fixed,
        student_mean=data.mean,
        student_std=data.std,
        temperature=config.teacher.temperature,
    )
    return objectives.TeacherLabels(probabilities_fn, config.teacher.weight)


def _diagnose(
    pairs: list[objectives.Pair],
    terms_fn: Callable,
    axis_name: str | None,
    *,
    scale: float,
    normalizer: str,
    label_similarity: str | Similarity,
) -> dict[str, Any]:
    """The training diagnostics of the first query view, and the accuracy of local views.

    The chance loss is of the first query view as well, as all views have as many contrasts; with local views, of all anchors.
    """
    shown = pairs if pairs[-1].is_local else pairs[:1]
    terms = [terms_fn(_at_chance(pair), "labels") for pair in shown]
    settings = {"label_similarity": label_similarity, "axis_name": axis_name}
    first, teacher = shown[0], None
    if "probabilities" in first.anchors:
        teacher = first.anchors["probabilities"], (first.contrasts or {}).get("probabilities")
    of_first = settings | {"contrast_weights": terms[0]["contrast_weights"]}
    metrics = diagnostics.batch_diagnostics(*_labeled(first, terms[0]["instances"]), teacher=teacher, **of_first)
    if shown[-1].is_local:
        local = jax.lax.stop_gradient(_labeled(shown[-1], terms[-1]["instances"]))
        of_local = settings | {"contrast_weights": terms[-1]["contrast_weights"]}
        metrics["local_accuracy"] = diagnostics.pair_diagnostics(*local, **of_local)["contrastive_accuracy"]
    at_chance = [
        diagnostics.chance_losses(
            pair.anchors["labels"],
            None if pair.contrasts is None else pair.contrasts["labels"],
            normalizer=normalizer,
            **terms_of_pair,
            **settings,
        )
        for pair, terms_of_pair in zip(shown, terms, strict=True)
    ]
    values, valid = (jnp.concatenate(part) for part in zip(*at_chance, strict=True))
    chance_loss: Any = scale * AnchorLoss(values, valid, axis_name).mean()
    return metrics | {"chance_loss": chance_loss}


def _at_chance(pair: objectives.Pair) -> objectives.Pair:
    """The pair with the logits of class centers that a network has which has learned nothing: all equal."""
    if "center_logits" not in pair.anchors:
        return pair
    equal = jnp.zeros_like(pair.anchors["center_logits"])
    return pair._replace(anchors=pair.anchors | {"center_logits": equal})


def _labeled(pair: objectives.Pair, instances: Any) -> tuple[diagnostics.Labeled, diagnostics.Labeled | None]:
    """Anchors and contrasts."""

    def labeled(part: dict[str, Any], *instances: Any) -> diagnostics.Labeled:
        return diagnostics.Labeled(part["embeddings"], part["labels"], *instances)

    return labeled(pair.anchors, instances), None if pair.contrasts is None else labeled(pair.contrasts)
