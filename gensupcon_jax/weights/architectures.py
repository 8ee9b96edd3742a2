"""The architecture of a network, read off the names and shapes of its weights."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from gensupcon_jax.errors import UserError
from gensupcon_jax.models import ENCODERS, EncoderSettings, ResNet, VisionTransformer
from gensupcon_jax.models.resnet import Bottleneck
from gensupcon_jax.paths import Path
from gensupcon_jax.weights.names import canonical

_ANY_SIZE = 224  # divisible by all patches


class Architecture(NamedTuple):
    """The network of a file: fields of `build_backbone` without the image size, which is None where any fits."""

    fields: dict[str, Any]
    image_size: int | None
    num_channels: int


def recognize_architecture(
    named: Mapping[str, np.ndarray], *, where: str | Path, name: str | None = None
) -> Architecture:
    """The architecture of a ResNet or a vision transformer with timm's, torchvision's or SupContrast's names.

    name: of the encoder, where the shapes do not tell it: a vision transformer of another width, whose heads are not known.
    Raises UserError for a network that is not among ours.
    """
    shapes = {canonical(tensor): value.shape for tensor, value in named.items()}
    for needed, read_off in (("conv1.weight", _resnet), ("patch_embed.proj.weight", _transformer)):
        if len(shapes.get(needed, ())) == 4:
            return read_off(shapes, where, name)
    raise UserError(
        f"{where} has neither conv1.weight nor patch_embed.proj.weight, from which its architecture could be seen; allowed: "
        "ResNets and vision transformers with the names of timm, torchvision or SupContrast, and files that this program exported"
    )


def _resnet(shapes: Mapping[str, tuple[int, ...]], where: str | Path, name: str | None) -> Architecture:
    width, num_channels, kernel, _ = shapes["conv1.weight"]
    blocks = {
        (int(found[1]), int(found[2])) for found in map(re.compile(r"layer(\d+)\.(\d+)\.").match, shapes) if found
    }
    sizes = tuple(
        sum(stage == number for stage, _ in blocks) for number in range(1, 1 + max(blocks, default=(0, 0))[0])
    )
    is_bottleneck = "layer1.0.conv3.weight" in shapes
    fitting = [
        known
        for known, module in _built(ResNet)
        if module.stage_sizes == sizes and issubclass(module.block, Bottleneck) == is_bottleneck
    ]
    if name is None and not fitting:
        kind = "bottleneck" if is_bottleneck else "basic"
        raise UserError(
            f"{where} is a ResNet with {', '.join(map(str, sizes))} {kind} blocks; allowed: "
            f"{', '.join(known for known, _ in _built(ResNet))}"
        )
    stem = "imagenet" if kernel == 7 else "cifar"
    return Architecture({"name": name or fitting[0], "stem": stem, "width": width}, None, num_channels)


def _transformer(shapes: Mapping[str, tuple[int, ...]], where: str | Path, name: str | None) -> Architecture:
    width, num_channels, patch_size, _ = shapes["patch_embed.proj.weight"]
    depth = len({found[1] for found in map(re.compile(r"blocks\.(\d+)\.").match, shapes) if found})
    known = {(module.width, module.patch_size, module.depth): encoder for encoder, module in _built(VisionTransformer)}
    fitting = name or known.get((width, patch_size, depth))
    if fitting is None:
        allowed = ", ".join(f"{encoder} ({wide})" for (wide, *_), encoder in known.items())
        raise UserError(
            f"{where} is a vision transformer of width {width} with {depth} blocks and patches of {patch_size} pixels, whose "
            f"number of heads is not in the file; allowed (width): {allowed}; or name the one with its heads as architecture"
        )
    image_size = patch_size * math.isqrt(shapes["pos_embed"][1] - 1) if "pos_embed" in shapes else None
    pool = "average" if "fc_norm.weight" in shapes else "class"
    return Architecture({"name": fitting, "width": width, "pool": pool}, image_size, num_channels)


def _built(kind: type) -> Iterator[tuple[str, Any]]:
    """The encoders of this kind in the table, those of other packages included."""
    for name, build in ENCODERS.items():
        module: nn.Module | None = None
        with contextlib.suppress(UserError):  # one that takes only images of another size
            module = build(EncoderSettings(image_size=_ANY_SIZE))
        if isinstance(module, kind):
            yield name, module
