"""What one must know to use an exported encoder: stands in a .safetensors file, and beside an artifact as JSON."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors

from gensupcon_jax import __version__, paths
from gensupcon_jax.configs.rules import FLAG, integer, optional
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.json_files import COUNT, OF_IMAGES, SIDE, TEXT, check_channels, check_fields, parsed
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.store.saved_runs import SavedRun, run_backbone
from gensupcon_jax.weights.files import SAFETENSORS
from gensupcon_jax.weights.variables import weights_fingerprint

INTERPOLATION = "bilinear"  # of the center crop; crops of more than twice the size are averaged over areas
NETWORK_FIELDS = ("stem", "width", "patch_size", "pool", "blur_pool")  # of a network's attributes, where it has them


class Description(NamedTuple):
    """What one must know to use an exported encoder; None where an older file does not say it.

    architecture: as `model.name`.  network: its stem, width, patch_size, pool, blur_pool, as far as it has them.  image_shape:
    height, width, channels.  center_share: share of the shorter side that the center crop keeps.  mean, std: by channel, on the
    scale 0..1.  class_names: may be empty.  fingerprint: of the encoder's weights.  made_by: program and version.
    run_fingerprint: of the run's config and data, the same at every step.  label_kind: several: its classifier has a sigmoid for
    each of the class_names.  bins: of labels that are numbers, the fields of ValueBins.
    """

    architecture: str
    network: dict[str, Any]
    num_features: int | None
    image_shape: tuple[int, ...]
    center_share: float | int | None
    interpolation: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    step: int
    fingerprint: str | None
    made_by: str
    run_fingerprint: str | None = None
    label_kind: str | None = None
    bins: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields by name, those of the network beside the others."""
        return {name: value for name, value in self._asdict().items() if name != "network"} | self.network

    def as_metadata(self) -> dict[str, str]:
        """The same as texts, as .safetensors keeps them: what is no text is JSON."""
        values = {name: value for name, value in self.as_json().items() if value is not None}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def describe(run: SavedRun) -> Description:
    """The description of a run's encoder."""
    backbone, data = run_backbone(run), run.description
    network = {name: tree["backbone"] for name, tree in run.variables.items() if "backbone" in tree}
    weights = {name: {"backbone": tree} for name, tree in network.items()}
    images = jax.ShapeDtypeStruct((1, *data["image_shape"]), np.float32)
    features = jax.eval_shape(lambda images: backbone.apply(network, images, train=False), images)
    return Description(
        architecture=run.config.model.name,
        # A network that is not blurred does not say so, as in files of before.
        network={
            name: getattr(backbone, name) for name in NETWORK_FIELDS if getattr(backbone, name, False) is not False
        },
        num_features=features.shape[-1],
        image_shape=tuple(data["image_shape"]),
        center_share=center_share_of_run(run),
        interpolation=INTERPOLATION,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        class_names=tuple(data["class_names"]),
        step=run.step,
        fingerprint=weights_fingerprint(weights),
        made_by=f"gensupcon_jax {__version__}",
        run_fingerprint=fingerprint([json.dumps([run.config.to_dict(), data], sort_keys=True)]),
        label_kind=data.get("label_kind", "class"),
        bins=data.get("bins"),
    )


def center_share_of_run(run: SavedRun) -> float:
    """The share of the shorter side of an image that the run's own evaluation keeps."""
    data = run.description
    if "center_share" in data:
        return float(data["center_share"])
    # Of an older run: images in memory were used whole.
    return float(run.config.dataset.center_share) if data.get("encoded") and "dataset" in run.config else 1.0


def description_of_file(path: str | Path) -> Description | None:
    """The description in a .safetensors file that this program exported; None for other files and other programs'."""
    path = as_path(path)
    if not path.name.endswith(SAFETENSORS):
        return None
    try:
        with paths.local_file(path) as local, safetensors.safe_open(local, framework="numpy") as tensors:
            metadata = tensors.metadata() or {}
    except (safetensors.SafetensorError, *paths.failures()) as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({error}); copy or convert it again") from error
    if not metadata.get("made_by", "").startswith("gensupcon_jax"):
        return None
    return from_json({name: _parsed(name, value) for name, value in metadata.items()}, where=path)


def from_json(values: Mapping[str, Any], *, where: str | Path) -> Description:
    """The description with these fields; UserError if one is missing that every export has, or is no description's."""
    needed = ("architecture", "image_shape", "mean", "std", "class_names", "step", "made_by")
    check_fields(values, _RULES, needed, where=where, remedy=_REMEDY)
    check_channels(values, where=where, remedy=_REMEDY)
    found: dict[str, Any] = {name: values.get(name) for name in Description._fields if name != "network"}
    found |= {name: tuple(found[name]) for name in ("image_shape", "mean", "std", "class_names")}
    return Description(network={name: values[name] for name in NETWORK_FIELDS if name in values}, **found)


_REMEDY = "export the run again"
_RULES = OF_IMAGES | {
    "architecture": TEXT,
    "stem": optional(TEXT),
    "width": optional(integer(1, 65_536)),
    "patch_size": optional(SIDE),
    "pool": optional(TEXT),
    "blur_pool": optional(FLAG),
    "num_features": optional(integer(1, 2**31)),
    "interpolation": optional(TEXT),
    "step": COUNT,
    "fingerprint": optional(TEXT),
    "made_by": TEXT,
    "run_fingerprint": optional(TEXT),
}
_TEXTS = ("architecture", "stem", "pool", "interpolation", "fingerprint", "made_by", "run_fingerprint", "label_kind")


def _parsed(name: str, text: str) -> Any:
    """A value of the metadata; what is no JSON, though it should be, stays a text."""
    if name in _TEXTS or name not in (*Description._fields, *NETWORK_FIELDS):
        return text
    try:
        return parsed(text)
    except ValueError:
        return text
