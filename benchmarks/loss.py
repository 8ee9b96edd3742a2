"""Time and memory of the loss: factored against dense, how near it comes to the machine's matmul speed, and what options cost.

python -m benchmarks.loss                         the figures of the README
python -m benchmarks.loss --anchors 1024 --large-anchors 4096 --repeats 3
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gensupcon_jax.losses import (
    DEFAULT_TILE_SIZE,
    ClassCenters,
    dense_contrastive_loss,
    generalized_contrastive_loss,
    label_similarity,
    latent_similarity,
)

TEMPERATURE = 0.1
MEBIBYTE = 2**20
MULTI_HOT_LABELS = 80


class Candidate(NamedTuple):
    """A compiled function with its arguments and the seconds of its runs."""

    compiled: Callable
    arguments: tuple
    seconds: list[float]

    @property
    def temporary_mebibytes(self) -> float:
        """What XLA allocates beside arguments and results."""
        return self.compiled.memory_analysis().temp_size_in_bytes / MEBIBYTE


def factored_loss(embeddings, labels, *, tile_size: int):
    """What training runs."""
    return generalized_contrastive_loss(embeddings, labels, temperature=TEMPERATURE, tile_size=tile_size).mean()


def weighted_loss(embeddings, labels, weights, *, tile_size: int):
    """With a weight for each contrast."""
    settings = {"temperature": TEMPERATURE, "tile_size": tile_size, "contrast_weights": weights}
    return generalized_contrastive_loss(embeddings, labels, **settings).mean()


def prototype_loss(embeddings, labels, prototypes, *, tile_size: int):
    """With a center of each class among the contrasts; gradients of the embeddings and of the centers."""
    centers = ClassCenters(latent_similarity(embeddings, prototypes, temperature=TEMPERATURE), labels)
    settings = {"temperature": TEMPERATURE, "tile_size": tile_size, "centers": centers}
    return generalized_contrastive_loss(embeddings, labels, **settings).mean()


def dense_loss(embeddings, labels):
    """The definition, differentiated by jax."""
    others = ~jnp.eye(embeddings.shape[0], dtype=bool)
    logits = latent_similarity(embeddings, embeddings, temperature=TEMPERATURE)
    return dense_contrastive_loss(label_similarity(labels, labels), logits, contrast_weights=others).mean()


def matmul(left, right):
    """The yardstick: one float32 product."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def random_batch(num_anchors: int, num_classes: int, dim: int):
    """Unit embeddings and soft labels, as a teacher gives them."""
    embedding_key, label_key = jax.random.split(jax.random.key(0))
    embeddings = jax.random.normal(embedding_key, (num_anchors, dim))
    labels = jax.nn.softmax(3.0 * jax.random.normal(label_key, (num_anchors, num_classes)), axis=1)
    return embeddings / jnp.linalg.norm(embeddings, axis=1, keepdims=True), labels


def multi_hot_batch(num_anchors: int, num_labels: int, dim: int):
    """Unit embeddings and about 3 of the labels on each image, as COCO has of its 80."""
    embeddings, _ = random_batch(num_anchors, 2, dim)
    return embeddings, jax.random.bernoulli(jax.random.key(1), 3 / num_labels, (num_anchors, num_labels)) * 1.0


def compile_candidate(function: Callable, *arguments) -> Candidate:
    """Compiles without running."""
    return Candidate(jax.jit(function).lower(*arguments).compile(), arguments, [])


def run_interleaved(candidates: list[Candidate], repeats: int):
    """One run of each in turn, so that other load on the machine meets all of them; the first round is not counted."""
    for repeat in range(repeats + 1):
        for candidate in candidates:
            start = time.perf_counter()
            jax.block_until_ready(candidate.compiled(*candidate.arguments))
            if repeat:
                candidate.seconds.append(time.perf_counter() - start)


def needed_flops(num_anchors: int, num_classes: int, dim: int) -> float:
    """Multiplications and additions of the factored form's matmuls; exponentials are not counted.

    Logits once for the value and once more for the gradient, the gradient itself: 3 x 2 N N D. Class sums and their use,
    for the value and for the gradient: 4 x 2 N C D.
    """
    return 6.0 * num_anchors**2 * dim + 8.0 * num_anchors * num_classes * dim


def compare(arguments: argparse.Namespace):
    """Prints factored against dense, and the share of matmul speed."""
    sizes = (arguments.anchors, arguments.classes, arguments.dim)
    batch = random_batch(*sizes)
    square = jnp.ones((arguments.matmul, arguments.matmul))
    factored_function = functools.partial(factored_loss, tile_size=arguments.tile_size)
    factored = compile_candidate(jax.value_and_grad(factored_function), *batch)
    dense = compile_candidate(jax.value_and_grad(dense_loss), *batch)
    yardstick = compile_candidate(matmul, square, square)
    run_interleaved([factored, dense, yardstick], arguments.repeats)

    print("value and gradient, {:,} anchors x {:,} classes x {} dimensions".format(*sizes))
    print_row("", "factored", "dense", "dense / factored")
    for name, pick in (("seconds, best", min), ("seconds, median", statistics.median)):
        fast, slow = pick(factored.seconds), pick(dense.seconds)
        print_row(name, f"{fast:.3f}", f"{slow:.3f}", f"{slow / fast:.1f}")
    small, big = factored.temporary_mebibytes, dense.temporary_mebibytes
    print_row("temporary MiB", f"{small:.0f}", f"{big:.0f}", f"{big / small:.1f}")

    speed = needed_flops(*sizes) / min(factored.seconds)
    matmul_speed = 2.0 * arguments.matmul**3 / min(yardstick.seconds)
    print(
        f"\nspeed: {speed / 1e9:.0f} GFLOP/s, {100 * speed / matmul_speed:.0f} % of this machine's float32 matmul "
        f"({matmul_speed / 1e9:.0f} GFLOP/s at {arguments.matmul} x {arguments.matmul}, best of the same runs).\n"
        f"counted: {needed_flops(*sizes) / 1e9:.0f} GFLOP = 6 N N D (logits twice, gradient) + 8 N C D (labels); no exponentials."
    )


