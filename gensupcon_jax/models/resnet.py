"""Residual networks with the arithmetic of SupContrast, torchvision and timm: images -> pooled features.

Source: He et al. 2015 (arXiv 1512.03385), in the form "v1.5" (a bottleneck strides on its 3x3 convolution); SupContrast
`networks/resnet_big.py` for the CIFAR stem; torchvision `models/resnet.py` for the ImageNet stem.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gensupcon_jax.models.blur_pool import blur
from gensupcon_jax.models.gram import Kernel, NormalizedProduct
from gensupcon_jax.models.small_maps import convolve
from gensupcon_jax.models.stem import EPSILON, MOMENTUM, NormalizedMaxima

HE_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvolutionalModule(nn.Module):
    """Base class of networks and blocks: the compute dtype and the construction of convolutions and BatchNorm.

    `axis_name` is the mesh axis whose devices share batch statistics during training; None: each device has its own.
    `blur_pool`: the inputs of a convolution with a stride are blurred. As convolutions commute, that is Zhang's blur after the
    convolution, without the ReLU in between, for a quarter of the multiplications.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    blur_pool: bool = False

    def convolution(
        self,
        inputs: Float[Array, "batch height width channel"],
        features: int,
        *,
        kernel: int,
        stride: int,
        name: str,
        is_of_image: bool = False,
    ) -> Float[Array, "batch new_height new_width new_channel"]:
        """Convolve without bias, padded by kernel // 2 on every side, as PyTorch ("SAME" differs when striding).

        With `blur_pool` the inputs are blurred before a stride, unless they are images, as in Zhang's code.
        """
        if self.blur_pool and stride > 1 and not is_of_image:
            inputs = blur(inputs.astype(self.dtype))
        shared = {"use_bias": False, "dtype": self.dtype, "kernel_init": HE_FAN_OUT, "name": name}
        if kernel == 1:  # A matrix product: 1.2-1.3x faster than the same convolution on XLA:CPU, equal elsewhere.
            return nn.Dense(features, **shared)(inputs[:, ::stride, ::stride])
        window = {"kernel_size": (kernel, kernel), "strides": (stride, stride), "padding": kernel // 2}
        return nn.Conv(features, **window, conv_general_dilated=convolve, **shared)(inputs)

    def batch_norm(
        self, inputs: Float[Array, "batch height width channel"], *, train: bool, name: str
    ) -> Float[Array, "batch height width channel"]:
        """Normalize with the batch's statistics (train) or the running ones; statistics and parameters are float32."""
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=MOMENTUM,
            epsilon=EPSILON,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name=name,
        )(inputs)


class ResidualBlock(ConvolutionalModule):
    """Base class of both blocks: `width` of the 3x3 convolutions, `stride` of the first of them, and the shortcut."""

    expansion: ClassVar[int] = 1  # Output channels = width * expansion.
    width: int = 64
    stride: int = 1

    def shortcut(
        self, inputs: Float[Array, "batch height width channel"], features: int, *, train: bool
    ) -> Float[Array, "batch new_height new_width new_channel"]:
        """The inputs themselves, or a 1x1 convolution and BatchNorm where size or channels change."""
        if self.stride == 1 and inputs.shape[-1] == features:
            return inputs
        projected = self.convolution(inputs, features, kernel=1, stride=self.stride, name="shortcut_conv")
        return self.batch_norm(projected, train=train, name="shortcut_bn")


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions; ResNet-18, -34 and the small network."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch new_height new_width new_channel"]:
        """Add the residual of the block to its shortcut."""
        x = self.convolution(inputs, self.width, kernel=3, stride=self.stride, name="conv1")
        x = nn.relu(self.batch_norm(x, train=train, name="bn1"))
        x = self.convolution(x, self.width, kernel=3, stride=1, name="conv2")
        x = self.batch_norm(x, train=train, name="bn2")
        return nn.relu(x + self.shortcut(inputs, self.width, train=train))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (strided), 1x1 convolutions; ResNet-50 and -101."""

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch new_height new_width new_channel"]:
        """Add the residual of the block to its shortcut."""
        features = self.width * self.expansion
        x = self.convolution(inputs, self.width, kernel=1, stride=1, name="conv1")
        x = nn.relu(self.batch_norm(x, train=train, name="bn1"))
        x = self.convolution(x, self.width, kernel=3, stride=self.stride, name="conv2")
        x = nn.relu(self.batch_norm(x, train=train, name="bn2"))
        kernel = Kernel(features, HE_FAN_OUT, self.dtype, name="conv3")(self.width)
        x = NormalizedProduct(self.dtype, self.axis_name, name="bn3")(x, kernel, train=train)
        return nn.relu(x + self.shortcut(inputs, features, train=train))


class ResNet(ConvolutionalModule):
    """A stem, then stages of blocks: every stage doubles the width and, from the second on, halves the image.

    `stem` is "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, then 3x3 max-pooling, stride 2). With `blur_pool` every
    subsampling but the first of an image is preceded by a blur.
    """

    block: type[ResidualBlock] = BasicBlock
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64
    stem: str = "cifar"

    @property
    def feature_dim(self) -> int:
        """Length of one image's feature vector."""
        return self.width * 2 ** (len(self.stage_sizes) - 1) * self.block.expansion

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch feature"]:
        """Return float32 features, the mean over the last stage's positions (>= 0), of normalized images."""
        x = self._stem(images, train=train)
        for stage, size in enumerate(self.stage_sizes):
            for position in range(size):
                block = self.block(
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and position == 0 else 1,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    blur_pool=self.blur_pool,
                    name=f"stage{stage + 1}_block{position + 1}",
                )
                x = block(x, train=train)
        return x.astype(jnp.float32).mean(axis=(1, 2))

    def _stem(
        self, images: Float[Array, "batch height width channel"], *, train: bool
    ) -> Float[Array, "batch new_height new_width new_channel"]:
        if self.stem == "imagenet":
            x = self.convolution(images, self.width, kernel=7, stride=2, name="stem_conv", is_of_image=True)
            if self.blur_pool:  # Zhang's MaxBlurPool
                return blur(
                    NormalizedMaxima(self.dtype, self.axis_name, stride=1, name="stem_bn")(x, train=train), stride=2
                )
            return NormalizedMaxima(self.dtype, self.axis_name, name="stem_bn")(x, train=train)
        x = self.convolution(images, self.width, kernel=3, stride=1, name="stem_conv")
        return nn.relu(self.batch_norm(x, train=train, name="stem_bn"))
