"""What the augmentation and mixing of ImageNet cost on one TPU chip that is not here: FLOPs, bytes, the compiler's cycles.

python -m benchmarks.views                                          the recipe genscl: two views, blur, Mixup or CutMix
python -m benchmarks.views --variant cross_entropy --images 256
Compiled by libtpu (`pip install "gensupcon_jax[plan]"`) in a minute: the network is left out.
"""

import argparse
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"  # the chip is described, not opened

import jax
import jax.numpy as jnp

from gensupcon_jax.cluster import sharding
from gensupcon_jax.configs import imagenet
from gensupcon_jax.errors import UserError
from gensupcon_jax.plan import hlo
from gensupcon_jax.plan.chips import find_slice
from gensupcon_jax.plan.known import data_sizes
from gensupcon_jax.plan.step import with_sharding
from gensupcon_jax.run import assemble


def compile_views(variant: str, num_images: int, topology: str) -> jax.stages.Compiled:
    """Batch -> what the network reads: the views in bfloat16, and their labels."""
    config = imagenet.get_config(variant)
    config.batch_size = num_images
    sizes = data_sizes("tfds:imagenet2012")
    data = sizes.shape("imagenet2012")
    mesh = sharding.make_mesh(find_slice(topology).devices)
    parts = assemble.build_parts(config, data, assemble.lengths(config, sizes.num_images // num_images), mesh)
    batch, key = assemble.abstract_batch(config, data), jax.eval_shape(lambda: jax.random.key(0))

    def views_of(key, batch):
        def read(images):
            return images.reshape(-1, *images.shape[2:]).astype(jnp.bfloat16)

        mixed = parts.view_fn(key, batch.images, batch.labels, 0, batch.local_images)
        views = read(mixed.images), mixed.labels
        return views if mixed.local is None else (*views, read(mixed.local.images), mixed.local.labels)

    here = sharding.replicated(mesh)
    return jax.jit(views_of).lower(*with_sharding((key, batch), here)).compile()


def main() -> None:
    """Print the figures per image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="genscl")
    parser.add_argument("--images", type=int, default=128, help="images per chip")
    parser.add_argument("--topology", default="v5e:1x1")
    arguments = parser.parse_args()
    compiled = compile_views(arguments.variant, arguments.images, arguments.topology)
    works = list(hlo.works(hlo.parse_program(compiled.as_text())))
    cost = compiled.cost_analysis()
    print(
        f"{arguments.variant}, {arguments.topology}, {arguments.images} images, per image: "
        f"{cost['flops'] / arguments.images / 1e9:.3f} GFLOP, "
        f"{cost['bytes accessed'] / arguments.images / 1e6:.1f} MB of all memories (XLA's cost analysis), "
        f"{sum(work.hbm_bytes for work in works) / arguments.images / 1e6:.1f} MB of HBM alone, "
        f"{sum(work.cycles for work in works) / arguments.images / 1e3:.1f} thousand cycles by the compiler's estimate"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
