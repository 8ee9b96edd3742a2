"""The table of encoders, `ENCODERS`: a name for `model.name` -> a function that builds a Flax module from images to features."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.errors import UserError
from gensupcon_jax.models.heads import HeadedEncoder, LinearHead, MlpHead
from gensupcon_jax.models.resnet import BasicBlock, Bottleneck, ResidualBlock, ResNet
from gensupcon_jax.models.vit import VisionTransformer

STEMS = names_of("model.stem")
POOLS = names_of("model.pool")
HEADS = names_of("model.head")
DTYPES = {name: getattr(jnp, name) for name in names_of("model.dtype")}
BATCH_NORMS = names_of("model.batch_norm")
BACKBONE_FIELDS = (
    "name",
    "stem",
    "width",
    "pool",
    "blur_pool",
    "dtype",
)  # fields of a config's `model` that the features depend on
# Those that the network depends on; the other fields of `model` say where its weights and its normalization come from.
ENCODER_FIELDS = (*BACKBONE_FIELDS, "batch_norm", "head", "head_hidden_dim", "embedding_dim")
LARGEST_CIFAR_STEM_SIZE = 64  # pixels, as in Tiny ImageNet: the ImageNet stem would leave 2x2 positions at the end


class EncoderSettings(NamedTuple):
    """The settings for a builder in ENCODERS; each reads those that apply to its network.

    image_size: pixels.  stem, width, pool, blur_pool: as the fields of `model` with these names.  dtype: of the
    computation; parameters, statistics and features are float32.  axis_name: the mesh axis over which BatchNorm's statistics are
    averaged during training; None: each device has its own.
    """

    image_size: int
    stem: str = "auto"
    width: int | None = None
    pool: str = "class"
    dtype: Any = jnp.float32
    axis_name: str | None = None
    blur_pool: bool = False


def _resnet(
    settings: EncoderSettings, *, block: type[ResidualBlock], stage_sizes: tuple[int, ...], width: int
) -> ResNet:
    return ResNet(
        block=block,
        stage_sizes=stage_sizes,
        width=settings.width or width,
        stem=choose_stem(settings.image_size) if settings.stem == "auto" else settings.stem,
        dtype=settings.dtype,
        axis_name=settings.axis_name,
        blur_pool=settings.blur_pool,
    )


def _vit(settings: EncoderSettings, *, patch_size: int, width: int, num_heads: int) -> VisionTransformer:
    if settings.blur_pool:
        raise UserError(
            "model.blur_pool is True; allowed for a vision transformer, which has no strides to blur: False"
        )
    if settings.image_size % patch_size:
        raise UserError(
            f"model.name: patches of {patch_size} pixels do not divide images of {settings.image_size}; set dataset.image_size "
            f"to a multiple of {patch_size}, or choose an encoder with other patches"
        )
    if settings.width and settings.width % num_heads:
        raise UserError(
            f"model.width is {settings.width}; allowed: a multiple of {num_heads}, the heads of this encoder"
        )
    return VisionTransformer(
        image_size=settings.image_size,
        patch_size=patch_size,
        width=settings.width or width,
        num_heads=num_heads,
        pool=settings.pool,
        dtype=settings.dtype,
    )


# A module is called with float32 images [batch, height, width, channel], normalized, and train=True or False; it returns
# float32 features [batch, feature]. Its variables are in "params" and, where it has running statistics, "batch_stats"; while
# training it may draw from the random stream "dropout". To add an encoder, add an entry: ENCODERS["mine"] = build_mine.
ENCODERS: dict[str, Callable[[EncoderSettings], nn.Module]] = {
    "resnet_small": functools.partial(_resnet, block=BasicBlock, stage_sizes=(1, 1, 1), width=32),
    "resnet18": functools.partial(_resnet, block=BasicBlock, stage_sizes=(2, 2, 2, 2), width=64),
    "resnet34": functools.partial(_resnet, block=BasicBlock, stage_sizes=(3, 4, 6, 3), width=64),
    "resnet50": functools.partial(_resnet, block=Bottleneck, stage_sizes=(3, 4, 6, 3), width=64),
    "resnet101": functools.partial(_resnet, block=Bottleneck, stage_sizes=(3, 4, 23, 3), width=64),
    **{  # timm's vit_small_patch16_224 is vit_small_patch16 at 224 pixels
        f"vit_{size}_patch{patch_size}": functools.partial(
            _vit, patch_size=patch_size, width=width, num_heads=num_heads
        )
        for size, width, num_heads in (("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12))
        for patch_size in (4, 8, 16)
    },
}


def build_model(
    *,
    name: str,
    image_size: int,
    head: str = "mlp",
    head_hidden_dim: int | None = None,
    embedding_dim: int = 128,
    **backbone_fields: Any,
) -> HeadedEncoder:
    """Return the encoder of these config fields, a backbone and a head; UserError if a value is not allowed.

    `backbone_fields` are those of `build_backbone`. `head_hidden_dim` is read by the "mlp" head only.

    Example: `build_model(name="resnet18", image_size=32, embedding_dim=64)`.
    """
    _check_choice("model.head", head, HEADS)
    _check_positive("model.embedding_dim", embedding_dim)
    _check_positive("model.head_hidden_dim", head_hidden_dim, or_none=True)
    backbone = build_backbone(name=name, image_size=image_size, **backbone_fields)
    if head == "linear":
        return HeadedEncoder(backbone, LinearHead(embedding_dim))
    return HeadedEncoder(backbone, MlpHead(embedding_dim, head_hidden_dim))


def build_backbone(
    *,
    name: str,
    image_size: int,
    stem: str = "auto",
    width: int | None = None,
    pool: str = "class",
    blur_pool: bool = False,
    dtype: str = "float32",
    batch_norm: str = "sync",
    axis_name: str = "data",
) -> nn.Module:
    """Return the network of these config fields without a head; UserError if a value is not allowed.

    `axis_name` is the mesh axis that `batch_norm="sync"` averages over during training: such a model trains under
    `jax.shard_map` only, but initializes and evaluates anywhere.
    """
    _check_choice("model.name", name, ENCODERS)
    _check_choice("model.stem", stem, STEMS)
    _check_choice("model.pool", pool, POOLS)
    _check_choice("model.dtype", dtype, DTYPES)
    _check_choice("model.batch_norm", batch_norm, BATCH_NORMS)
    _check_positive("model.width", width, or_none=True)
    settings = EncoderSettings(
        image_size=image_size,
        stem=stem,
        width=width,
        pool=pool,
        dtype=DTYPES[dtype],
        axis_name=axis_name if batch_norm == "sync" else None,
        blur_pool=blur_pool,
    )
    return ENCODERS[name](settings)


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
