"""Teachers: trained classifiers of any kind, as one function from the student's images to class probabilities."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float

from gensupcon_jax.cluster.sharding import BATCH, REPLICATED, place, replicated
from gensupcon_jax.collectives import varying
from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.data.input_pipeline import padded_batches
from gensupcon_jax.data.splits import AnySplit
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.several import mean_label_precision
from gensupcon_jax.evaluation.values import explained_variance
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.gray import TORCHVISION_GRAY
from gensupcon_jax.models import Classifier, build_backbone
from gensupcon_jax.paths import Path, as_path, split_entry
from gensupcon_jax.store.saved_runs import run_backbone
from gensupcon_jax.text import listed, reason
from gensupcon_jax.value_bins import ValueBins
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights.artifact import content_of
from gensupcon_jax.weights.description import description_of_file
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.runs import load_run, naming_the_field
from gensupcon_jax.weights.variables import fill, weights_fingerprint

Array = jax.Array | np.ndarray
Number = float | int

KINDS = names_of("teacher.kind")

_UNROLLED_CALLS = 8  # of an artifact with a fixed batch; convolutions inside a loop are far slower on a CPU
_ALLOWED_SIGNATURE = (
    "one float32 array [batch, size, size, channel] or [batch, channel, size, size], 1 or 3 channels, the batch fixed or "
    "symbolic -> one float array [batch, class], exported for one device"
)


class Teacher(NamedTuple):
    """A frozen classifier: arrays in `variables`, everything else is static in a compiled step.

    logits_fn(variables, images float32 [batch, image_size, image_size, num_channels], normalized with mean and std
    [num_channels]) -> float logits [batch, class].  fingerprint: 16 hexadecimal digits of the SHA-256 of its weights.
    step: of the checkpoint, for a workdir.  output: how logits become predictions: softmax, or sigmoid for each label by itself.
    """

    variables: Any
    logits_fn: Callable
    image_size: Any  # None until the data says it, as mean and std
    num_channels: int
    mean: Any
    std: Any
    fingerprint: str
    name: str
    step: int | None = None
    output: Any = None  # until the data says it


class Signature(NamedTuple):
    """The input of an exported function; batch and image_size are None if they are symbolic."""

    batch: int | None
    image_size: int | None
    num_channels: int
    channels_first: bool


def load_teacher(
    *,
    kind: str,
    dataset_description: dict,
    path: str | Path | None = None,
    weights_step: str | int | None = None,
    architecture: str = "resnet50",
    image_size: int | None = None,
    mean: Sequence[Number] | np.ndarray | None = None,
    std: Sequence[Number] | np.ndarray | None = None,
    function: Callable | None = None,
    dtype: str = "float32",
    output: str | None = None,
) -> Teacher | None:
    """The teacher of the config's `teacher` fields, None for kind "none"; nothing is compiled, nothing unpickled.

    dataset_description: of the student's data, `dataset.json`; the default for all that neither fields nor teacher specify.
    weights_step: of a workdir: "best", or the number of a saved step; None: the last.
    function: for kind "callable", images -> logits; its images have as many channels as `mean`, or as the data.
    output: "softmax" or "sigmoid"; None: sigmoid where the labels of the teacher, or else of the data, are several per image.
    dtype: for kind "weights", the dtype of the computation; a workdir has its own, other kinds are unchanged.
    Raises UserError for a missing, damaged or incompatible teacher.
    """
    if kind not in KINDS:
        raise UserError(f"teacher.kind is {kind!r}; allowed: {', '.join(KINDS)}")
    if function is not None and kind != "callable":
        raise UserError(f"a teacher function was passed but teacher.kind is {kind!r}; set teacher.kind to 'callable'")
    if kind == "none":
        return None
    if kind != "workdir" and weights_step is not None:
        raise UserError(f"teacher.weights_step is {weights_step!r}; allowed with teacher.kind {kind!r}: None")
    if kind == "callable":
        num_channels = len(mean) if mean is not None else dataset_description["image_shape"][2]
        teacher = _from_function(function, num_channels)
    elif path is None:
        raise UserError(f"teacher.path is None; allowed with teacher.kind {kind!r}: the path of the teacher")
    elif kind == "workdir":
        teacher = _from_workdir(as_path(path), "last" if weights_step is None else weights_step)
    elif kind == "stablehlo":
        teacher = _from_stablehlo(_existing_file(path), image_size)
    else:
        teacher = _from_weights(_existing_file(path), architecture, dtype)
    teacher = _completed(teacher, image_size=image_size, mean=mean, std=std, dataset_description=dataset_description)
    teacher = teacher._replace(output=output or teacher.output or _output_for(dataset_description))
    predicted_classes(teacher)
    return teacher._replace(fingerprint=_function_fingerprint(teacher)) if kind == "callable" else teacher


# Predictions


def teacher_probabilities(
    teacher: Teacher,
    variables: Any,
    images: Float[Array, "batch height width channel"],
    *,
    student_mean: Float[Array, "channel"],
    student_std: Float[Array, "channel"],
    temperature: Number,
) -> Float[jax.Array, "batch class"]:
    """softmax(logits / temperature) in float32, without gradient, of the student's images (authors' code).

    With the output "sigmoid": the sigmoid of each logit / temperature.
    images: normalized with the student's mean and std.  variables: the teacher's, passed separately so that they are an
    argument of a jitted step; `teacher.variables` is not read.
    """
    images = jax.lax.stop_gradient(images)
    inputs = teacher_images(teacher, images, student_mean=student_mean, student_std=student_std)
    logits = teacher.logits_fn(variables, inputs).astype(jnp.float32)
    # jax assumes that an exported function returns the same on every device (its output type has no varying axes).
    # Without this, shard_map computes wrong gradients for the student on two or more devices, without an error.
    logits = varying(logits, jax.typeof(inputs).manual_axis_type.varying)
    output_fn = jax.nn.sigmoid if teacher.output == "sigmoid" else jax.nn.softmax
    return jax.lax.stop_gradient(output_fn(logits / temperature))


def teacher_images(
    teacher: Teacher,
    images: Float[Array, "batch height width channel"],
    *,
    student_mean: Float[Array, "channel"],
    student_std: Float[Array, "channel"],
) -> Float[jax.Array, "batch size size teacher_channel"]:
    """The student's images in the teacher's size, channels and normalization."""
    pixels = jnp.asarray(images, jnp.float32) * jnp.asarray(student_std) + jnp.asarray(student_mean)
    size = (teacher.image_size, teacher.image_size)
    if pixels.shape[1:3] != size:
        shape = (pixels.shape[0], *size, pixels.shape[3])
        pixels = jax.image.resize(pixels, shape, "bilinear", antialias=True)
    return normalize(_with_channels(pixels, teacher.num_channels), teacher.mean, teacher.std)


def _with_channels(
    pixels: Float[jax.Array, "batch height width channel"], num_channels: int
) -> Float[jax.Array, "batch height width {num_channels}"]:
    if pixels.shape[3] == num_channels:
        return pixels
    if num_channels == 1:
        return jnp.sum(pixels * jnp.asarray(TORCHVISION_GRAY), axis=3, keepdims=True)
    return jnp.repeat(pixels, num_channels, axis=3)


# Checks against the data


def check_classes(teacher: Teacher, num_classes: int) -> None:
    """UserError if the teacher predicts a different number of classes than the data has; nothing compiles."""
    predicted = predicted_classes(teacher)
    if predicted != num_classes:
        raise UserError(
            f"{teacher.name} predicts {predicted} classes, the data has {num_classes}; "
            "allowed: a teacher of the same classes in the same order; change teacher.path, or the data set"
        )


def predicted_classes(teacher: Teacher) -> int:
    """The number of classes that the teacher predicts, by tracing; UserError if it returns no logits [batch, class]."""
    shape = (2, teacher.image_size, teacher.image_size, teacher.num_channels)
    try:
        logits = jax.eval_shape(teacher.logits_fn, teacher.variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    except Exception as error:
        raise UserError(
            f"{teacher.name} cannot be called by jax with float32 images {list(shape)} ({reason(error)}); allowed: "
            "a function of [batch, size, size, channel] that jax can trace; see teacher.path, teacher.image_size, "
            "teacher.mean (as many channels)"
        ) from error
    fits = isinstance(logits, jax.ShapeDtypeStruct) and len(logits.shape) == 2 and logits.shape[0] == shape[0]
    if not fits or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise UserError(
            f"{teacher.name} returns {_described(logits)} for 2 images; allowed: one float array [batch, class] of logits; "
            "change teacher.path or the function"
        )
    return logits.shape[1]


def teacher_predictions(
    teacher: Teacher,
    split: AnySplit,
    *,
    student_mean: Float[Array, "channel"],
    student_std: Float[Array, "channel"],
    batch_size: int,
    sharding: NamedSharding,
) -> Float[np.ndarray, "image class"]:
    """The teacher's probabilities for all images of a split, with the preprocessing of training.

    batch_size: over all devices, a multiple of their number; sharding: of such a batch over the mesh.
    """
    everywhere = replicated(sharding.mesh)

    def predicted(variables, images):
        inputs = normalize(images, student_mean, student_std)
        settings = {"student_mean": student_mean, "student_std": student_std, "temperature": 1.0}
        return teacher_probabilities(teacher, variables, inputs, **settings)

    sharded = jax.shard_map(predicted, mesh=sharding.mesh, in_specs=(REPLICATED, BATCH), out_specs=BATCH)
    predict_fn = jax.jit(sharded, out_shardings=everywhere)
    variables = place(teacher.variables, everywhere)
    predictions = [
        # Fetched immediately: more than 32 unawaited calls on several CPU devices hang.
        np.asarray(predict_fn(variables, images))[is_real]
        for images, is_real in padded_batches(split, batch_size, sharding)
    ]
    return np.concatenate(predictions)


def teacher_accuracy(predictions: Float[np.ndarray, "image class"], split: AnySplit) -> float:
    """Accuracy of the teacher's predictions for a split, in percent."""
    return 100.0 * float(np.mean(predictions.argmax(1) == split.classes))


