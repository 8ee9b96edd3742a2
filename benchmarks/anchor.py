"""FLOPs and bytes of our supervised step against those of flax's ImageNet example, both compiled here for the same TPU slice.

python -m benchmarks.anchor --topology v5e:4x4
python -m benchmarks.anchor --topology v5p:2x2x2 --images 256
python -m benchmarks.anchor --topology v4:2x2x4                  one device per chip, as on the machine
python -m benchmarks.anchor --topology v4:2x2x4 --cores          one device per core: libtpu's default
Compiled by libtpu (`pip install "gensupcon_jax[plan]"`), twice some minutes.
"""

import argparse
import functools
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # the chips are described, not opened

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import imagenet
from gensupcon_jax.errors import UserError
from gensupcon_jax.plan import chips
from gensupcon_jax.plan.known import data_sizes
from gensupcon_jax.plan.step import plan_step, with_sharding

_STAGES = (3, 4, 6, 3)


class AnchorBlock(nn.Module):
    """The bottleneck of flax's examples/imagenet: 1x1, 3x3, 1x1."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, inputs):
        """Add the residual to its shortcut."""
        conv = functools.partial(nn.Conv, use_bias=False, dtype=jnp.bfloat16)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16
        )
        x = nn.relu(norm()(conv(self.filters, (1, 1))(inputs)))
        x = nn.relu(norm()(conv(self.filters, (3, 3), (self.stride, self.stride))(x)))
        x = norm(scale_init=nn.initializers.zeros_init())(conv(4 * self.filters, (1, 1))(x))
        if inputs.shape != x.shape:
            inputs = norm()(conv(4 * self.filters, (1, 1), (self.stride, self.stride))(inputs))
        return nn.relu(inputs + x)


class AnchorNetwork(nn.Module):
    """ResNet-50 as in flax's examples/imagenet, while training."""

    @nn.compact
    def __call__(self, images):
        """Return bfloat16 logits."""
        x = nn.Conv(64, (7, 7), (2, 2), padding=3, use_bias=False, dtype=jnp.bfloat16)(images)
        x = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16)(x)
        x = nn.max_pool(nn.relu(x), (3, 3), strides=(2, 2), padding="SAME")
        for stage, size in enumerate(_STAGES):
            for position in range(size):
                x = AnchorBlock(64 * 2**stage, 2 if stage > 0 and position == 0 else 1)(x)
        return nn.Dense(1000, dtype=jnp.bfloat16)(x.mean(axis=(1, 2)))


def anchor_step(variables, images, labels):
    """Cross-entropy with weight decay, plain SGD and the metrics of flax's examples/imagenet; finished bfloat16 images."""

    def loss_fn(params):
        logits, updates = AnchorNetwork().apply(variables | {"params": params}, images, mutable=["batch_stats"])
        cross_entropy = optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, 1000)).mean()
        decay = sum(jnp.sum(kernel**2) for kernel in jax.tree.leaves(params) if kernel.ndim > 1)
        return cross_entropy + 0.5e-4 * decay, (logits, updates)

    (loss, (logits, updates)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
    params = jax.tree.map(lambda param, gradient: param - 0.1 * gradient, variables["params"], gradients)
    return {"params": params, **updates}, loss, (logits.argmax(-1) == labels).mean()


def compile_anchor(mesh: Mesh, num_images: int) -> jax.stages.Compiled:
    """flax's step for this many images per device; jit alone spreads it, so BatchNorm sees the whole batch."""
    everywhere, spread = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    batch = num_images * mesh.size
    images = jax.ShapeDtypeStruct((batch, 224, 224, 3), jnp.bfloat16, sharding=spread)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=spread)
    shapes = jax.eval_shape(lambda key: AnchorNetwork().init(key, jnp.zeros((1, 224, 224, 3))), jax.random.key(0))
    variables = with_sharding(shapes, everywhere)
    return jax.jit(anchor_step, donate_argnums=0, out_shardings=everywhere).lower(variables, images, labels).compile()


def compile_ours(mesh: Mesh, num_images: int) -> jax.stages.Compiled:
    """The step of configs/imagenet.py:cross_entropy on uint8 images that are only normalized."""
    config = imagenet.get_config("cross_entropy")
    config.batch_size = num_images * mesh.size
    config.augment.policy = "none"
    return plan_step(config, data_sizes("tfds:imagenet2012"), mesh).lower().compile()


def main() -> None:
    """Print both, per image on one device, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--images", type=int, default=128, help="images per device")
    parser.add_argument("--cores", action="store_true", help="v4 only: a device is a core")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # jax cannot read back what it compiled for other devices
    found = chips.find_slice(arguments.topology, chip_config="default" if arguments.cores else None)
    mesh = sharding.make_mesh(found.devices)
    figures = {}
    for name, compile_fn in (("anchor", compile_anchor), ("ours", compile_ours)):
        cost = compile_fn(mesh, arguments.images).cost_analysis()
        figures[name] = cost["bytes accessed"] / arguments.images / 1e6, cost["flops"] / arguments.images / 1e9
        print(f"{name:6}  {figures[name][0]:6.1f} MB  {figures[name][1]:5.2f} GFLOP per image", flush=True)
    bytes_ratio, flops_ratio = (ours / anchor for ours, anchor in zip(figures["ours"], figures["anchor"], strict=True))
    print(
        f"{arguments.topology}, {mesh.size} devices with {arguments.images} images: "
        f"{bytes_ratio:.3f} of the anchor's bytes, {flops_ratio:.3f} of its FLOPs"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
