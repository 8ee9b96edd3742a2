"""Vision transformers whose arithmetic is that of timm's: images -> features.

Source: Dosovitskiy et al. 2020 (arXiv 2010.11929), sizes Ti and S of DeiT (arXiv 2012.12877); timm
`models/vision_transformer.py` for names, initial weights, the order of operations and how position embeddings are resized.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-6  # of LayerNorm
MLP_RATIO = 4  # hidden units of a block's MLP, as a multiple of the width

_NORMAL = nn.initializers.normal(0.02)  # timm cuts it off at 100 standard deviations: nothing is cut
_PATCHES = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # of torch.nn.Conv2d


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one matrix, as in timm."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "batch token dim"]) -> Float[Array, "batch token dim"]:
        """Return each token's mean of all values, weighted by softmax(query . key / sqrt(dim of a head)), projected."""
        dim = tokens.shape[-1]
        qkv = nn.Dense(3 * dim, dtype=self.dtype, kernel_init=_NORMAL, name="qkv")(tokens)
        qkv = qkv.reshape(*tokens.shape[:2], 3, self.num_heads, dim // self.num_heads)
        mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], implementation="xla")
        return nn.Dense(dim, dtype=self.dtype, kernel_init=_NORMAL, name="proj")(mixed.reshape(tokens.shape))


class Mlp(nn.Module):
    """A hidden layer with exact GELU, and back to the width."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "batch token dim"]) -> Float[Array, "batch token dim"]:
        """Transform every token alike."""
        dim = tokens.shape[-1]
        hidden = nn.Dense(MLP_RATIO * dim, dtype=self.dtype, kernel_init=_NORMAL, name="fc1")(tokens)
        hidden = nn.gelu(hidden, approximate=False)
        return nn.Dense(dim, dtype=self.dtype, kernel_init=_NORMAL, name="fc2")(hidden)


class TransformerBlock(nn.Module):
    """LayerNorm, attention, sum; LayerNorm, MLP, sum."""

    num_heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Float[Array, "batch token dim"]) -> Float[Array, "batch token dim"]:
        """Add what attention and MLP say to the tokens."""
        normalized = layer_norm(self.dtype, "norm1")(tokens)
        tokens = tokens + Attention(self.num_heads, self.dtype, name="attn")(normalized)
        normalized = layer_norm(self.dtype, "norm2")(tokens)
        return tokens + Mlp(self.dtype, name="mlp")(normalized)


class VisionTransformer(nn.Module):
    """Patches and a class token, learned position embeddings, blocks, LayerNorm.

    pool "class": the features are the class token's. "average": the mean over the patches, normalized after it (timm's
    `global_pool="avg"`, where the class token stays). `image_size` is the one that position embeddings are learned for;
    for images of another size they are resized.
    """

    image_size: int
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    num_heads: int = 6
    pool: str = "class"
    dtype: Any = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Length of one image's feature vector."""
        return self.width

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch feature"]:
        """Return float32 features of normalized images, whose sides are multiples of the patch size."""
        tokens = self._tokens(images)
        for index in range(self.depth):
            tokens = TransformerBlock(self.num_heads, self.dtype, name=f"block{index + 1}")(tokens)
        if self.pool == "average":
            return layer_norm(jnp.float32, "fc_norm")(tokens[:, 1:].astype(jnp.float32).mean(axis=1))
        return layer_norm(jnp.float32, "norm")(tokens[:, 0])

    def _tokens(self, images: Float[Array, "batch height width channel"]) -> Float[Array, "batch token dim"]:
        """The class token and the patches, row by row, each with the embedding of its place."""
        size = (self.patch_size, self.patch_size)
        bound = (size[0] * size[1] * images.shape[-1]) ** -0.5

        def bias(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        patches = nn.Conv(
            self.width, size, size, "VALID", dtype=self.dtype, kernel_init=_PATCHES, bias_init=bias, name="patch_embed"
        )(images)
        side = self.image_size // self.patch_size
        class_token = self.param("cls_token", nn.initializers.normal(1e-6), (1, 1, self.width))
        positions = self.param("pos_embed", _NORMAL, (1, 1 + side * side, self.width))
        positions = resize_positions(positions, (patches.shape[1], patches.shape[2]))
        tokens = patches.reshape(patches.shape[0], -1, self.width)
        class_tokens = jnp.broadcast_to(class_token.astype(tokens.dtype), (tokens.shape[0], 1, self.width))
        return jnp.concatenate([class_tokens, tokens], axis=1) + positions.astype(tokens.dtype)


def layer_norm(dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over the features of a token, with scale and bias in float32."""
    return nn.LayerNorm(epsilon=EPSILON, dtype=dtype, name=name)


def resize_positions(
    positions: Float[Array | np.ndarray, "1 token dim"], grid: tuple[int, int]
) -> Float[Array | np.ndarray, "1 other_token dim"]:
    """Position embeddings of a class token and a square of patches, for a grid of rows x columns of patches.

    The square is resized with antialiased bicubic interpolation; the class token's embedding stays. Source: timm
    `resample_abs_pos_embed`, equal to 1e-6.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if grid == (side, side):
        return positions
    square = positions[:, 1:].reshape(1, side, side, -1)
    resized = jax.image.resize(square, (1, *grid, square.shape[-1]), "cubic", antialias=True)
    return jnp.concatenate([positions[:, :1], resized.reshape(1, grid[0] * grid[1], -1)], axis=1)


def positions_of(
    positions: Float[np.ndarray, "1 token dim"], num_tokens: int
) -> Float[np.ndarray, "1 other_token dim"]:
    """The same for a square of patches and a class token; unchanged where a number of tokens is not that of a square."""
    side = math.isqrt(num_tokens - 1)
    if any(math.isqrt(number - 1) ** 2 != number - 1 for number in (num_tokens, positions.shape[1])):
        return positions
    return np.asarray(resize_positions(positions, (side, side)))