def teacher_label_precision(predictions: Float[np.ndarray, "image class"], split: AnySplit) -> tuple[float, float]:
    """The same for several labels per image: the mean average precision over labels, and that of a guess."""
    rows = split.labels_of(np.arange(split.num_images))
    shares = rows.mean(axis=0)[rows.any(axis=0)]
    chance = 100.0 * float(shares.mean()) if len(shares) else 100.0
    return mean_label_precision(predictions, rows), chance


def teacher_explained_variance(predictions: Float[np.ndarray, "image bin"], split: AnySplit, bins: ValueBins) -> float:
    """The same where labels are numbers: R^2, in percent, of the means of the predictions over these bins."""
    assert split.values is not None  # of a data set with bins
    return explained_variance(bins.expected(predictions), split.values)


def check_accuracy(accuracy: Number, num_classes: int, allow_poor: bool, images: str = "validation images") -> str:
    """A sentence about this accuracy, in percent, on these images; UserError below twice chance unless that is allowed.

    With two classes twice chance is 100 %: there, the bound is half-way between chance and 100 %.
    """
    return check_score(accuracy, 100 / num_classes, allow_poor, f"accuracy on the {images}")


def check_values(score: Number, allow_poor: bool, images: str) -> str:
    """A sentence about this R^2, in percent, on these images; UserError if the mean value is as good, unless that is allowed."""
    found = (
        f"teacher: {score:.2f} % of the variance explained (R\N{SUPERSCRIPT TWO}) on the {images} (the mean value: 0 %)"
    )
    if score > 0:
        return found
    if allow_poor:
        return f"{found}; the run continues because teacher.allow_poor is True"
    raise UserError(
        f"{found}; allowed: above 0 %. Likely causes: it was trained with other bins (dataset.value_range, dataset.num_bins), "
        "with a different mean or standard deviation (teacher.mean, teacher.std) or image size (teacher.image_size). To use it "
        "nevertheless, set teacher.allow_poor to True"
    )


