"""Mean and standard deviation that an encoder was trained with: said by its source, or assumed, and then said to be assumed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import split_entry
from gensupcon_jax.weights.description import description_of_file
from gensupcon_jax.weights.hub_config import HUB_CONFIG, hub_config
from gensupcon_jax.weights.names import RESNET, VIT, Named, canonical, recognize

# timm's IMAGENET_DEFAULT_MEAN and _STD, which are torchvision's.
TIMM_MEAN, TIMM_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Number = float | int

_INPUT_LAYERS = ("conv1.weight", "patch_embed.proj.weight")


class Normalization(NamedTuple):
    """Mean and std [channel] of images on the scale 0..1, and where they come from, for the log and `dataset.json`."""

    mean: Float[np.ndarray, "channel"]
    std: Float[np.ndarray, "channel"]
    origin: str


def normalization_of_run(path: str, description: dict[str, Any]) -> Normalization:
    """Those with which the run in a workdir normalized its images."""
    mean, std = (np.array(description[name], np.float32) for name in ("mean", "std"))
    return Normalization(mean, std, f"those of the encoder in {path}")


def normalization_of_file(path: str, named: Named) -> Normalization | None:
    """Those that the file or timm's config.json beside it says; else timm's, for 3 channels and names of timm or torchvision.

    None: unknown.
    """
    file, _ = split_entry(path)
    description = description_of_file(file)
    if description is not None:
        mean, std = (np.array(values, np.float32) for values in (description.mean, description.std))
        return Normalization(mean, std, f"those that {file} says")
    num_channels, beside = channels_of_file(path, named), hub_config(file)
    if beside.get("mean") and beside.get("std") and len(beside["mean"]) == len(beside["std"]) == num_channels:
        mean, std = (np.array(beside[name], np.float32) for name in ("mean", "std"))
        return Normalization(mean, std, f"those that {file.parent / HUB_CONFIG} says")
    naming = recognize(named, where=file).naming
    if num_channels != 3 or naming not in (RESNET.naming, VIT.naming):
        return None
    return Normalization(
        np.array(TIMM_MEAN, np.float32),
        np.array(TIMM_STD, np.float32),
        f"timm's and torchvision's for ImageNet, assumed because {file} does not say its own",
    )


def channels_of_file(path: str, named: Named) -> int | None:
    """The channels of the images that the network of a file takes, None where neither names nor description tell."""
    shapes = {canonical(name): value.shape for name, value in named.items()}
    for layer in _INPUT_LAYERS:
        if len(shapes.get(layer, ())) == 4:
            return shapes[layer][1]
    description = description_of_file(split_entry(path)[0])
    return description and description.image_shape[2]


def chosen_normalization(
    given: tuple[Sequence[Number] | None, Sequence[Number] | None],
    source: Normalization | None,
    of_data: dict[str, Any],
    path: str | None,
) -> Normalization:
    """The mean and std that images are normalized with: those given, else those of the encoder's source, else of the data.

    given: model.mean and model.std.  of_data: the description of a data set.  path: `model.weights`, where there is one.
    Raises UserError for numbers that do not fit the channels of the images.
    """
    num_channels = of_data["image_shape"][2]
    mean, std = given
    if mean is not None and std is not None:
        mean, std = _by_channel("mean", mean, num_channels), _by_channel("std", std, num_channels)
        return Normalization(mean, std, "model.mean and model.std")
    if source is not None:
        return source
    mean, std = (np.array(of_data[name], np.float32) for name in ("mean", "std"))
    assumed = "" if path is None else f", assumed because {path} does not say its own"
    return Normalization(mean, std, f"those of the training images{assumed}")


def sentence_of(chosen: Normalization) -> str:
    """The choice as a line of the log."""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (chosen.mean, chosen.std))
    hint = "; model.mean and model.std set others" if "assumed" in chosen.origin else ""
    return f"images are normalized with mean ({mean}) and std ({std}): {chosen.origin}{hint}"


def _by_channel(name: str, values: Sequence[Number], num_channels: int) -> Float[np.ndarray, "{num_channels}"]:
    found = np.asarray(values, np.float32)
    if len(found) not in (1, num_channels) or (name == "std" and not (found > 0).all()):
        kind = "numbers above 0" if name == "std" else "numbers"
        raise UserError(
            f"model.{name} is {tuple(values)}; allowed: 1 or {num_channels} {kind} on the scale 0..1, "
            "as the images have this number of channels"
        )
    return np.broadcast_to(found, num_channels).copy()