def compare_options(arguments: argparse.Namespace):
    """Prints what weights of contrasts and prototypes cost, as ratios of the time without them."""
    sizes = (arguments.anchors, arguments.classes, arguments.dim)
    embeddings, labels = random_batch(*sizes)
    weights = jnp.linspace(0.5, 2.0, arguments.anchors)
    prototypes = random_batch(arguments.classes, 2, arguments.dim)[0]
    of_embeddings = functools.partial(factored_loss, tile_size=arguments.tile_size)
    weighted = functools.partial(weighted_loss, tile_size=arguments.tile_size)
    with_prototypes = functools.partial(prototype_loss, tile_size=arguments.tile_size)
    plain = compile_candidate(jax.value_and_grad(of_embeddings), embeddings, labels)
    options = {
        "weights": compile_candidate(jax.value_and_grad(weighted), embeddings, labels, weights),
        "prototypes": compile_candidate(
            jax.value_and_grad(with_prototypes, argnums=(0, 2)), embeddings, labels, prototypes
        ),
    }
    run_interleaved([plain, *options.values()], arguments.repeats)
    print(
        "\nvalue and gradient, {:,} anchors x {:,} classes x {} dimensions, against the factored form without".format(
            *sizes
        )
    )
    for name, option in options.items():
        ratios = [pick(option.seconds) / pick(plain.seconds) for pick in (min, statistics.median)]
        print_row(name, f"{ratios[0]:.3f} (best)", f"{ratios[1]:.3f} (median)")


def compare_similarities(arguments: argparse.Namespace):
    """Prints what the similarity of two rows at a time costs on multi-hot labels, as a ratio to the factored cosine."""
    sizes = (arguments.anchors, MULTI_HOT_LABELS, arguments.dim)
    batch = multi_hot_batch(*sizes)
    names = ("cosine", "jaccard")
    candidates = [compile_candidate(value_and_grad_of(name, arguments.tile_size), *batch) for name in names]
    run_interleaved(candidates, arguments.repeats)
    large = (arguments.large_anchors, *sizes[1:])
    abstract = jax.eval_shape(functools.partial(multi_hot_batch, *large))
    memory = compile_candidate(value_and_grad_of("jaccard", arguments.tile_size), *abstract).temporary_mebibytes
    cosine, jaccard = (candidate.seconds for candidate in candidates)
    ratios = [pick(jaccard) / pick(cosine) for pick in (min, statistics.median)]
    print(
        "\nlabel_similarity jaccard against cosine, {:,} anchors x {} multi-hot labels x {} dimensions".format(*sizes)
    )
    print_row("jaccard", f"{ratios[0]:.2f} (best)", f"{ratios[1]:.2f} (median)")
    print(f"{large[0]:,} anchors: {memory:.0f} MiB temporary memory")


def value_and_grad_of(similarity: str, tile_size: int) -> Callable:
    """The loss with this similarity of labels, and its gradient."""
    settings = {"temperature": TEMPERATURE, "tile_size": tile_size, "label_similarity": similarity}
    return jax.value_and_grad(
        lambda embeddings, labels: generalized_contrastive_loss(embeddings, labels, **settings).mean()
    )


def measure_large(arguments: argparse.Namespace):
    """Prints the temporary memory at a size where the dense form cannot go, and the time where asked for."""
    sizes = (arguments.large_anchors, arguments.classes, arguments.dim)
    function = jax.value_and_grad(functools.partial(factored_loss, tile_size=arguments.tile_size))
    if arguments.time_large:
        large = compile_candidate(function, *random_batch(*sizes))
        run_interleaved([large], 1)
        seconds = f", {min(large.seconds):.1f} s"
    else:
        large = compile_candidate(function, *jax.eval_shape(functools.partial(random_batch, *sizes)))
        seconds = ""
    print(
        f"\n{sizes[0]:,} anchors x {sizes[1]:,} classes: {large.temporary_mebibytes:.0f} MiB temporary memory{seconds}"
    )


def print_row(*cells: str):
    """A line of the table."""
    print(f"{cells[0]:<18}" + "".join(f"{cell:>18}" for cell in cells[1:]))


def main():
    """Reads the sizes and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=8192)
    parser.add_argument("--large-anchors", type=int, default=65536)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--tile-size", type=int, default=DEFAULT_TILE_SIZE, help="rows of logits held at once")
    parser.add_argument("--matmul", type=int, default=4096, help="side of the matrices of the yardstick")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--time-large", action="store_true", help="also run the large size (about 30 s on 2 cores)")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    print(f"machine: {os.cpu_count()} CPUs, {device.platform} ({device.device_kind}), jax {jax.__version__}")
    print(f"tile: {arguments.tile_size} rows\n")
    compare(arguments)
    compare_options(arguments)
    compare_similarities(arguments)
    measure_large(arguments)


if __name__ == "__main__":
    main()
