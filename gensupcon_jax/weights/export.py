"""Export of a run's encoder: weights (.safetensors, or a folder for timm), or a function from images to features."""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from gensupcon_jax.data.shapes import device_center_share
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.store.saved_runs import COLLECTIONS, SavedRun, run_backbone
from gensupcon_jax.text import listed, reason
from gensupcon_jax.views.augment import normalize, resize
from gensupcon_jax.weights import hub
from gensupcon_jax.weights.artifact import ONNX, STABLEHLO, json_path, write_artifact, write_stablehlo
from gensupcon_jax.weights.description import Description, describe
from gensupcon_jax.weights.files import SAFETENSORS, refuse_existing, set_aside, write_safetensors
from gensupcon_jax.weights.names import PARTS, family_of
from gensupcon_jax.weights.runs import load_run
from gensupcon_jax.weights.variables import NETWORK, named_tensors

PLATFORMS = ("cpu", "cuda", "tpu")
HUB = "hub"
_LICENSE = "unknown"


class Options(NamedTuple):
    """What is exported.  format: one of FORMATS, None: by the ending of the output.  step: as in `load_run`.

    head: the projection head too (safetensors).  license: of the model card (hub).  overwrite: an output that exists is
    replaced once the new one is complete.
    """

    format: str | None = None
    step: int | str = "last"
    head: bool = False
    license: str = _LICENSE
    overwrite: bool = False


def export(workdir: Path, output: Path, options: Options | None = None) -> str:
    """Write a run's encoder in one of the formats; returns a line to print.

    Raises UserError for a name that does not fit the format, an output that exists, a run or step that is not there, or a
    network that the format cannot hold.
    """
    options = options or Options()
    format = _format(output, options.format)
    _refuse_unused(format, options)
    outputs = (output, json_path(output)) if format in ("stablehlo", "onnx") else (output,)
    if options.overwrite:
        _refuse_foreign_folder(output)
    else:
        for path in outputs:
            refuse_existing(path)
    if format == "onnx" and importlib.util.find_spec("onnx") is None:
        raise UserError('--format onnx needs the package onnx: pip install "gensupcon_jax[onnx]"')
    run = load_run(workdir, step=options.step)
    with set_aside(outputs):
        written = _WRITERS[format](run, output, options)
    return f"{output}: {written}, from step {run.step} of {workdir}"


def _refuse_unused(format: str, options: Options) -> None:
    """UserError for an option that this format has no use for."""
    unused = {
        "--head": options.head and format != "safetensors",
        "--license": options.license != _LICENSE and format != HUB,
    }
    for flag, wrong in unused.items():
        if wrong:
            allowed = {"--head": "safetensors", "--license": HUB}[flag]
            raise UserError(f"{flag} is given, and the format is {format}; allowed with {flag}: --format {allowed}")


def _refuse_foreign_folder(output: Path) -> None:
    """UserError for a folder with files that no export wrote."""
    foreign = [path.name for path in output.iterdir() if path.name not in hub.FILES] if output.is_dir() else []
    if foreign:
        raise UserError(
            f"{output} is a folder with {listed(sorted(foreign))}, which is kept even with --overwrite; choose another --output"
        )


def _format(output: Path, format: str | None) -> str:
    """The format, checked against the ending of the output."""
    ending = _ENDINGS.get(output.suffix)
    endings = ", ".join(_ENDINGS)
    if format is None and ending is None:
        raise UserError(f"--output is {output}; allowed: a name that ends in {endings}, or --format {HUB} for a folder")
    if format not in (None, ending, HUB) or (format == HUB and ending):
        wanted = "no such ending, as it is a folder" if format == HUB else f"the ending .{format}"
        raise UserError(f"--output is {output} and --format is {format}; allowed: a name with {wanted}")
    return format or str(ending)


def _safetensors(run: SavedRun, output: Path, options: Options) -> str:
    named = named_tensors(run.variables, parts=PARTS if options.head else NETWORK)
    # "pt" is the layout of the tensors, which safetensors' readers for PyTorch expect.
    write_safetensors(output, named, {"format": "pt"} | describe(run).as_metadata())
    return f"{len(named)} tensors in {family_of(run.variables).naming} names"


def _stablehlo(run: SavedRun, output: Path, options: Options) -> str:
    description = _of_function(run)
    function, images = _traceable(features_fn(run, run_backbone(run)), description)
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(images)
    write_stablehlo(output, exported, description)
    return f"images to features for {', '.join(PLATFORMS)}"


def _onnx(run: SavedRun, output: Path, options: Options) -> str:
    # Imported here: the package onnx is an extra.
    from gensupcon_jax.weights.onnx_model import IR_VERSION, OPSET, library_version, onnx_model

    description, backbone = _of_function(run), run_backbone(run)
    if getattr(backbone, "dtype", jnp.float32) != jnp.float32:
        backbone = backbone.clone(dtype=jnp.float32)  # runtimes have few operators for bfloat16
    function, images = _traceable(features_fn(run, backbone), description)
    content = onnx_model(function, images, description.as_metadata())
    write_artifact(output, content, description, {"onnx": library_version(), "opset": OPSET, "ir_version": IR_VERSION})
    return f"images to features for onnxruntime and others (opset {OPSET})"


def _traceable(function: Callable, description: Description) -> tuple[Callable, jax.ShapeDtypeStruct]:
    """The function, and uint8 images of any number as its input; UserError if it takes only a known number."""
    shape = jax.export.symbolic_shape("batch, " + ", ".join(str(size) for size in description.image_shape))
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    try:
        jax.eval_shape(function, images)
    except Exception as error:  # TypeError and others, by what the network does with the number
        raise UserError(
            f"{description.architecture} cannot be traced for any number of images ({reason(error)}); write images.shape[0] in "
            "place of len(images), and let no shape depend on it in another way"
        ) from error
    return function, images


def _hub(run: SavedRun, output: Path, options: Options) -> str:
    return hub.write_folder(run, output, license=options.license)


def features_fn(run: SavedRun, backbone: nn.Module) -> Callable[[UInt8[Any, "batch height width channel"]], Any]:
    """The function of uint8 images, of the size that is stored in memory or cut out of files -> float32 features."""
    size, share = run.description["image_shape"][0], device_center_share(run.description)
    mean, std = (_channels(run.description[name]) for name in ("mean", "std"))
    network = {name: run.variables[name]["backbone"] for name in COLLECTIONS if "backbone" in run.variables[name]}

    def features(images):
        return backbone.apply(network, normalize(resize(images, size, share), mean, std), train=False)

    return features


def _channels(values: list[float]) -> Float[np.ndarray, "channel"]:
    return np.array(values, np.float32)


def _of_function(run: SavedRun) -> Description:
    """The description of the function: images in memory are cropped inside, and resized to the size of the network's."""
    height, _, channels = run.description["image_shape"]
    size = run.description.get("stored_size", height)
    described = describe(run)._replace(image_shape=(size, size, channels))
    return described if run.description.get("encoded") else described._replace(center_share=1.0)


_ENDINGS = {SAFETENSORS: "safetensors", STABLEHLO: "stablehlo", ONNX: "onnx"}
_WRITERS = {"safetensors": _safetensors, "stablehlo": _stablehlo, "onnx": _onnx, HUB: _hub}
FORMATS = tuple(_WRITERS)