def check_score(score: Number, chance: float, allow_poor: bool, what: str) -> str:
    """A sentence about a score in percent, against that of a guess; UserError below twice chance unless that is allowed."""
    lowest = min(2 * chance, (chance + 100) / 2)
    found = f"teacher: {score:.2f} % {what} (chance: {chance:.4g} %)"
    if score >= lowest:
        return found
    if allow_poor:
        return f"{found}; the run continues because teacher.allow_poor is True"
    raise UserError(
        f"{found}; allowed: {lowest:.4g} % or more. Likely causes: its classes are in a different order; it was "
        "trained with a different mean or standard deviation (teacher.mean, teacher.std) or image size (teacher.image_size). "
        "To use it nevertheless, set teacher.allow_poor to True"
    )


# Kinds of teachers: each returns a Teacher with None for unknown fields


class Network(nn.Module):
    """A backbone and a classifier on its features; its variables have the layout of a run."""

    backbone: nn.Module
    classifier: nn.Module

    def __call__(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch class"]:
        """Return the logits of normalized images, in inference mode."""
        return self.classifier(self.backbone(images, train=False))


def _from_workdir(path: Path, step: str | int) -> Teacher:
    with naming_the_field("teacher.path"):
        run = load_run(path, need="classifier", step=step)
    image_size, _, num_channels = run.description["image_shape"]
    variables = {
        kind: {part: parts[part] for part in ("backbone", "classifier") if part in parts}
        for kind, parts in run.variables.items()
    }
    return Teacher(
        variables=variables,
        logits_fn=Network(run_backbone(run), Classifier(len(run.description["class_names"]))).apply,
        image_size=image_size,
        num_channels=num_channels,
        mean=run.description["mean"],
        std=run.description["std"],
        fingerprint=weights_fingerprint(variables),
        name=f"teacher {path}",
        step=run.step,
        output=_output_for(run.description),
    )


def _from_weights(path: Path, architecture: str, dtype: str) -> Teacher:
    """Width, stem, patches, channels, classes and, for a vision transformer, image size are inferred from the file."""
    with naming_the_field("teacher.path"):
        named = read_file(path)
        description = description_of_file(path)
    found = _read_off(named, path)
    is_blurred = bool(description and description.network.get("blur_pool"))
    backbone = build_backbone(
        name=architecture, dtype=dtype, batch_norm="local", blur_pool=is_blurred, **found.backbone_fields
    )
    network = Network(backbone, Classifier(found.num_classes))
    size = found.image_size or 32  # any size if the shapes do not determine it
    expected = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, found.num_channels)))
    with naming_the_field("teacher.path"):
        variables = fill(expected, named, where=str(path))
    return Teacher(
        variables=variables,
        logits_fn=network.apply,
        image_size=found.image_size,
        num_channels=found.num_channels,
        mean=description and description.mean,
        std=description and description.std,
        fingerprint=weights_fingerprint(variables),
        name=f"teacher {path}",
        output=_output_for({"label_kind": description.label_kind}) if description else None,
    )


