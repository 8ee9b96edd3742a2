"""Encoders by name: a config's `model` fields -> a Flax module."""

from collections.abc import Iterable

import jax.numpy as jnp

from gensupcon_jax.errors import UserError
from gensupcon_jax.models.heads import Classifier, Encoder, EncoderOutput, LinearHead, MlpHead, unit_normalize
from gensupcon_jax.models.resnet import BasicBlock, Bottleneck, ResNet

__all__ = [
    "BATCH_NORMS",
    "DTYPES",
    "HEADS",
    "MODEL_NAMES",
    "STEMS",
    "Classifier",
    "Encoder",
    "EncoderOutput",
    "LinearHead",
    "MlpHead",
    "ResNet",
    "build_backbone",
    "build_model",
    "choose_stem",
    "unit_normalize",
]

ARCHITECTURES = {  # name: (block, blocks in each stage, default width)
    "resnet_small": (BasicBlock, (1, 1, 1), 32),
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 64),
}
MODEL_NAMES = tuple(ARCHITECTURES)
STEMS = ("auto", "cifar", "imagenet")
HEADS = ("linear", "mlp")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
BATCH_NORMS = ("sync", "local")
LARGEST_CIFAR_STEM_SIZE = 64  # pixels, Tiny ImageNet's: the ImageNet stem would leave 2x2 positions at the end


def build_model(
    *,
    name: str,
    image_size: int,
    stem: str = "auto",
    width: int | None = None,
    head: str = "mlp",
    head_hidden_dim: int | None = None,
    embedding_dim: int = 128,
    dtype: str = "float32",
    batch_norm: str = "sync",
    axis_name: str = "data",
) -> Encoder:
    """Return the encoder of these config fields; UserError where a value is not allowed.

    `axis_name` is the mesh axis that `batch_norm="sync"` averages over while training: such a model trains under
    `jax.shard_map` only, but initializes and evaluates anywhere. `head_hidden_dim` is read by the "mlp" head only.
    """
    _check_choice("model.head", head, HEADS)
    _check_positive("model.embedding_dim", embedding_dim)
    _check_positive("model.head_hidden_dim", head_hidden_dim, or_none=True)
    backbone = build_backbone(
        name=name,
        image_size=image_size,
        stem=stem,
        width=width,
        dtype=dtype,
        batch_norm=batch_norm,
        axis_name=axis_name,
    )
    if head == "linear":
        return Encoder(backbone, LinearHead(embedding_dim))
    return Encoder(backbone, MlpHead(embedding_dim, head_hidden_dim))


def build_backbone(
    *,
    name: str,
    image_size: int,
    stem: str = "auto",
    width: int | None = None,
    dtype: str = "float32",
    batch_norm: str = "sync",
    axis_name: str = "data",
) -> ResNet:
    """Return the network of these config fields without a head; UserError where a value is not allowed."""
    _check_choice("model.name", name, ARCHITECTURES)
    _check_choice("model.stem", stem, STEMS)
    _check_choice("model.dtype", dtype, DTYPES)
    _check_choice("model.batch_norm", batch_norm, BATCH_NORMS)
    _check_positive("model.width", width, or_none=True)
    block, stage_sizes, default_width = ARCHITECTURES[name]
    return ResNet(
        block=block,
        stage_sizes=stage_sizes,
        width=width or default_width,
        stem=choose_stem(image_size) if stem == "auto" else stem,
        dtype=DTYPES[dtype],
        axis_name=axis_name if batch_norm == "sync" else None,
    )


def choose_stem(image_size: int) -> str:
    """Return the stem that fits images of this height in pixels: "cifar" up to 64, "imagenet" above."""
    return "cifar" if image_size <= LARGEST_CIFAR_STEM_SIZE else "imagenet"


def _check_choice(field: str, found: str, allowed: Iterable[str]) -> None:
    if found not in allowed:
        raise UserError(f"{field} is {found!r}; allowed: {', '.join(allowed)}")


def _check_positive(field: str, found: int | None, *, or_none: bool = False) -> None:
    if found is None and or_none:
        return
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        allowed = "a whole number >= 1" + (", or None for the default" if or_none else "")
        raise UserError(f"{field} is {found!r}; allowed: {allowed}")
