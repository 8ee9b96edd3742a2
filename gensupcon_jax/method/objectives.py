"""Training objectives: each is three pure functions; the loop and the step are the same for all."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gensupcon_jax import losses
from gensupcon_jax.cluster.sharding import DATA_AXIS
from gensupcon_jax.collectives import exchanged, mean_over
from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.errors import UserError
from gensupcon_jax.extension import Extension
from gensupcon_jax.instances import Instances
from gensupcon_jax.method.classification import accuracy_of_labeled, classifier_loss_fn
from gensupcon_jax.method.denominators import class_balanced_weights, class_counts
from gensupcon_jax.method.extended import extended
from gensupcon_jax.method.key_queue import empty_queue, enqueue, num_slots, queue_contents
from gensupcon_jax.method.network import (
    WHOLE,
    Microbatches,
    TrainingCall,
    apply_training,
    fields_of,
    variables_of,
    without_classifier,
)
from gensupcon_jax.method.prototypes import Prototypes
from gensupcon_jax.method.state import TrainState
from gensupcon_jax.similarities import Similarity

MODES = names_of("loss.mode")


class MixedBatch(NamedTuple):
    """One device's images as the network sees them, and the label distribution of each view.

    instances: the part of the labels that stands for images without one, see `instances.Instances`; None: all images have one.
    local: the same for the local views, whose height and width are smaller; None: there are none.
    """

    images: Float[Array, "batch view height width channel"]
    labels: Float[Array, "batch view class"]
    instances: Float[Array, "batch view place"] | None = None
    local: "MixedBatch | None" = None


class Aux(NamedTuple):
    """The auxiliary output of a loss: state fields to replace, and metrics to log."""

    updates: dict[str, Any]
    metrics: dict[str, Float[Array, ""]]


class Prediction(NamedTuple):
    """The outputs of a trained network: backbone features, and embeddings and logits if it has them."""

    features: Float[Array, "batch dim"]
    embeddings: Float[Array, "batch embedding"] | None = None
    logits: Float[Array, "batch class"] | None = None


class Objective(NamedTuple):
    """init(rng, images) -> state fields, `params` among them; loss(params, state, frozen, batch, rng) -> (scalar, Aux);
    predict(state, frozen, images) -> Prediction. `frozen` is a dict of variables that are read and never updated."""

    init: Callable
    loss: Callable
    predict: Callable


class Momentum(NamedTuple):
    """The key encoder's moving average: its decay, and the schedule of the decay (MoCo; BYOL).

    momentum: 0..1.  schedule: `constant`, or `cosine` from `momentum` to 1 over total_steps.  queue_size, batch_size: keys.
    queue_labels: False: keys of the queue have no labels and only repel, as in MoCo.
    symmetric: every view is a query once; otherwise only the first.  shuffle_devices: keys are encoded on other devices, among
    other images than their queries (MoCo's shuffling BatchNorm): with statistics per device a query recognizes its key by them.
    extensions: after total_steps of a run that became longer, as for the rate.
    """

    momentum: float | int
    schedule: str = "constant"
    queue_size: int = 0
    queue_labels: bool = True
    batch_size: int = 0
    symmetric: bool = False
    total_steps: int = 1
    shuffle_devices: bool = False
    extensions: tuple[Extension, ...] = ()

    def num_key_views(self, num_views: int) -> int:
        """The number of views per image that become keys in a step."""
        return num_views if self.symmetric else num_views - 1

    def at(self, step: Any) -> Any:
        """The decay at this step."""
        if self.schedule == "constant":
            return self.momentum
        return extended(self._cosine(self.total_steps), self.extensions, lambda _, num_steps: self._cosine(num_steps))(
            step
        )

    def _cosine(self, total_steps: int) -> Callable[[Any], Any]:
        return lambda step: 1.0 - (1.0 - self.momentum) * (jnp.cos(jnp.pi * step / total_steps) + 1) / 2


class TeacherLabels(NamedTuple):
    """A teacher's part in the loss: probabilities_fn(frozen["teacher"], images) -> [image, class], and its weight."""

    probabilities_fn: Callable
    weight: float | int


def contrastive(
    model: nn.Module,
    *,
    mode: str = "all",
    temperature: float | int,
    base_temperature: float | int | None = None,
    normalizer: str = "similarity",
    label_similarity: str | Similarity = "cosine",
    denominator: str = "plain",
    tile_size: int | None = None,
    num_views: int = 2,
    num_classes: int | None = None,
    num_places: int | None = None,
    momentum: Momentum | None = None,
    teacher: TeacherLabels | None = None,
    classifier: nn.Module | None = None,
    label_smoothing: float | int = 0.0,
    label_kind: str = "class",
    prototypes: Prototypes | None = None,
    diagnose_fn: Callable | None = None,
    microbatches: Microbatches = WHOLE,
    axis_name: str | None = DATA_AXIS,
) -> Objective:
    """GenSCL: all views are anchors and contrasts (`all`), view 0 against the others (`one`), or queries against the
    momentum encoder's keys and queue (`momentum`).

    `loss` runs inside `shard_map`; it is the mean over the valid anchors of all devices (paper, Eq. 2; authors' code). With a
    teacher it is loss(labels) + weight x loss(probabilities), or only the latter where the weight is inf (authors' code).
    Local views are further anchors and no contrasts: in `all` they meet all views, in `one` all but the first, in `momentum` all
    keys and the queue; every anchor counts alike in the mean (SwAV, arXiv 2006.09882). BatchNorm's running statistics are those
    of the views. The teacher's prediction for a local view is that for the view which is mixed as it is.
    denominator: "balanced" weights the contrasts by `denominators.class_balanced_weights`. A classifier is trained on the
    features, without gradient to the encoder; with prototypes it is their logits, and a part of the contrastive loss instead.
    num_places: of `MixedBatch.instances`, where images have no label: these are similar to their own views only, or, with a
    teacher, have its predictions as their labels.  label_kind: "several" trains the classifier with one sigmoid per label.
    Raises UserError for an unknown mode, and for prototypes with a teacher's predictions as the only labels.
    """
    if prototypes is not None:
        _check_prototypes(classifier, teacher)
    if mode not in MODES:
        raise UserError(f"loss.mode is {mode!r}; allowed: {', '.join(MODES)}")
    settings = {
        "temperature": temperature,
        "base_temperature": base_temperature,
        "normalizer": normalizer,
        "label_similarity": label_similarity,
        "axis_name": axis_name,
    } | ({} if tile_size is None else {"tile_size": tile_size})
    momentum = momentum if mode == "momentum" else None
    num_key_views = momentum.num_key_views(num_views) if momentum else 0
    setup = _Contrastive(
        model=model,
        mode=mode,
        loss_settings=settings,
        denominator=denominator,
        num_classes=num_classes,
        num_places=None if teacher else num_places,
        momentum=momentum,
        num_key_views=num_key_views,
        slots=num_slots(momentum.queue_size, momentum.batch_size, num_key_views) if momentum else 0,
        teacher=teacher,
        classifier=classifier,
        label_smoothing=label_smoothing,
        label_kind=label_kind,
        prototypes=prototypes,
        diagnose_fn=diagnose_fn,
        call=TrainingCall(axis_name, microbatches=microbatches),
        axis_name=axis_name,
    )
    return Objective(*(functools.partial(part, setup) for part in (_initial_fields, _contrastive_loss, _predict)))


def _check_prototypes(classifier: nn.Module | None, teacher: TeacherLabels | None) -> None:
    """UserError where nothing says which class a prototype is of."""
    if classifier is None:
        raise UserError("prototypes are given without a classifier, whose logits they are; allowed: both")
    if teacher is not None and math.isinf(teacher.weight):
        raise UserError(
            "teacher.weight is inf: without the labels no prototype is known to be of its class; allowed: a finite "
            "teacher.weight, or prototypes.use=False"
        )


class _Contrastive(NamedTuple):
    """The parts of the contrastive objective; momentum is None in the other modes, slots are those of the queue."""

    model: nn.Module
    mode: str
    loss_settings: dict[str, Any]
    denominator: str
    num_classes: int | None
    num_places: int | None
    momentum: Momentum | None
    num_key_views: int
    slots: int
    teacher: TeacherLabels | None
    classifier: nn.Module | None
    label_smoothing: float | int
    label_kind: str
    prototypes: Prototypes | None
    diagnose_fn: Callable | None
    call: TrainingCall
    axis_name: str | None

    @property
    def is_symmetric(self) -> bool:
        return self.momentum is not None and self.momentum.symmetric

    @property
    def has_queue_labels(self) -> bool:
        return self.momentum is None or self.momentum.queue_labels

    def num_query_views(self, num_views: int) -> int:
        """The number of views for the trained network; the others are for the momentum encoder only."""
        return 1 if self.momentum and not self.momentum.symmetric else num_views


def _apply(module: Any, *arguments: Any, **settings: Any) -> Any:
    """module.apply: flax declares that it may also return the collections that it was not asked for."""
    return module.apply(*arguments, **settings)


def _initial_fields(setup: _Contrastive, rng: jax.Array, images: Float[Array, "batch height width channel"]) -> dict:
    variables = setup.model.init(rng, images, train=False)
    fields = fields_of(variables)
    if setup.momentum:
        fields |= {"ema_params": fields["params"], "ema_batch_stats": fields["batch_stats"]}
    if setup.slots and setup.momentum:
        sizes = {"embeddings": setup.model.head.embedding_dim, "labels": setup.num_classes}
        sizes |= {"probabilities": setup.num_classes} if setup.teacher else {}
        sizes |= {"instances": setup.num_places} if setup.num_places else {}
        fields["queue"] = empty_queue(setup.slots, setup.momentum.batch_size, **sizes)
    if setup.classifier is not None:
        features = _apply(setup.model, variables, images, train=False).features
        head = setup.classifier.init(jax.random.fold_in(rng, 1), features)["params"]
        fields["params"] = fields["params"] | {"classifier": head}
    return fields


def _contrastive_loss(
    setup: _Contrastive, params, state: TrainState, frozen, batch: MixedBatch, rng
) -> tuple[Float[Array, ""], Aux]:
    num_queries = setup.num_query_views(batch.images.shape[1])
    features, embeddings, batch_stats = _encode(
        setup, params, state.batch_stats, batch.images[:, :num_queries], _stream(rng, 0)
    )
    values = {"embeddings": embeddings} | _label_values(setup.teacher, frozen, batch)
    values |= _center_logits(setup, params, features, embeddings.shape[:2])
    updates, queued, filled = {"batch_stats": batch_stats}, {}, None
    if setup.momentum:
        values["keys"], changed = _keys(setup, params, state, batch, _stream(rng, 1))
        updates |= changed
    if setup.slots:
        queued, filled = queue_contents(state.queue)
        updates["queue"] = _enqueued(setup, state, values)
    local = None
    if batch.local is not None:
        with jax.named_scope("local_views"):
            local = _local_values(setup, params, state, batch.local, values.get("probabilities"), _stream(rng, 2))
    pairs = _pairs(values, queued, mode=setup.mode, symmetric=setup.is_symmetric, local=local)
    value, metrics = _compared(setup, pairs, filled)
    query_labels, given = (_join(rows[:, :num_queries]) for rows in (values["labels"], batch.labels))
    if setup.prototypes is not None:
        logits = _join(values["center_logits"])
        correct = logits.argmax(1) == query_labels.argmax(1)
        metrics["classifier_accuracy"] = (
            mean_over(correct.astype(jnp.float32), setup.axis_name)
            if batch.instances is None
            else accuracy_of_labeled(logits, given, setup.axis_name)
        )
    if setup.classifier is None or setup.prototypes is not None:
        return value, Aux(updates, metrics)
    logits = _apply(setup.classifier, {"params": params["classifier"]}, jax.lax.stop_gradient(features))
    classifier_loss, accuracy = classifier_loss_fn(setup.label_kind)(
        logits, query_labels, setup.label_smoothing, setup.axis_name, None if batch.instances is None else given
    )
    metrics |= {"classifier_loss": classifier_loss, "classifier_accuracy": accuracy}
    return value + classifier_loss, Aux(updates, metrics)


def _encode(
    setup: _Contrastive, params, batch_stats, views: Float[Array, "batch view height width channel"], rng
) -> tuple[Float[Array, "image dim"], Float[Array, "batch view embedding"], Any]:
    (features, embeddings), batch_stats = apply_training(
        setup.model, params, batch_stats, _join(views), rng, settings=setup.call
    )
    return features, embeddings.reshape(*views.shape[:2], -1), batch_stats


def _stream(rng: jax.Array | None, number: int) -> jax.Array | None:
    return None if rng is None else jax.random.fold_in(rng, number)


def _label_values(
    teacher: TeacherLabels | None, frozen, batch: MixedBatch
) -> dict[str, Float[Array, "batch view class"]]:
    """The labels, the part of images without one, and the teacher's predictions, which take the place of that part."""
    if teacher is None:
        return _with_probabilities(batch, None)
    return _with_probabilities(batch, _probabilities(teacher, frozen, batch).reshape(batch.labels.shape))


def _probabilities(teacher: TeacherLabels, frozen, batch: MixedBatch) -> Float[Array, "image class"]:
    """The teacher's predictions for all views."""
    with jax.named_scope("teacher"):
        return teacher.probabilities_fn(frozen["teacher"], _join(batch.images))


def _with_teacher(
    of_labels: Float[Array, ""], of_teacher: Float[Array, ""], teacher: TeacherLabels, metrics: dict[str, Array]
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of labels and of predictions, or of the latter alone where their weight is inf; and the metrics with both."""
    metrics = metrics | {"label_loss": of_labels, "teacher_loss": of_teacher}
    weight = teacher.weight
    return (of_teacher if math.isinf(weight) else of_labels + weight * of_teacher), metrics


def _with_probabilities(
    batch: MixedBatch, probabilities: Float[Array, "batch view class"] | None
) -> dict[str, Float[Array, "batch view class"]]:
    labels, instances = {"labels": batch.labels}, batch.instances
    if probabilities is None:
        return labels if instances is None else labels | {"instances": instances}
    if instances is not None:
        labels["labels"] += instances.sum(axis=-1, keepdims=True) * probabilities
    return labels | {"probabilities": probabilities}


def _center_logits(
    setup: _Contrastive, params, features: Float[Array, "image dim"], shape: tuple[int, ...]
) -> dict[str, Float[Array, "batch view class"]]:
    """The logits of the class centers, where there are any; shape: batch and views."""
    if setup.prototypes is None:
        return {}
    logits = _apply(setup.classifier, {"params": params["classifier"]}, features)
    return {"center_logits": logits.reshape(*shape, -1)}


def _local_values(
    setup: _Contrastive,
    params,
    state: TrainState,
    local: MixedBatch,
    probabilities: Float[Array, "batch view class"] | None,
    rng,
) -> dict[str, Float[Array, "batch local_view _"]]:
    """What the local views have as anchors.

    probabilities: the teacher's, for the views. BatchNorm's running statistics of small crops are dropped: predictions are made
    for whole images.
    """
    features, embeddings, _ = _encode(setup, params, state.batch_stats, local.images, rng)
    if probabilities is not None:
        num_local, num_views = embeddings.shape[1], probabilities.shape[1]
        probabilities = probabilities[:, np.arange(num_local) % num_views]
    values = {"embeddings": embeddings} | _with_probabilities(local, probabilities)
    return values | _center_logits(setup, params, features, embeddings.shape[:2])


def _keys(
    setup: _Contrastive, params, state: TrainState, batch: MixedBatch, rng
) -> tuple[Float[Array, "batch view embedding"], dict[str, Any]]:
    """The momentum encoder's embeddings of the key views, and its new state."""
    assert setup.momentum is not None  # it has keys
    share = setup.momentum.at(state.step)
    with jax.named_scope("ema"):
        ema_params = jax.tree.map(
            lambda old, new: share * old + (1 - share) * new,
            state.ema_params,
            jax.lax.stop_gradient(without_classifier(params)),
        )
    key_images = batch.images if setup.is_symmetric else batch.images[:, 1:]
    axis_name = setup.axis_name if setup.momentum.shuffle_devices else None
    with jax.named_scope("key_encoder"):
        elsewhere = exchanged(key_images, axis_name)
        _, keys, batch_stats = _encode(setup, ema_params, state.ema_batch_stats, elsewhere, rng)
        keys = exchanged(keys, axis_name)
    return jax.lax.stop_gradient(keys), {"ema_params": ema_params, "ema_batch_stats": batch_stats}


def _enqueued(setup: _Contrastive, state: TrainState, values: dict[str, Array]) -> Any:
    """The queue with this batch's keys; its contents are read before, so no query meets the keys of its own batch twice."""
    of_queries = ("embeddings", "center_logits")
    keys = {name: value[:, -setup.num_key_views :] for name, value in values.items() if name not in of_queries}
    if not setup.has_queue_labels:
        keys = {name: value if name == "keys" else jnp.zeros_like(value) for name, value in keys.items()}
    keys["embeddings"] = keys.pop("keys")
    with jax.named_scope("queue"):
        return enqueue(state.queue, keys, state.step)


def _compared(
    setup: _Contrastive, pairs: list["Pair"], filled: Bool[Array, " key"] | None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The loss of labels and teacher, and its metrics."""
    terms_fn = functools.partial(
        _terms,
        filled=filled,
        denominator=setup.denominator,
        prototypes=setup.prototypes,
        axis_name=setup.axis_name,
    )
    with jax.named_scope("loss"):
        of_labels = _loss_of(pairs, "labels", terms_fn, setup.loss_settings)
        value: Any = of_labels.mean()
    metrics = {"valid_anchors": of_labels.valid.mean()}
    if setup.teacher:
        with jax.named_scope("loss"):
            of_teacher: Any = _loss_of(pairs, "probabilities", terms_fn, setup.loss_settings).mean()
        value, metrics = _with_teacher(value, of_teacher, setup.teacher, metrics)
    metrics["loss"] = value
    if setup.diagnose_fn is not None:
        with jax.named_scope("diagnostics"):
            metrics |= setup.diagnose_fn(pairs, terms_fn, setup.axis_name)
    return value, metrics


def _predict(
    setup: _Contrastive, state: TrainState, frozen, images: Float[Array, "batch height width channel"]
) -> Prediction:
    features, embeddings = _apply(setup.model, variables_of(state), images, train=False)
    logits = None
    if setup.classifier is not None:
        logits = _apply(setup.classifier, {"params": state.params["classifier"]}, features)
    return Prediction(features, embeddings, logits)


def cross_entropy(
    model: nn.Module,
    classifier: nn.Module,
    *,
    label_smoothing: float | int = 0.0,
    label_kind: str = "class",
    teacher: TeacherLabels | None = None,
    microbatches: Microbatches = WHOLE,
    axis_name: str | None = DATA_AXIS,
) -> Objective:
    """Cross-entropy of a classifier on backbone features with (mixed) label distributions, for teachers and the baseline.

    model: a `HeadedEncoder`, of which only the backbone is used. Every view counts as an image.  label_kind: "several" is
    the binary cross-entropy of each label.  teacher: its predictions for the same views are labels too, as in the
    contrastive loss: distillation (Hinton et al., arXiv 1503.02531), with one temperature, the teacher's.
    """
    loss_fn = classifier_loss_fn(label_kind)

    def init(rng: jax.Array, images: Float[Array, "batch height width channel"]) -> dict:
        variables = model.init(rng, images, method="features")
        features = _apply(model, variables, images, method="features")
        head = classifier.init(jax.random.fold_in(rng, 1), features)["params"]
        fields = fields_of(variables)
        return fields | {"params": fields["params"] | {"classifier": head}}

    def loss(params, state: TrainState, frozen, batch: MixedBatch, rng) -> tuple[Float[Array, ""], Aux]:
        features, batch_stats = apply_training(
            model,
            params,
            state.batch_stats,
            _join(batch.images),
            rng,
            settings=TrainingCall(axis_name, "features", microbatches),
        )
        logits = _apply(classifier, {"params": params["classifier"]}, features)
        values = _label_values(teacher, frozen, batch)
        given = None if batch.instances is None else _join(batch.labels)
        value, accuracy = loss_fn(logits, _join(values["labels"]), label_smoothing, axis_name, given)
        metrics = {"classifier_accuracy": accuracy}
        if teacher is not None:
            of_teacher, _ = loss_fn(logits, _join(values["probabilities"]), 0.0, axis_name)
            value, metrics = _with_teacher(value, of_teacher, teacher, metrics)
        return value, Aux({"batch_stats": batch_stats}, {"loss": value, **metrics})

    def predict(state: TrainState, frozen, images: Float[Array, "batch height width channel"]) -> Prediction:
        features = _apply(model, variables_of(state), images, method="features")
        return Prediction(features, logits=_apply(classifier, {"params": state.params["classifier"]}, features))

    return Objective(init, loss, predict)


def linear_probe(
    model: nn.Module,
    classifier: nn.Module,
    *,
    label_smoothing: float | int = 0.0,
    label_kind: str = "class",
    axis_name: str | None = DATA_AXIS,
) -> Objective:
    """A classifier on the features of a frozen encoder, `frozen["encoder"]`, in inference mode (the paper's second stage)."""

    def features_of(frozen, images):
        return jax.lax.stop_gradient(_apply(model, frozen["encoder"], images, method="features"))

    def init(rng: jax.Array, images: Float[Array, "batch height width channel"]) -> dict:
        shape = jax.eval_shape(lambda: model.init_with_output(rng, images, method="features")[0]).shape
        return {"params": {"classifier": classifier.init(rng, jnp.zeros((1, shape[-1])))["params"]}}

    def loss(params, state: TrainState, frozen, batch: MixedBatch, rng) -> tuple[Float[Array, ""], Aux]:
        logits = _apply(classifier, {"params": params["classifier"]}, features_of(frozen, _join(batch.images)))
        labels = _join(batch.labels)
        given = None if batch.instances is None else labels
        value, accuracy = classifier_loss_fn(label_kind)(logits, labels, label_smoothing, axis_name, given)
        return value, Aux({}, {"loss": value, "classifier_accuracy": accuracy})

    def predict(state: TrainState, frozen, images: Float[Array, "batch height width channel"]) -> Prediction:
        features = features_of(frozen, images)
        return Prediction(features, logits=_apply(classifier, {"params": state.params["classifier"]}, features))

    return Objective(init, loss, predict)


def contrastive_chance_loss(
    batch: MixedBatch | Float[Array, "batch view class"],
    *,
    mode: str,
    denominator: str = "plain",
    prototypes: Prototypes | None = None,
    queue_size: int = 0,
    queue_labels: bool = True,
    symmetric: bool = False,
    **settings,
) -> float:
    """The loss of a whole batch whose embeddings are all equal, that of a network that has learned nothing.

    batch: of which the images are not read, or the labels alone. The queue is assumed to hold keys with the labels of this batch,
    repeated, or with none where queue_labels is False; embeddings and prototypes are orthogonal.
    """
    settings = {name: value for name, value in settings.items() if name != "tile_size" or value is not None}
    terms_fn = functools.partial(_terms, filled=None, denominator=denominator, prototypes=prototypes, axis_name=None)

    def values_of(views: MixedBatch) -> dict[str, Array]:
        logits = {} if prototypes is None else {"center_logits": jnp.zeros(views.labels.shape)}
        return _with_probabilities(views, None) | {"embeddings": jnp.zeros((*views.labels.shape[:2], 1))} | logits

    @jax.jit  # 0.3 s; 3 to 8 s as one small program for each operation
    def mean_loss(batch: MixedBatch) -> Any:
        of_keys = {name: rows if symmetric else rows[:, 1:] for name, rows in _with_probabilities(batch, None).items()}
        num_keys = of_keys["labels"].shape[0] * of_keys["labels"].shape[1]
        values = values_of(batch) | {"keys": jnp.zeros((*of_keys["labels"].shape[:2], 1))}
        local = None if batch.local is None else values_of(batch.local)
        queued = {}
        if queue_size:
            times = -(-queue_size // num_keys)
            queued = {name: jnp.tile(_join(rows), (times, 1))[:queue_size] for name, rows in of_keys.items()}
            queued = queued if queue_labels else jax.tree.map(jnp.zeros_like, queued)
            queued["embeddings"] = jnp.zeros((queue_size, 1))
        pairs = _pairs(values, queued, mode=mode, symmetric=symmetric, local=local)
        return _loss_of(pairs, "labels", terms_fn, settings).mean()

    no_images: Any = None
    batch = batch if isinstance(batch, MixedBatch) else MixedBatch(no_images, batch)
    local = None if batch.local is None else batch.local._replace(images=no_images)
    return float(mean_loss(batch._replace(images=no_images, local=local)))


class Pair(NamedTuple):
    """Anchors and their contrasts, each a dict of embeddings, labels and, with a teacher, probabilities [n, ...].

    With prototypes, anchors also have `center_logits`, and where images have no label, both have `instances`.

    contrasts None: the anchors themselves, self excluded.  num_images, num_in_batch: of this device, and the contrasts of them.
    is_local: the anchors are local views.
    """

    anchors: dict[str, Float[Array, "anchor dim"]]
    contrasts: dict[str, Float[Array, "contrast dim"]] | None
    num_images: int
    num_in_batch: int
    is_local: bool = False

    def instances(self, labels: str) -> Instances | None:
        """The part of these labels that stands for images without one; None: there are none, or a teacher predicts them."""
        if "instances" not in self.anchors or labels != "labels":
            return None
        contrasts = None if self.contrasts is None else self.contrasts["instances"]
        return Instances(self.anchors["instances"], contrasts, self.num_images, self.num_in_batch)


def _pairs(
    values: dict[str, Array],
    queued: dict[str, Array],
    *,
    mode: str,
    symmetric: bool,
    local: dict[str, Array] | None = None,
) -> list[Pair]:
    """The pairs of a mode: `values` are [batch, view, ...], `keys` the momentum encoder's embeddings of the key views.

    local: values of the local views [batch, local_view, ...], the anchors of a last pair, with the contrasts of all views, or of
    the only query.
    """
    values = dict(values)
    keys = values.pop("keys", None)
    num_images, num_views = values["labels"].shape[:2]

    def paired(anchors: dict[str, Array], query: int | None, **settings: Any) -> Pair:
        """These anchors with all views but this one, or with all, and the queue."""
        others_fn = (lambda each: each) if query is None else functools.partial(_without, view=query)
        contrasts = {name: _join(others_fn(value)) for name, value in values.items()}
        if mode == "momentum" and keys is not None:
            contrasts["embeddings"] = _join(others_fn(keys) if symmetric else keys)
        for name, stored in queued.items():
            contrasts[name] = jnp.concatenate([contrasts[name], stored])
        return Pair(anchors, contrasts, num_images, num_images * (num_views - (query is not None)), **settings)

    if mode == "all":
        pairs = [Pair({name: _join(value) for name, value in values.items()}, None, num_images, num_images * num_views)]
    else:
        queries = range(num_views) if symmetric else (0,)
        pairs = [paired({name: value[:, view] for name, value in values.items()}, view) for view in queries]
    if local is None:
        return pairs
    anchors = {name: _join(value) for name, value in local.items()}
    return [*pairs, paired(anchors, None if mode == "all" or symmetric else 0, is_local=True)]


def _loss_of(pairs: list[Pair], labels: str, terms_fn: Callable, settings: dict) -> losses.AnchorLoss:
    """The loss of every anchor of every pair, with these labels: `labels` or `probabilities`."""
    parts = []
    for pair in pairs:
        anchors, contrasts = pair[:2]
        others = () if contrasts is None else (contrasts["embeddings"], contrasts[labels])
        parts.append(
            losses.generalized_contrastive_loss(
                anchors["embeddings"], anchors[labels], *others, **terms_fn(pair, labels), **settings
            )
        )
    values, valid = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    return losses.AnchorLoss(values, valid, parts[0].axis_name)


def _terms(
    pair: Pair,
    labels: str,
    *,
    filled: Bool[Array, " key"] | None,
    denominator: str,
    prototypes: Prototypes | None,
    axis_name: str | None,
) -> dict[str, Any]:
    """The loss's arguments `contrast_weights`, of all keys of this batch and of the filled part of the queue, `centers` and
    `instances`."""
    contrast_labels = (pair.anchors if pair.contrasts is None else pair.contrasts)[labels]
    instances, unlabeled = pair.instances(labels), None
    if instances is not None:
        unlabeled = (instances.anchors if instances.contrasts is None else instances.contrasts).sum(axis=1)
    weights, center_weights = None, None
    if filled is not None:
        weights = jnp.concatenate([jnp.ones(len(contrast_labels) - len(filled), bool), filled])
    if denominator == "balanced":
        counted = (contrast_labels, weights)
        num_centers = 0 if prototypes is None else 1
        own = {"unlabeled": unlabeled, "axis_name": axis_name}
        weights = class_balanced_weights(*counted, num_centers=num_centers, **own)
        center_weights = 1.0 / (class_counts(*counted, **own) + 1.0)
    centers = None
    if prototypes is not None:
        centers = prototypes.centers(pair.anchors["center_logits"], pair.anchors[labels], center_weights)
    return {"contrast_weights": weights, "centers": centers, "instances": instances}


def _without(views: Float[Array, "batch view ..."], view: int) -> Float[Array, "batch other ..."]:
    return jnp.concatenate([views[:, :view], views[:, view + 1 :]], axis=1)


def _join(views: Float[Array, "batch view ..."]) -> Float[Array, "batch*view ..."]:
    return views.reshape(-1, *views.shape[2:])