class _Found(NamedTuple):
    """The network inferred from the shapes in a file; image_size None: any size."""

    backbone_fields: dict[str, Any]
    num_classes: int
    num_channels: int
    image_size: int | None


def _read_off(named: dict[str, np.ndarray], path: Path) -> _Found:
    shapes = {name: value.shape for name, value in named.items()}
    is_transformer = any(name.startswith(("patch_embed.", "blocks.")) for name in shapes)
    needed = (
        ("patch_embed.proj.weight", "pos_embed", "head.weight") if is_transformer else ("conv1.weight", "fc.weight")
    )
    for name in needed:
        if name not in shapes:
            raise UserError(
                f"teacher.path {path} has no {name!r} among its {len(named)} weights ({listed(sorted(shapes))}); allowed: a "
                "network with its classifier in the names of timm or torchvision, a ResNet (conv1, bn1, layer1, ..., fc) "
                "or a vision transformer (patch_embed, pos_embed, blocks, ..., head)"
            )
    width, num_channels, size = shapes[needed[0]][:3]
    num_classes = shapes[needed[-1]][0]
    if is_transformer:
        image_size = size * math.isqrt(shapes["pos_embed"][1] - 1)
        pool = "average" if "fc_norm.weight" in shapes else "class"
        return _Found({"image_size": image_size, "width": width, "pool": pool}, num_classes, num_channels, image_size)
    # The image size is read only by the automatic choice of a stem.
    fields = {"image_size": 1, "stem": "imagenet" if size == 7 else "cifar", "width": width}
    return _Found(fields, num_classes, num_channels, None)


