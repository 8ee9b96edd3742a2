"""Where an encoder comes from: the workdir of a run, a file of weights, or an exported artifact."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from gensupcon_jax import paths
from gensupcon_jax.data.shapes import device_center_share
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.settings import SAYS_ALL, Given, Preparation, preparation_of_file
from gensupcon_jax.models import Classifier, build_backbone
from gensupcon_jax.paths import Path, split_entry
from gensupcon_jax.store import workdir
from gensupcon_jax.store.saved_runs import COLLECTIONS, SavedRun, run_backbone
from gensupcon_jax.value_bins import ValueBins
from gensupcon_jax.views.augment import normalize, resize
from gensupcon_jax.weights.architectures import Architecture, recognize_architecture
from gensupcon_jax.weights.artifact import STABLEHLO, json_path, read_artifact, stablehlo_function
from gensupcon_jax.weights.description import Description, center_share_of_run, description_of_file
from gensupcon_jax.weights.files import FORMATS, format_of, read_weights_file
from gensupcon_jax.weights.names import OWN, Named, recognize
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import fill, weights_fingerprint

_CLASSIFIER_BIASES = ("fc.bias", "params.classifier.output.bias", "head.bias")  # a ResNet's head may have the last one
_NETWORK = ("stem", "width", "pool", "blur_pool")  # what a description says of a network
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in a folder of the hub, or one that timm wrote
ALLOWED = f"the workdir of a run, a file of weights ({', '.join(FORMATS)}), or an exported {STABLEHLO} file"


class Source(NamedTuple):
    """An encoder that was read, and all that its images and outputs need.

    name: of the source, as it was given.  step: of a run's checkpoint, None where the source does not say it.  preparation: of
    images.  label_kind: of its labels, as in `dataset.json`.  bins: of labels that are numbers.
    apply_fn(variables, uint8 images [batch, *preparation.image_shape]) -> (features, logits or None).
    by_device: whether each device must call it with its own images.  run: where the source is one.  notes: sentences on what the
    source does not say and is assumed.
    """

    name: str
    step: int | None
    preparation: Preparation
    num_features: int
    has_classifier: bool
    class_names: tuple[str, ...]
    fingerprint: str
    variables: Mapping[str, Any]
    apply_fn: Callable[[Any, Any], tuple[Any, Any]]
    by_device: bool = False
    run: SavedRun | None = None
    notes: tuple[str, ...] = ()
    label_kind: str = "class"
    bins: ValueBins | None = None


def read_source(source: str | Path, *, step: int | str = "last", given: Given = SAYS_ALL) -> Source:
    """The encoder of a source; nothing is compiled.

    given: what a file does not say; a run says all of it.
    Raises UserError, in one line, for a source that does not exist, holds no encoder, or does not have this step.
    """
    path, _ = split_entry(source)
    if paths.is_folder(path) and not paths.exists(path / workdir.DATASET):
        source = path = next((path / name for name in _HUB_FILES if paths.is_file(path / name)), path)
    if paths.is_folder(path):
        return _from_workdir(path, step, given)
    is_artifact = path.suffix == STABLEHLO
    if not is_artifact and format_of(path) is None:
        raise UserError(
            f"{source} {'is not a source of an encoder' if paths.exists(path) else 'does not exist'}; allowed: {ALLOWED}"
        )
    if step != "last":
        raise UserError(f"step is {step!r}, and {source} is a file, which holds one step only; leave it out")
    return _from_artifact(path, given) if is_artifact else _from_file(source, given)


def _refuse_given(path: Path, given: Given) -> None:
    named = ", ".join(name for name, value in given._asdict().items() if value is not None)
    if named:
        raise UserError(f"{path} says its own {named}; leave out {named}")


def _from_workdir(path: Path, step: int | str, given: Given) -> Source:
    _refuse_given(path, given)
    run = load_run(path, step=step)
    description = run.description
    size, _, num_channels = description["image_shape"]
    stored = description.get("stored_size", size)
    preparation = Preparation(
        image_shape=(stored, stored, num_channels),
        center_share=center_share_of_run(run) if description.get("encoded") else 1.0,
        mean=np.array(description["mean"], np.float32),
        std=np.array(description["std"], np.float32),
    )
    share = device_center_share(description)
    source = _network_source(path, run_backbone(run), run.variables, preparation, size, share)
    labels = {"label_kind": description.get("label_kind", "class"), "bins": _bins_of(description.get("bins"))}
    return source._replace(step=run.step, class_names=tuple(description["class_names"]), run=run, **labels)


def _bins_of(fields: Mapping[str, Any] | None) -> ValueBins | None:
    return ValueBins(**fields) if fields else None


def _from_file(source: str | Path, given: Given) -> Source:
    named, note = read_weights_file(source)
    path, _ = split_entry(source)
    naming, parts = recognize(named, where=path)
    description = description_of_file(path)
    if "backbone" not in parts:
        raise UserError(f"{source} contains no encoder ({naming}); allowed: {ALLOWED}")
    found = _architecture(named, naming, path, description, given)
    prepared = preparation_of_file(path, found, naming, description, given)
    size = prepared.preparation.image_shape[0]
    backbone = build_backbone(**found.fields, image_size=size, batch_norm="local")
    wanted = tuple(part for part in ("backbone", "classifier") if part in parts)
    shapes = _shapes(backbone, named, parts, (size, size, found.num_channels))
    variables = fill(shapes, named, where=path, parts=wanted)
    read = _network_source(source, backbone, variables, prepared.preparation, size)
    return read._replace(
        step=description.step if description else None,
        class_names=prepared.class_names,
        notes=(*([note] if note else []), *prepared.notes),
        label_kind=(description and description.label_kind) or "class",
        bins=_bins_of(description and description.bins),
    )


def _from_artifact(path: Path, given: Given) -> Source:
    _refuse_given(path, given)
    artifact = read_artifact(path)
    exported = stablehlo_function(artifact)
    description = artifact.description
    here = jax.export.default_export_platform()
    if here not in exported.platforms:
        raise UserError(f"{path} was exported for {', '.join(exported.platforms)}, and this machine computes on {here}")
    size, _, num_channels = description.image_shape
    num_features, share, weights = description.num_features, description.center_share, description.fingerprint
    if num_features is None or share is None or weights is None:
        raise UserError(
            f"{json_path(path)} does not say num_features, center_share or fingerprint; export the run again"
        )
    _check_signature(exported, description, path)
    preparation = Preparation(
        image_shape=(size, size, num_channels),
        center_share=float(share),
        mean=np.array(description.mean, np.float32),
        std=np.array(description.std, np.float32),
    )
    return Source(
        name=str(path),
        step=description.step,
        preparation=preparation,
        num_features=num_features,
        has_classifier=False,
        class_names=description.class_names,
        fingerprint=preparation.fingerprint(weights),
        variables={},
        apply_fn=lambda variables, images: (exported.call(images), None),
        by_device=True,
        label_kind=description.label_kind or "class",
        bins=_bins_of(description.bins),
    )


def _check_signature(exported: jax.export.Exported, description: Description, path: Path) -> None:
    """UserError unless the function maps the images to the features that its JSON describes."""
    inputs, outputs = (
        [(aval.dtype, *aval.shape[1:]) for aval in avals] for avals in (exported.in_avals, exported.out_avals)
    )
    if inputs != [(np.uint8, *description.image_shape)] or outputs != [(np.float32, description.num_features)]:
        found = " -> ".join(", ".join(map(str, avals)) for avals in (exported.in_avals, exported.out_avals))
        raise UserError(
            f"{path} holds a function {found}; allowed: uint8 images {list(description.image_shape)} -> float32 features "
            f"[{description.num_features}], as {json_path(path).name} says; export the run again"
        )


def _architecture(named: Named, naming: str, path: Path, description: Description | None, given: Given) -> Architecture:
    if description is not None:
        fields = {name: value for name, value in description.network.items() if name in _NETWORK}
        return Architecture(
            {"name": given.architecture or description.architecture, **fields},
            given.image_size or description.image_shape[0],
            description.image_shape[2],
        )
    if naming == OWN.naming:
        raise UserError(f"{path} does not say its architecture; export the run again")
    return recognize_architecture(named, where=path, name=given.architecture)


def _shapes(backbone: Any, named: Named, parts: Sequence[str], image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The variables that the file must fill, as shapes."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    own = jax.eval_shape(lambda images: backbone.init(jax.random.key(0), images, train=False), images)
    shapes = {name: {"backbone": own[name]} if name in own else {} for name in COLLECTIONS}
    if "classifier" in parts:
        features = jax.eval_shape(lambda variables, images: backbone.apply(variables, images, train=False), own, images)
        classifier = Classifier(next(len(named[name]) for name in _CLASSIFIER_BIASES if name in named))
        shapes["params"]["classifier"] = jax.eval_shape(
            lambda: classifier.init(jax.random.key(0), jnp.zeros(features.shape))
        )["params"]
    return shapes


def _network_source(
    name: str | Path,
    backbone: Any,
    variables: Mapping[str, Any],
    preparation: Preparation,
    size: int,
    center_share: float = 1.0,
) -> Source:
    """The source for a network of ours.  size, center_share: what the device makes of the images that it takes."""
    kept = {
        kind: {part: variables[kind][part] for part in ("backbone", "classifier") if part in variables.get(kind, {})}
        for kind in COLLECTIONS
    }
    output = kept["params"].get("classifier")
    classifier = None if output is None else Classifier(output["output"]["kernel"].shape[1])
    network = {kind: {"backbone": parts["backbone"]} for kind, parts in variables.items() if "backbone" in parts}

    def apply(variables, images):
        network = {kind: parts["backbone"] for kind, parts in variables.items() if "backbone" in parts}
        pixels = normalize(resize(images, size, center_share), preparation.mean, preparation.std)
        features = backbone.apply(network, pixels, train=False)
        if classifier is None:
            return features, None
        return features, classifier.apply({"params": variables["params"]["classifier"]}, features)

    images = jax.ShapeDtypeStruct((1, *preparation.image_shape), jnp.uint8)
    features, _ = jax.eval_shape(apply, kept, images)
    return Source(
        name=str(name),
        step=None,
        preparation=preparation,
        num_features=features.shape[1],
        has_classifier=classifier is not None,
        class_names=(),
        fingerprint=preparation.fingerprint(weights_fingerprint(network)),
        variables=kept,
        apply_fn=apply,
    )
