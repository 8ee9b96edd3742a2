"""Mixup and CutMix of images and their label distributions, the same on any number of devices."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from gensupcon_jax.configs.fields import names_of
from gensupcon_jax.errors import UserError

Array = jax.Array | np.ndarray
Number = float | int

KINDS = names_of("mix.kind")
PER = names_of("mix.per")
VIEWS = names_of("mix.views")


class Kept(NamedTuple):
    """The weights of an image in a mix; the rest comes from its partner.

    pixels [..., height, width] in 0..1: weight of each pixel; share [...] in 0..1: their mean, the weight of the label.
    """

    pixels: jax.Array
    share: jax.Array


def build_mix_fn(*, kind: str, alpha: Number, per: str, views: str, block: int) -> Callable:
    """mix_fn(key, images, labels, *, first_index) -> (images, labels): views mixed with those of other images.

    Mixup and CutMix (authors' code) of each view and its label distribution.
    kind: "none", "mixup", "cutmix", or "mixup_cutmix", a fair coin per draw. lambda ~ Beta(alpha, alpha).
    per: "batch", one lambda and one box for all images (authors' code), or "image", one per image.
    views: "independent", each view draws its own partner, lambda and box (authors' code), or "alike", all views share them.
    block: partners are a random permutation of this many consecutive images (ours; authors: of the whole batch).

    mix_fn takes the step's key, the same on every device, and the local part of the global batch: images [batch, view,
    height, width, channel] and labels [batch, class]; first_index is the index of its first image, a multiple of block.
    It returns images [batch, view, height, width, channel] and labels [batch, view, class], float32. The mix of an image
    depends only on its index in the global batch, not on the sharding. like: the views are local ones, mixed like this many
    views of the same images with the same key: partner, lambda and the place of the box of local view l are those of view
    l modulo like. Raises UserError for settings that are not allowed; mix_fn does for a block that does not divide the local
    batch.
    """
    _check_settings(kind, alpha, per, views, block)

    def mix_fn(
        key: jax.Array,
        images: Float[Array, "batch view height width channel"],
        labels: Float[Array, "batch class"],
        *,
        first_index: int | Int[Array, ""] = 0,
        like: int | None = None,
    ) -> tuple[Float[jax.Array, "batch view height width channel"], Float[jax.Array, "batch view class"]]:
        images, labels = jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.float32)
        num_images, num_views, height, width, _ = images.shape
        if kind == "none":
            return images, jnp.repeat(labels[:, None], num_views, axis=1)
        _check_block(block, num_images, first_index)
        num_draws = (like or num_views) if views == "independent" else 1
        per_block = functools.partial(_per_block, first_index=first_index, num_images=num_images, block=block)
        partner_key, kept_key = jax.random.split(key)
        partners = per_block(partner_key, draw_fn=lambda block_key: permutations(block_key, block, num_draws))
        draw_fn = functools.partial(_draw_kept, kind=kind, alpha=alpha, height=height, width=width)
        if per == "batch":
            kept = draw_fn(kept_key, shape=(1, num_draws))
        else:
            kept = per_block(kept_key, draw_fn=functools.partial(draw_fn, shape=(block, num_draws)))
        if like is not None:
            of_view = jnp.arange(num_views) % num_draws
            partners, kept = partners[:, of_view], jax.tree.map(lambda leaf: leaf[:, of_view], kept)
        partners = jnp.broadcast_to(partners, (num_images, num_views))
        return _mixed(images, labels, partners, kept, block)

    return mix_fn


def _mixed(images, labels, partners: Int[Array, "batch view"], kept: Kept, block: int) -> tuple[jax.Array, jax.Array]:
    """Views and labels mixed with those of their partners, which are indices in the same block."""
    num_images, num_views = partners.shape
    partner_labels = labels[jnp.arange(num_images)[:, None] // block * block + partners]
    mixed_labels = _blend(labels[:, None], partner_labels, kept.share[..., None])
    return (
        _blend(images, _of_partners(images, partners, block), kept.pixels[..., None]),
        jnp.broadcast_to(mixed_labels, (num_images, num_views, labels.shape[-1])),
    )


def mixup_kept(mix_lambda: Float[Array, "*draw"], height: int, width: int) -> Kept:
    """Mixup: the same weight for every pixel, mix_lambda [...] in 0..1 (arXiv 1710.09412)."""
    mix_lambda = jnp.asarray(mix_lambda)
    shape = (*mix_lambda.shape, height, width)
    return Kept(jnp.broadcast_to(mix_lambda[..., None, None], shape), mix_lambda)


def cutmix_kept(
    mix_lambda: Float[Array, "*draw"],
    center_row: Int[Array, "*draw"],
    center_column: Int[Array, "*draw"],
    height: int,
    width: int,
) -> Kept:
    """CutMix: weight 1 outside a box, 0 inside; the share is counted (arXiv 1905.04899, authors' code).

    The sides of the box are sqrt(1 - lambda) of those of the image; the box is clipped at the border. mix_lambda [...] in 0..1,
    center_row [...] in 0 .. height - 1, center_column [...] in 0 .. width - 1.
    """
    in_rows, rows = _box_side(mix_lambda, center_row, height)
    in_columns, columns = _box_side(mix_lambda, center_column, width)
    outside = ~(in_rows[..., :, None] & in_columns[..., None, :])
    # Not 1 - lambda, nor a mean of floats: the weight of the label must be exactly the share of the pixels that are kept.
    share = (height * width - rows * columns).astype(jnp.float32) / (height * width)
    return Kept(outside.astype(jnp.float32), share)


def permutations(key: jax.Array, length: int, num: int) -> Int[jax.Array, "{length} {num}"]:
    """Independent random permutations of 0 .. length - 1, one per column."""
    # Sorts 32 random bits, as jax.random.permutation does, which takes twice as long to compile.
    return jnp.argsort(jax.random.bits(key, (length, num)), axis=0)


def _of_partners(
    images: Float[Array, "batch view height width channel"], partners: Int[Array, "batch view"], block: int
) -> Float[jax.Array, "batch view height width channel"]:
    """The views of the partners, which are indices in the image's block.

    A product of each block with its permutation matrix, which is exact at full precision. A gather takes no FLOPs, but
    does not fuse, and XLA's cost analysis counts it as 100 MB per ImageNet image.
    """
    num_views = images.shape[1]
    blocks = images.reshape(-1, block * num_views, *images.shape[2:])  # without a transposition
    places = (partners * num_views + jnp.arange(num_views)).reshape(-1, block * num_views)
    chosen = jax.nn.one_hot(places, block * num_views)
    return jnp.einsum("nij,njhwc->nihwc", chosen, blocks, precision=jax.lax.Precision.HIGHEST).reshape(images.shape)


def _draw_kept(key: jax.Array, *, shape: tuple[int, ...], kind: str, alpha: Number, height: int, width: int) -> Kept:
    beta_key, uniform_key = jax.random.split(key)
    mix_lambda, row, column, coin = jax.random.uniform(uniform_key, (4, *shape))
    # Beta(1, 1), the usual choice, is uniform: the gamma sampler alone takes seconds to compile. For other values of
    # alpha jax samples in log space: no NaN from 1e-30 to 1e38.
    if alpha != 1:
        mix_lambda = jax.random.beta(beta_key, alpha, alpha, shape, jnp.float32)
    mixup = mixup_kept(mix_lambda, height, width)
    if kind == "mixup":
        return mixup
    center_row, center_column = ((draw * size).astype(jnp.int32) for draw, size in ((row, height), (column, width)))
    cutmix = cutmix_kept(mix_lambda, center_row, center_column, height, width)
    if kind == "cutmix":
        return cutmix
    is_mixup = coin < 0.5
    pixels = jnp.where(is_mixup[..., None, None], mixup.pixels, cutmix.pixels)
    return Kept(pixels, jnp.where(is_mixup, mixup.share, cutmix.share))


def _per_block(key: jax.Array, first_index: int | Array, num_images: int, block: int, draw_fn: Callable):
    """draw_fn(key) -> arrays [block, ...], applied to all blocks: [batch, ...]; keys depend on the global block number."""
    blocks = first_index // block + jnp.arange(num_images // block)
    block_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, blocks)
    return jax.tree.map(lambda leaf: leaf.reshape(num_images, *leaf.shape[2:]), jax.vmap(draw_fn)(block_keys))


def _box_side(
    mix_lambda: Float[Array, "*draw"], center: Int[Array, "*draw"], size: int
) -> tuple[Bool[jax.Array, "*draw {size}"], Int[jax.Array, "*draw"]]:
    """Mask of the pixels of an axis that are in the box, and their number."""
    # Rounded down twice, as in the authors' code: the side, then its half. So the side is always even.
    half = jnp.floor(size * jnp.sqrt(1 - mix_lambda)).astype(jnp.int32) // 2
    start, stop = jnp.clip(center - half, 0, size), jnp.clip(center + half, 0, size)
    places = jnp.arange(size)
    return (places >= start[..., None]) & (places < stop[..., None]), stop - start


def _blend(
    own: Shaped[Array, "..."], other: Shaped[Array, "..."], kept: Float[Array, "..."]
) -> Float[jax.Array, "..."]:
    blended: Any = kept * own + (1 - kept) * other
    return blended


def _check_settings(kind: str, alpha: Number, per: str, views: str, block: int) -> None:
    for name, value, allowed in (("kind", kind, KINDS), ("per", per, PER), ("views", views, VIEWS)):
        if value not in allowed:
            raise UserError(f"mix.{name} is {value!r}; allowed: {', '.join(allowed)}")
    if not 0 < alpha < math.inf:
        raise UserError(f"mix.alpha is {alpha!r}; allowed: a number above 0")
    if block < 2 and kind != "none":  # with 1, every image would be its own partner
        raise UserError(f"mix.block is {block!r}; allowed: an integer from 2")


def _check_block(block: int, num_images: int, first_index: int | Array) -> None:
    if num_images % block:
        divisors = [size for size in range(2, num_images + 1) if num_images % size == 0]
        raise UserError(
            f"mix.block is {block}, which does not divide the {num_images} images per device; "
            f"allowed: {', '.join(map(str, divisors)) or 'none, as an image per device has no partner'}"
        )
    if isinstance(first_index, int) and first_index % block:
        raise UserError(f"first_index is {first_index}; allowed: multiples of mix.block ({block})")
