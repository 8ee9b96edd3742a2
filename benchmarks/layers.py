"""Every layer of every network, timed on this machine against what its products and its memory traffic must cost.

python -m benchmarks.layers                                         all networks at 8 to 224 pixels
python -m benchmarks.layers --networks resnet18 --sizes 64 --all    every layer, not only the slow ones
XLA_FLAGS= python -m benchmarks.layers                              without the flags that main sets on a CPU
Layers that are equal in several networks or at several sizes are timed once, and named where they were first found.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gensupcon_jax.cluster import cpu_flags
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import ENCODERS
from gensupcon_jax.models.encoders import build_backbone
from gensupcon_jax.models.gram import NormalizedProduct
from gensupcon_jax.models.stem import NormalizedMaxima
from gensupcon_jax.models.vit import Attention

SIZES = (8, 16, 28, 32, 64, 96, 224)  # pixels
LAYERS = (nn.Conv, nn.Dense, nn.BatchNorm, nn.LayerNorm, NormalizedMaxima, NormalizedProduct, Attention)
_COLORS = 3  # channels of an image, for which there are no gradients
_LEAST_SECONDS = 1e-3  # that a batch must take, so that the call itself does not count
_MOST_SECONDS = 2e-2
_MOST_IMAGES = 256
_FEWEST_IMAGES = {True: 32, False: 8}  # of a batch, for maps of at most _SMALL_MAP positions and for others
_SMALL_MAP = 32 * 32
_MEASURED_SECONDS = 0.02


class Layer(NamedTuple):
    """A layer with the shapes of its arguments, which begin with one image; where: the network and size of the first like it."""

    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    settings: dict[str, Any]
    where: str

    @property
    def name(self) -> str:
        """What tells it from others: its kind, its own numbers, the shapes of its inputs."""
        module: Any = self.module
        numbers = [getattr(module, field, None) for field in ("kernel_size", "strides", "features", "num_heads")]
        own = ["x".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in numbers if each]
        inputs = " ".join("x".join(map(str, shape)) for shape in (self.shapes[0][1:], *self.shapes[1:]))
        return " ".join([type(module).__name__, *own, "of", inputs])

    def arguments(self, num_images: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """The arguments of a batch."""
        shapes = ((num_images, *self.shapes[0][1:]), *self.shapes[1:])
        return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


class Rates(NamedTuple):
    """What the machine reaches: FLOP/s of a large matrix product, bytes/s of a large sum of two arrays."""

    flops: float
    bandwidth: float


class Timing(NamedTuple):
    """seconds per image.  share: of the machine's rate, of products or of memory, whichever binds.  flops: per second."""

    seconds: float
    share: float
    flops: float


def layers_of(name: str, size: int) -> list[Layer]:
    """The layers of a network on images of this size, in order; none where the network does not take that size."""
    try:
        network = build_backbone(name=name, image_size=size, batch_norm="local")
    except UserError:  # patches that do not divide the image
        return []
    found: list[Layer] = []
    outermost = [True]

    def record(next_fn: Callable, args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
        is_layer = context.method_name == "__call__" and isinstance(context.module, LAYERS) and outermost[0]
        if not is_layer:
            return next_fn(*args, **kwargs)
        shapes = tuple(each.shape for each in args)
        found.append(Layer(context.module.clone(parent=None, name=None), shapes, kwargs, f"{name}, {size} px"))
        outermost[0] = False
        try:
            return next_fn(*args, **kwargs)
        finally:
            outermost[0] = True

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda images: network.init(jax.random.key(0), images, train=True), images)
    return found


def distinct(names: Sequence[str], sizes: Sequence[int]) -> list[Layer]:
    """The layers of these networks at these sizes, each once."""
    found: dict[str, Layer] = {}
    for name in names:
        for size in sizes:
            for layer in layers_of(name, size):
                found.setdefault(layer.name, layer)
    return list(found.values())


def work(layer: Layer, num_images: int) -> tuple[int, int]:
    """FLOPs of the products and bytes of inputs, output and parameters, of a batch; padding counts as an input does."""
    arguments = layer.arguments(num_images)
    variables, output = _abstract(layer, arguments)
    touched = [*arguments, output, *jax.tree.leaves(variables)]
    num_bytes = sum(each.size * each.dtype.itemsize for each in touched)
    kind, inputs = type(layer.module), arguments[0].shape
    if kind in (nn.Conv, nn.Dense):
        kernel = variables["params"]["kernel"]
        return 2 * output.size // kernel.shape[-1] * kernel.size, num_bytes
    if kind is NormalizedProduct:  # with the covariance of the inputs, and the statistics of the product from it
        channels, features = arguments[1].shape
        return 2 * math.prod(inputs) * (features + channels) + 2 * channels**2 * features, num_bytes
    if kind is Attention:
        _, tokens, dim = inputs
        return num_images * (2 * tokens * 4 * dim * dim + 4 * tokens * tokens * dim), num_bytes
    return 0, num_bytes


