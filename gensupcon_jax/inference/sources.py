"""Where an encoder comes from: the workdir of a run, a file of weights, or an exported artifact."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.models import Classifier
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.store.saved_runs import COLLECTIONS, SavedRun, run_backbone
from gensupcon_jax.views.augment import normalize, resize
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import weights_fingerprint


class Source(NamedTuple):
    """An encoder that was read, and all that its images and outputs need.

    name: of the source, as it was given.  step: of a run's checkpoint.  image_shape: (height, width, channel) of the images that
    apply_fn takes.  center_share: share of the shorter side that the center crop of an image file keeps.  mean, std [channel]:
    0..1.  apply_fn(variables, uint8 images [batch, *image_shape]) -> (features, logits or None).  run: where the source is one.
    notes: sentences on what the source does not say and is assumed.
    """

    name: str
    step: int | None
    image_shape: tuple[int, int, int]
    num_features: int
    class_names: tuple[str, ...]
    center_share: float
    mean: np.ndarray
    std: np.ndarray
    fingerprint: str
    variables: Mapping[str, Any]
    apply_fn: Callable[[Any, Any], tuple[Any, Any]]
    run: SavedRun | None = None
    notes: tuple[str, ...] = ()


def read_source(source: str | Path, *, step: int | str = "last") -> Source:
    """The encoder of a source; nothing is compiled.

    Raises UserError, in one line, for a source that does not exist, holds no encoder, or does not have this step.
    """
    path = as_path(source)
    if path.is_dir():
        return _from_workdir(path, step)
    raise UserError(f"{source} is not the workdir of a run; allowed: the --workdir of a run")


def _from_workdir(path: Path, step: int | str) -> Source:
    run = load_run(path, step=step)
    description = run.description
    size, _, num_channels = description["image_shape"]
    stored = description.get("stored_size", size)
    mean, std = (np.array(description[name], np.float32) for name in ("mean", "std"))
    share = float(run.config.dataset.get("center_share", 0.875)) if description.get("encoded") else 1.0
    image_shape = (stored, stored, num_channels)
    apply_fn = _apply_fn(run_backbone(run), run.variables, size, mean, std)
    return Source(
        name=str(path),
        step=run.step,
        image_shape=image_shape,
        num_features=_num_features(apply_fn, run.variables, image_shape),
        class_names=tuple(description["class_names"]),
        center_share=share,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(backbone_fingerprint(run.variables), image_shape, mean, std, share),
        variables=_network(run.variables),
        apply_fn=apply_fn,
        run=run,
    )


def backbone_fingerprint(variables: Mapping[str, Any]) -> str:
    """The fingerprint of a backbone's weights, as in the description of an export."""
    return weights_fingerprint({name: tree["backbone"] for name, tree in variables.items() if "backbone" in tree})


def _fingerprint(weights: str, image_shape: Sequence[int], mean: np.ndarray, std: np.ndarray, share: float) -> str:
    """Of all that features depend on: equal for a run and its export, different where images are prepared differently."""
    return fingerprint([json.dumps([weights, list(image_shape), mean.tolist(), std.tolist(), share])])


def _network(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that features and logits are computed from."""
    parts = ("backbone", "classifier")
    return {
        name: {part: variables[name][part] for part in parts if part in variables.get(name, {})} for name in COLLECTIONS
    }


def _apply_fn(backbone: Any, variables: Mapping[str, Any], size: int, mean: np.ndarray, std: np.ndarray) -> Callable:
    """uint8 images -> features and logits, as the run's own evaluation computes them."""
    output = variables["params"].get("classifier")
    classifier = None if output is None else Classifier(output["output"]["kernel"].shape[1])

    def apply(variables, images):
        network = {name: parts["backbone"] for name, parts in variables.items() if "backbone" in parts}
        features = backbone.apply(network, normalize(resize(images, size), mean, std), train=False)
        if classifier is None:
            return features, None
        return features, classifier.apply({"params": variables["params"]["classifier"]}, features)

    return apply


def _num_features(apply_fn: Callable, variables: Mapping[str, Any], image_shape: tuple[int, int, int]) -> int:
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    features, _ = jax.eval_shape(apply_fn, _network(variables), images)
    return features.shape[1]
