"""Export of a run: its weights as a .safetensors file, or its features as a portable function (StableHLO)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.store.saved_runs import COLLECTIONS, run_backbone
from gensupcon_jax.views.augment import normalize
from gensupcon_jax.weights.description import describe
from gensupcon_jax.weights.files import SAFETENSORS, refuse_existing, write_new, write_safetensors
from gensupcon_jax.weights.names import PARTS, family_of
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import NETWORK, named_tensors

STABLEHLO = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def export(workdir: Path, output: Path, *, head: bool = False) -> str:
    """Write a run's weights (.safetensors) or features function (.stablehlo); returns a line to print."""
    if output.suffix not in (SAFETENSORS, STABLEHLO):
        raise UserError(f"--output is {output}; allowed: a name that ends in {SAFETENSORS} or {STABLEHLO}")
    refuse_existing(output)
    run = load_run(workdir)
    if output.suffix == SAFETENSORS:
        named = named_tensors(run.variables, parts=PARTS if head else NETWORK)
        # "pt" is the layout of the tensors, which safetensors' readers for PyTorch expect.
        write_safetensors(output, named, {"format": "pt"} | describe(run).as_metadata())
        return f"{output}: {len(named)} tensors in {family_of(run.variables).naming} names, from step {run.step} of {workdir}"
    description = run.description
    export_features(
        output,
        run_backbone(run),
        run.variables,
        image_shape=tuple(description["image_shape"]),
        mean=np.array(description["mean"], np.float32),
        std=np.array(description["std"], np.float32),
    )
    return f"{output}: images to features for {', '.join(PLATFORMS)}, from step {run.step} of {workdir}"


def export_features(
    path: str | Path,
    backbone: nn.Module,
    variables: Mapping[str, Any],
    *,
    image_shape: tuple[int, int, int],
    mean: Float[np.ndarray, "channel"],
    std: Float[np.ndarray, "channel"],
) -> None:
    """Write images -> features as a new `jax.export` artifact, StableHLO with the weights inside, for cpu, cuda and tpu.

    uint8 images [batch, *image_shape] of any batch size -> normalized with mean and std -> float32 [batch, feature].
    Read it with `jax.export.deserialize(bytearray(Path(path).read_bytes())).call`. UserError if the file exists.
    """
    refuse_existing(as_path(path))
    network = {name: variables[name]["backbone"] for name in COLLECTIONS if "backbone" in variables.get(name, {})}

    def features(images: UInt8[jax.Array, "batch height width channel"]) -> Any:
        return backbone.apply(network, normalize(images, mean, std), train=False)

    shape = jax.export.symbolic_shape("batch, " + ", ".join(str(size) for size in image_shape))
    exported = jax.export.export(jax.jit(features), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.uint8))
    write_new(as_path(path), bytes(exported.serialize()))