def _from_function(function: Callable | None, num_channels: int) -> Teacher:
    if not callable(function):
        raise UserError(
            f"teacher.kind is 'callable' but the teacher function is {function!r}; pass a function images -> logits "
            "from Python, or choose another teacher.kind"
        )

    def logits_fn(variables, images):
        return function(images)

    name = f"teacher function {getattr(function, '__name__', type(function).__name__)}"
    return Teacher({}, logits_fn, None, num_channels, None, None, fingerprint="", name=name)


def _from_stablehlo(path: Path, image_size: int | None) -> Teacher:
    content = content_of(path)
    exported = _deserialized(content, path)
    signature = _signature(exported, path)
    if None not in (image_size, signature.image_size) and image_size != signature.image_size:
        raise UserError(
            f"teacher.image_size is {image_size}, but teacher.path {path} takes only images of {signature.image_size} pixels; "
            "set teacher.image_size to None"
        )

    @jax.jit  # lowered only once
    def call(images):
        images = images.transpose(0, 3, 1, 2) if signature.channels_first else images
        positional, named = jax.tree.unflatten(exported.in_tree, [images])
        (logits,) = jax.tree.leaves(exported.call(*positional, **named))
        return logits

    call_fn = call if signature.batch is None else _in_chunks(call, signature.batch)
    return Teacher(
        variables={},
        logits_fn=lambda variables, images: call_fn(images),
        image_size=signature.image_size,
        num_channels=signature.num_channels,
        mean=None,
        std=None,
        fingerprint=fingerprint([content]),
        name=f"teacher {path}",
    )


def _deserialized(content: bytes, path: Path) -> jax.export.Exported:
    try:
        exported = jax.export.deserialize(bytearray(content))
        exported.mlir_module()  # parses the program, which is read lazily
    except Exception as error:  # flatbuffers and MLIR raise different types
        raise UserError(
            f"teacher.path {path} cannot be read ({reason(error)}); allowed: a complete file of the bytes that "
            "jax.export.export(jax.jit(function))(images).serialize() returns"
        ) from error
    here = jax.export.default_export_platform()
    if here not in exported.platforms:
        raise UserError(
            f"teacher.path {path} was exported for {', '.join(exported.platforms)}, this machine computes on {here}; "
            f"export it with jax.export.export(..., platforms=({', '.join(map(repr, (*exported.platforms, here)))}))"
        )
    return exported


def _signature(exported: jax.export.Exported, path: Path) -> Signature:
    """The input of the function; UserError if it is not images -> logits."""
    inputs, outputs = exported.in_avals, exported.out_avals
    fits = len(inputs) == len(outputs) == exported.nr_devices == 1
    fits = fits and (inputs[0].ndim, outputs[0].ndim, inputs[0].dtype) == (4, 2, jnp.float32)
    if fits:
        batch, *rest = inputs[0].shape
        num_classes = outputs[0].shape[1]
        channels_first = rest[2] not in (1, 3)
        num_channels, height, width = rest if channels_first else (rest[2], *rest[:2])
        fits = num_channels in (1, 3) and str(height) == str(width) and _fixed(num_classes) is not None
        fits = fits and jnp.issubdtype(outputs[0].dtype, jnp.floating) and str(batch) == str(outputs[0].shape[0])
    if not fits:
        found = f"{_described(inputs)} -> {_described(outputs)}, for {exported.nr_devices} device(s)"
        raise UserError(f"teacher.path {path} holds a function {found}; allowed: {_ALLOWED_SIGNATURE}")
    return Signature(_fixed(batch), _fixed(height), num_channels, channels_first)


