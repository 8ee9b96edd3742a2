"""How images are prepared for an encoder: said by its run or its file, given by the caller, or assumed with a sentence."""

import json
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.paths import Path
from gensupcon_jax.weights.architectures import Architecture
from gensupcon_jax.weights.description import Description
from gensupcon_jax.weights.hub_config import hub_config
from gensupcon_jax.weights.names import SUPCONTRAST
from gensupcon_jax.weights.normalization import TIMM_MEAN, TIMM_STD

Number = float | int
TIMM_SIZE, TIMM_SHARE = 224, 0.875  # input_size and crop_pct of timm's `_cfg`
_CIFAR_SIZE = 32


class Given(NamedTuple):
    """What the caller says of a file; None: the file says it, or it is assumed.

    architecture: as `model.name`.  image_size: pixels.  mean, std: of each channel, 0..1.  class_names: in the order of the
    classifier.  center_share: share of the shorter side that the center crop keeps.
    """

    architecture: str | None = None
    image_size: int | None = None
    mean: Sequence[Number] | None = None
    std: Sequence[Number] | None = None
    class_names: Sequence[str] | None = None
    center_share: Number | None = None


SAYS_ALL = Given()


def checked(settings: Mapping[str, Any]) -> Given:
    """What the caller says; UserError for a name or a value that is not allowed."""
    unknown = sorted(set(settings) - set(Given._fields))
    if unknown:
        raise UserError(f"{unknown[0]} is not known of a source; allowed: {', '.join(Given._fields)}")
    given = Given(**settings)
    size, share = given.image_size, given.center_share
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise UserError(f"image_size is {size!r}; allowed: a whole number of pixels >= 1")
    if share is not None and (isinstance(share, bool) or not isinstance(share, Real) or not 0 < share <= 1):
        raise UserError(f"center_share is {share!r}; allowed: a number above 0, at most 1")
    return given


class Preparation(NamedTuple):
    """How an image becomes the input of an encoder.

    image_shape: (height, width, channel) of the images that it takes as they are.  center_share: share of the shorter side of
    another image that the center crop keeps.  mean, std [channel]: 0..1.
    """

    image_shape: tuple[int, int, int]
    center_share: float
    mean: Float[np.ndarray, "channel"]
    std: Float[np.ndarray, "channel"]

    def fingerprint(self, weights: str) -> str:
        """Of all that features depend on, with the fingerprint of the weights: equal for a run and its export."""
        fields = [list(self.image_shape), self.center_share, self.mean.tolist(), self.std.tolist()]
        return fingerprint([json.dumps([weights, *fields])])


class Prepared(NamedTuple):
    """The preparation for a file, the names of its classes, and sentences on what was assumed."""

    preparation: Preparation
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def preparation_of_file(
    path: Path, found: Architecture, naming: str, description: Description | None, given: Given
) -> Prepared:
    """The preparation that the caller gives, else that the file says, else timm's; UserError where none is known."""
    said = _said(path, found, description)
    notes: list[str] = []
    size = given.image_size or said.get("image_size") or found.image_size
    if size is None:
        is_cifar = found.fields.get("stem") == "cifar"
        size = _CIFAR_SIZE if is_cifar else TIMM_SIZE
        notes.append(f"{path} does not say its image size: {size} x {size} pixels are assumed; image_size sets others")
    share = (
        given.center_share or said.get("center_share") or (1.0 if found.fields.get("stem") == "cifar" else TIMM_SHARE)
    )
    statistics = {}
    for name, usual in (("mean", TIMM_MEAN), ("std", TIMM_STD)):
        own = getattr(given, name) if getattr(given, name) is not None else said.get(name)
        if own is None and (naming == SUPCONTRAST or found.num_channels != 3):
            raise UserError(
                f"{path} ({naming} names, {found.num_channels} channels) does not say the mean and std of its images; give them, "
                "as in mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010) for CIFAR-10"
            )
        if own is None and name == "mean":
            notes.append(
                f"{path} does not say its mean and std: timm's are assumed, {TIMM_MEAN} and {TIMM_STD}; "
                "mean and std set others"
            )
        statistics[name] = _channels(name, usual if own is None else own, found.num_channels)
    names = given.class_names if given.class_names is not None else said.get("class_names") or ()
    preparation = Preparation((size, size, found.num_channels), float(share), **statistics)
    return Prepared(preparation, tuple(str(name) for name in names), tuple(notes))


def _channels(name: str, values: Any, num_channels: int) -> Float[np.ndarray, "channel"]:
    try:
        array = np.asarray(values, np.float32).reshape(-1)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    fits = len(array) in (1, num_channels) and np.isfinite(array).all() and (name == "mean" or (array > 0).all())
    if not fits:
        kind = "numbers" if name == "mean" else "numbers above 0"
        raise UserError(f"{name} is {values!r}; allowed: {num_channels} {kind} on the scale 0..1, one for each channel")
    return np.broadcast_to(array, num_channels).copy()


def _said(path: Path, found: Architecture, description: Description | None) -> dict[str, Any]:
    """What our own description says, or else timm's config beside the file."""
    if description is not None:
        return {
            "image_size": description.image_shape[0],
            "center_share": description.center_share,
            "mean": description.mean,
            "std": description.std,
            "class_names": description.class_names,
        }
    config = hub_config(path)
    return {
        "image_size": (config.get("input_size") or [None])[-1],
        "center_share": config.get("crop_pct"),
        "mean": config.get("mean"),
        "std": config.get("std"),
        "class_names": config.get("label_names"),
    }
