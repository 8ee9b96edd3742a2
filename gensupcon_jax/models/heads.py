"""Modules on top of the features of a backbone: heads, unit normalization, classifier, and the encoder that joins them."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

SHORTEST = 1e-12  # As the smallest norm of torch.nn.functional.normalize.


def unit_normalize(vectors: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """Scale each vector to length 1 in float32; NaN and infinity become NaN, so that divergence is visible.

    A vector without an entry above 1e-12 has no direction and becomes zero, with zero gradient.
    """
    vectors = vectors.astype(jnp.float32)
    largest = jax.lax.stop_gradient(jnp.abs(vectors).max(axis=-1, keepdims=True, initial=0.0))
    has_direction = ~(largest <= SHORTEST)  # True for NaN
    # In units of the largest entry no square overflows or vanishes, and the direction does not depend on the unit. Two
    # roots, as XLA may divide by way of 1 / largest, which is flushed to zero for the largest floats.
    inverse_root = jax.lax.rsqrt(jnp.where(has_direction, largest, 1.0))
    # Both wheres are needed: the inner one keeps 1/0 out of the branch not taken, whose gradient would be NaN.
    scaled = jnp.where(has_direction, vectors, 1.0) * inverse_root * inverse_root
    unit_vectors = scaled * jax.lax.rsqrt(jnp.sum(scaled**2, axis=-1, keepdims=True))
    return jnp.where(has_direction, unit_vectors, 0.0)


def linear(features: int, inputs: Float[Array, "batch dim"], *, name: str) -> Float[Array, "batch new_dim"]:
    """Apply a float32 dense layer, initialized as in PyTorch: kernel and bias uniform within 1 / sqrt(dim of the inputs).

    Source: torch.nn.Linear. The embeddings are normalized, so their length before that sets how fast the head learns:
    a different initial scale would amount to a different learning rate.
    """
    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    bound = inputs.shape[-1] ** -0.5

    def bias(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    # On a TPU a float32 product rounds its operands to bfloat16 unless the precision is stated.
    layer = nn.Dense(
        features, dtype=jnp.float32, precision=jax.lax.Precision.HIGHEST, kernel_init=kernel, bias_init=bias, name=name
    )
    return layer(inputs)


class LinearHead(nn.Module):
    """Features -> projection by one layer with bias."""

    embedding_dim: int = 128

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> Float[Array, "batch dim"]:
        """Return unnormalized float32 projections."""
        return linear(self.embedding_dim, features, name="output")


class MlpHead(nn.Module):
    """Features -> hidden layer -> ReLU -> projection, with biases; `hidden_dim` None: as wide as the features.

    Source: SupContrast `networks/resnet_big.py`. Always float32: it is under 1 % of the network's cost, and the
    temperature amplifies the rounding error of its output.
    """

    embedding_dim: int = 128
    hidden_dim: int | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> Float[Array, "batch dim"]:
        """Return unnormalized float32 projections."""
        hidden = linear(self.hidden_dim or features.shape[-1], features, name="hidden")
        return linear(self.embedding_dim, nn.relu(hidden), name="output")


class Classifier(nn.Module):
    """One float32 dense layer from features to one logit per class, for the linear probe, cross-entropy and teachers."""

    num_classes: int

    @nn.compact
    def __call__(self, features: Float[Array, "batch feature"]) -> Float[Array, "batch class"]:
        """Return unbounded float32 logits."""
        return linear(self.num_classes, features, name="output")


class EncoderOutput(NamedTuple):
    """The outputs of an encoder: features before the head and unit embeddings after it, both float32."""

    features: Float[Array, "batch feature"]
    embeddings: Float[Array, "batch dim"]


class HeadedEncoder(nn.Module):
    """A backbone (images -> features) and a head (features -> projections)."""

    backbone: nn.Module
    head: nn.Module

    def __call__(self, images: Float[Array, "batch height width channel"], *, train: bool) -> EncoderOutput:
        """Return features and unit embeddings of normalized images; with `train`, "batch_stats" must be mutable."""
        features = self.features(images, train=train)
        return EncoderOutput(features, unit_normalize(self.head(features)))

    def features(
        self, images: Float[Array, "batch height width channel"], *, train: bool = False
    ) -> Float[Array, "batch feature"]:
        """Return the features only: `model.apply(variables, images, method="features")`; the head is not run."""
        return self.backbone(images, train=train)