def _fixed(dimension: Any) -> int | None:
    return dimension if isinstance(dimension, int) else None


def _in_chunks(call: Callable, chunk_size: int) -> Callable:
    """Extend a function of exactly chunk_size images to any number: in chunks, the last one padded with zeros."""

    def call_in_chunks(images: Float[jax.Array, "batch height width channel"]) -> Float[jax.Array, "batch class"]:
        num_images, *shape = images.shape
        num_chunks = -(-num_images // chunk_size)
        padding = jnp.zeros((num_chunks * chunk_size - num_images, *shape), images.dtype)
        chunks = jnp.concatenate([images, padding]).reshape(num_chunks, chunk_size, *shape)
        few = num_chunks <= _UNROLLED_CALLS
        logits = jnp.stack([call(chunk) for chunk in chunks]) if few else jax.lax.map(call, chunks)
        return logits.reshape(-1, logits.shape[-1])[:num_images]

    return call_in_chunks


def _completed(teacher: Teacher, *, image_size: int | None, mean: Any, std: Any, dataset_description: dict) -> Teacher:
    """Complete the teacher: fields of the config take precedence, then its own values, then the student's data."""
    data_size, _, data_channels = dataset_description["image_shape"]
    num_channels = teacher.num_channels
    if num_channels != data_channels and {num_channels, data_channels} != {1, 3}:
        raise UserError(f"{teacher.name} sees {num_channels} channels, the data has {data_channels}; allowed: 1 or 3")
    statistics = {
        name: _channel_values(name, given, own, dataset_description[name], num_channels)
        for name, given, own in (("mean", mean, teacher.mean), ("std", std, teacher.std))
    }
    if not (statistics["std"] > 0).all():
        raise UserError(f"teacher.std is {statistics['std'].tolist()}; allowed: numbers above 0")
    return teacher._replace(image_size=image_size or teacher.image_size or data_size, **statistics)


def _output_for(description: dict) -> str:
    """How logits become predictions for data with this description."""
    return "sigmoid" if description.get("label_kind") == "several" else "softmax"


def _channel_values(
    name: str, given: Any, own: Any, of_data: Sequence[Number], num_channels: int
) -> Float[np.ndarray, "{num_channels}"]:
    source = next(values for values in (given, own, of_data) if values is not None)
    if len(source) not in (1, num_channels):
        cause = (
            f"teacher.{name} is {given}"
            if given is not None
            else f"teacher.{name} is None and that of the data has {len(source)}"
        )
        raise UserError(
            f"{cause}; allowed: {num_channels} number(s) on the scale 0..1, one for each of the teacher's channels"
        )
    return np.broadcast_to(np.asarray(source, np.float32), num_channels).copy()


# Fingerprints and messages


def _function_fingerprint(teacher: Teacher) -> str:
    """The fingerprint of a function's program with all its constants; it may differ between versions of jax."""
    images = jax.ShapeDtypeStruct((1, teacher.image_size, teacher.image_size, teacher.num_channels), jnp.float32)
    return fingerprint([jax.jit(teacher.logits_fn).lower({}, images).as_text()])


def _existing_file(path: str | Path) -> Path:
    file, _ = split_entry(path)
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"teacher.path {path} {found}; allowed with this teacher.kind: a file")
    return as_path(path)


def _described(tree: Any) -> str:
    leaves = [f"{leaf.dtype}[{', '.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(tree)]
    return ", ".join(leaves) or "nothing"