def _abstract(layer: Layer, arguments: Sequence[Any]) -> tuple[Any, Any]:
    def init(*arguments: Any) -> Any:
        return layer.module.init_with_output(jax.random.key(0), *arguments, **layer.settings)

    output, variables = jax.eval_shape(init, *arguments)
    return variables, output


def timed(layer: Layer, rates: Rates) -> tuple[int, Timing, Timing]:
    """The images of the batch, and the timings of the layer alone and with its gradients."""
    num_images = _num_images(layer, rates)
    bound, (flops, _) = _bound(layer, num_images, rates), work(layer, num_images)
    arguments = layer.arguments(num_images)
    variables, output = _abstract(layer, arguments)
    rng = np.random.default_rng(0)
    arrays = jax.tree.map(
        lambda each: jnp.asarray(rng.standard_normal(each.shape, np.float32)), (variables, arguments, output)
    )

    def apply(variables: Any, arguments: Any) -> Any:
        return layer.module.apply(variables, *arguments, mutable=["batch_stats"], **layer.settings)

    sees_images = layer.shapes[0][-1] == _COLORS

    def gradients(variables: Any, arguments: Any, cotangent: Any) -> Any:
        if sees_images:
            _, back_fn, statistics = jax.vjp(lambda variables: apply(variables, arguments), variables, has_aux=True)
        else:
            _, back_fn, statistics = jax.vjp(apply, variables, arguments, has_aux=True)
        return back_fn(cotangent), statistics

    def timing(seconds: float, times: int) -> Timing:
        return Timing(seconds / num_images, times * bound / seconds, times * flops / seconds)

    forward = timing(_seconds(apply, *arrays[:2]), 1)
    return num_images, forward, timing(_seconds(gradients, *arrays), 2 if sees_images else 3)


def _num_images(layer: Layer, rates: Rates) -> int:
    """Images of a batch that takes long enough, and not much longer."""
    num_images = _FEWEST_IMAGES[math.prod(layer.shapes[0][1:-1]) <= _SMALL_MAP]
    while num_images < _MOST_IMAGES and _bound(layer, num_images, rates) < _LEAST_SECONDS:
        num_images *= 2
    while num_images > 1 and _bound(layer, num_images, rates) > _MOST_SECONDS:
        num_images //= 2
    return num_images


def _bound(layer: Layer, num_images: int, rates: Rates) -> float:
    """Seconds that a batch must take at these rates."""
    flops, num_bytes = work(layer, num_images)
    return max(flops / rates.flops, num_bytes / rates.bandwidth)


def _seconds(function: Callable, *arguments: Any) -> float:
    """The best of several calls, after the one that compiles."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < _MEASURED_SECONDS and len(seconds) < 20):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def rates() -> Rates:
    """Those of this machine now."""
    side, length = 2048, 2**24
    square, line = jnp.ones((side, side)), jnp.ones(length)
    of_products = _seconds(jnp.matmul, square, square)
    of_memory = _seconds(lambda left, right: left + right, line, line)
    return Rates(2 * side**3 / of_products, 3 * 4 * length / of_memory)


def rows(layers: Sequence[Layer], machine: Rates, *, least_share: float) -> Iterator[str]:
    """A row of a Markdown table for each layer of which a timing is below this share of the machine's rate."""
    for layer in layers:
        num_images, *timings = timed(layer, machine)
        if min(each.share for each in timings) < least_share:
            cells = [
                f"{1e6 * each.seconds:.1f} | {each.flops / 1e9:.0f} | {100 * each.share:.0f} %" for each in timings
            ]
            yield f"| {layer.name} | {layer.where} | {num_images} | {' | '.join(cells)} |"


def main() -> None:
    """Print the slow layers as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=ENCODERS, default=list(ENCODERS), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="PIXELS")
    parser.add_argument(
        "--share", type=float, default=0.1, help="layers below this share of the machine's rate are printed"
    )
    parser.add_argument("--all", action="store_true", help="print every layer")
    options = parser.parse_args()
    cpu_flags.set_for_this_machine(os.environ)  # as main does
    started, machine = time.perf_counter(), rates()
    layers = distinct(options.networks, options.sizes)
    print(
        f"{len(layers)} layers; {jax.devices()[0].device_kind}: {machine.flops / 1e9:.0f} GFLOP/s in products, "
        f"{machine.bandwidth / 1e9:.1f} GB/s of memory; share: of the rate that binds\n"
    )
    head = ["microseconds per image", "GFLOP/s", "share"]
    titles = ["layer", "first found in", "batch", *head, *(f"{title}, with gradients" for title in head)]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row in rows(layers, machine, least_share=math.inf if options.all else options.share):
        print(row, flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
