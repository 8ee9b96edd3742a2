"""The local views of a config: their number and size, and whether its network can take them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError
from ml_collections import ConfigDict

from gensupcon_jax.data.shapes import DataShape, LocalCrops
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import HeadedEncoder
from gensupcon_jax.text import one_line

# The fields of `augment` that only local views have; and their usual size, 96 of 224 pixels (SwAV, arXiv 2006.09882).
LOCAL_FIELDS = ("local_views", "local_size", "local_scale")
_LOCAL_SHARE = 96 / 224


def local_crops(config: ConfigDict, view_size: int) -> LocalCrops | None:
    """The config's local views beside views of this size, or None; UserError for a size above that of the views."""
    fields = config.augment
    if fields.local_views == 0:
        return None
    usual = max(1, round(_LOCAL_SHARE * view_size))
    size = usual if fields.local_size is None else fields.local_size
    if size > view_size:
        raise UserError(
            f"augment.local_size is {size}; allowed: 1 to {view_size}, the size of the views in pixels, or None for {usual}"
        )
    return LocalCrops(fields.local_views, size, tuple(fields.local_scale))


def views_in_pixels(config: ConfigDict, view_size: int) -> float:
    """The number of views of an image, where local ones count by their share of the pixels."""
    local = local_crops(config, view_size)
    return config.augment.num_views + (local.num_views * (local.size / view_size) ** 2 if local else 0.0)


def check_local_views(config: ConfigDict, model: HeadedEncoder, data: DataShape) -> None:
    """UserError if the network of the views cannot take the local views too, or a size of the views is below theirs."""
    for view_size in config.augment.sizes or (data.image_size,):
        if local := local_crops(config, view_size):
            _check_size(model, data, local.size)


def _check_size(model: HeadedEncoder, data: DataShape, size: int) -> None:
    patch = getattr(model.backbone, "patch_size", 1)
    if size % patch:
        nearest = sorted({max(patch, size // patch * patch), min(-(-size // patch) * patch, data.image_size)})
        raise UserError(
            f"augment.local_size is {size}, which patches of {patch} pixels do not divide; set it to "
            f"{' or '.join(map(str, nearest))}, or choose an encoder with other patches"
        )

    def image(size: int) -> Any:
        return jnp.zeros((1, size, size, data.num_channels))

    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image(data.image_size), train=False))
    try:
        jax.eval_shape(lambda variables: model.apply(variables, image(size), train=False), variables)
    except (ScopeParamShapeError, TypeError, ValueError) as error:
        raise UserError(
            f"augment.local_size is {size}, but this model.name takes only images of {data.image_size} pixels "
            f"({one_line(error)}); set augment.local_views to 0, or choose another encoder"
        ) from error
