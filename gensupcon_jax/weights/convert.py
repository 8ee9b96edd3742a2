"""Weights both ways: SupContrast, timm and torchvision names <-> ours, and a run's features as one portable function.

python -m gensupcon_jax.weights export --workdir runs/x --output x.safetensors   (or x.stablehlo)
python -m gensupcon_jax.weights show x.safetensors
"""

import argparse
import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, UInt8

from gensupcon_jax import __version__, paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.models import ResNet
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.store.saved_runs import COLLECTIONS, SavedRun, read_run, run_backbone
from gensupcon_jax.views.augment import normalize

Named = dict[str, np.ndarray]
PARTS = ("backbone", "head", "classifier")
TIMM_PARTS = ("backbone", "classifier")
SUPCONTRAST, TIMM, LAYERS = "SupContrast", "timm / torchvision", "head or classifier alone"
PLATFORMS = ("cpu", "cuda", "tpu")
SAFETENSORS, STABLEHLO, TORCH = ".safetensors", ".stablehlo", (".pth", ".pt")
LISTED = 5  # names of each kind of mistake in one message

# Leaves and modules in our trees -> in PyTorch's; what is not named has the same name in both.
_BATCH_NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_DENSE_LEAVES = {"kernel": "weight", "bias": "bias"}
_MODULES = {"stem_conv": "conv1", "stem_bn": "bn1", "shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}


class Recognized(NamedTuple):
    """What a file's names are: the naming they follow, and the parts of a network they belong to."""

    naming: str
    parts: tuple[str, ...]


# Names


def recognize(names: Iterable[str], *, where: str | Path) -> Recognized:
    """The naming of tensors, and which of "backbone", "head", "classifier" they are; UserError for any other names."""
    names = [_strip_wrapper(name) for name in names]
    parts = tuple(part for part in PARTS if part in {_part(_canonical(name)) for name in names})
    if any(name.startswith("encoder.") for name in names):
        return Recognized(SUPCONTRAST, parts)
    if any(name.startswith(("conv1.", "layer1.")) for name in names):
        return Recognized(TIMM, parts)
    if names and "backbone" not in parts:
        return Recognized(LAYERS, parts)
    raise UserError(
        f"{where} has names of no known network: {_some(sorted(names)) or 'none at all'}; allowed: ResNets named by "
        "SupContrast (encoder.layer1.0.conv1.weight), timm or torchvision (layer1.0.conv1.weight)"
    )


def _strip_wrapper(name: str) -> str:
    """Without the "module." that torch's DataParallel puts around a network, or around its encoder (SupContrast)."""
    return name.removeprefix("module.").replace("encoder.module.", "encoder.", 1)


def _canonical(name: str) -> str:
    """A SupContrast or timm name -> the timm one."""
    name = _strip_wrapper(name).removeprefix("encoder.")
    return re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.", name)


def _supcontrast(name: str) -> str:
    """A timm name -> the SupContrast one."""
    return name if _part(name) != "backbone" else f"encoder.{name.replace('.downsample.', '.shortcut.')}"


def _part(name: str) -> str:
    return {"fc": "classifier", "head": "head"}.get(name.split(".")[0], "backbone")


def _timm_name(path: tuple[str, ...], *, hidden: bool) -> str:
    """("backbone", "stage1_block1", "conv1", "kernel") -> layer1.0.conv1.weight; `hidden`: the head has two layers."""
    part, *modules, leaf = path
    if part == "classifier":
        return f"fc.{_DENSE_LEAVES[leaf]}"
    if part == "head":  # As SupContrast: the hidden layer, a ReLU, the output layer; the linear head has no number.
        position = {"hidden": "0.", "output": "2."}[modules[0]] if hidden else ""
        return f"head.{position}{_DENSE_LEAVES[leaf]}"
    module = modules[-1]
    leaves = _BATCH_NORM_LEAVES if re.search(r"bn\d?$", module) else _DENSE_LEAVES
    name = f"{_MODULES.get(module, module)}.{leaves[leaf]}"
    if len(modules) == 1:
        return name
    stage, position = re.fullmatch(r"stage(\d+)_block(\d+)", modules[0]).groups()
    return f"layer{stage}.{int(position) - 1}.{name}"


def _paths(variables: Mapping[str, Any], parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """timm name -> (collection, part, module, leaf) of every leaf of these parts."""
    flat = flatten_dict({name: variables.get(name, {}) for name in COLLECTIONS})
    hidden = "hidden" in variables["params"].get("head", {})
    return dict(sorted((_timm_name(path[1:], hidden=hidden), path) for path in flat if path[1] in parts))


# Layouts


def _to_torch(value: np.ndarray, part: str) -> np.ndarray:
    """Convolutions HWIO -> OIHW, matrices [in, out] -> [out, in], which in a backbone are 1x1 convolutions."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if value.ndim == 2:
        return value.T[:, :, None, None] if part == "backbone" else value.T
    return value


def _from_torch(value: np.ndarray, num_axes: int) -> np.ndarray:
    """The way back, to a leaf of so many axes."""
    if num_axes == 4:
        return value.transpose(2, 3, 1, 0)
    if num_axes == 2:
        return value.reshape(value.shape[:2]).T
    return value


def _torch_shape(leaf: Any, part: str) -> tuple[int, ...]:
    return _to_torch(np.broadcast_to(np.float32(0), leaf.shape), part).shape


# Into our variables and back


def fill(
    variables: Mapping[str, Any], named: Mapping[str, np.ndarray], *, where: str | Path, parts: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`variables` with the tensors of a file in place of its own: float32 numpy, in our names and layouts.

    variables: {"params": {part: ...}, "batch_stats": ...}, arrays or shapes, parts among backbone, head, classifier.
    named: SupContrast, timm or torchvision names; `where` says for errors where they come from.
    parts: what the file must fill (others stay as they are, and the file's are left out); (): all that variables has.
    Raises UserError that lists the first five missing, unexpected and wrongly shaped names.
    """
    wanted_parts = parts or tuple(part for part in PARTS if part in variables["params"])
    naming, _ = recognize(named, where=where)
    wanted = _paths(variables, wanted_parts)
    found = {_canonical(name): value for name, value in named.items() if not name.endswith("num_batches_tracked")}
    found = {name: value for name, value in found.items() if not parts or _part(name) in parts}
    flat = flatten_dict(dict(variables))
    shapes = {name: _torch_shape(flat[path], path[1]) for name, path in wanted.items()}
    _check_names(found, shapes, where=where, naming=naming, parts=wanted_parts)
    for name, path in wanted.items():
        flat[path] = _from_torch(np.asarray(found[name]).astype(np.float32), len(flat[path].shape))
    return unflatten_dict(flat)


def _check_names(
    found: Named, shapes: Mapping[str, tuple[int, ...]], *, where: str | Path, naming: str, parts: tuple[str, ...]
) -> None:
    shown: Callable[[str], str] = _supcontrast if naming == SUPCONTRAST else str
    missing = [shown(name) for name in shapes if name not in found]
    unexpected = [shown(name) for name in found if name not in shapes]
    differing = [
        f"{shown(name)} {found[name].shape} in the file, {shape} here"
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    kinds = {
        "missing in the file": missing,
        "in the file but not here": unexpected,
        "of another shape": differing,
    }
    listed = [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names]
    if listed:
        raise UserError(
            f"{where} ({naming} names) does not fit {' and '.join(parts)}: {'; '.join(listed)}; "
            "set the architecture, stem, width, head, classes and image channels to those of the file, or choose another file"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def to_timm(variables: Mapping[str, Any], *, parts: tuple[str, ...] = TIMM_PARTS) -> Named:
    """Our variables as tensors in timm's names and layouts; `parts` that variables lack are left out.

    A head is named as SupContrast does (head.0, head.2, or head): timm's ResNets have none, so it is not among the defaults.
    """
    flat = flatten_dict(dict(variables))
    return {
        name: np.ascontiguousarray(_to_torch(np.asarray(flat[path]), path[1]))
        for name, path in _paths(variables, parts).items()
    }


def load_run(folder: str | Path, *, need: str = "backbone") -> SavedRun:
    """`runs.read_run`, with the backbone from a file where the run's `model.weights` is one."""
    run = read_run(folder, need=need)
    if run.weights_file is None:
        return run
    images = jnp.zeros((1, *run.description["image_shape"]))
    shapes = jax.eval_shape(lambda: run_backbone(run).init(jax.random.key(0), images, train=False))
    variables = {
        name: run.variables[name] | ({"backbone": shapes[name]} if name in shapes else {}) for name in COLLECTIONS
    }
    named = read_file(run.weights_file)
    return run._replace(variables=fill(variables, named, where=run.weights_file, parts=("backbone",)))


def identity(variables: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of names, shapes and values: the same weights have the same."""
    digest = hashlib.sha256()
    for place, leaf in sorted(flatten_dict(dict(variables)).items()):
        value = np.asarray(leaf)
        digest.update(f"{'/'.join(place)} {value.shape} {value.dtype}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:16]


# Files


def read_file(path: str | Path) -> Named:
    """The tensors of a .safetensors file, or of a .pth / .pt state dict (also under "model" or "state_dict").

    Names lose "module."; 16-bit floats become float32. UserError for files that are not there, damaged, of another
    kind, or need PyTorch where it is not installed. Pickled code is never run (weights_only).
    """
    path = as_path(path)
    if path.suffix not in (SAFETENSORS, *TORCH):
        raise UserError(f"{path} is no file of weights; allowed: {', '.join((SAFETENSORS, *TORCH))}")
    if not path.is_file():
        raise UserError(f"{path} is not there; give the path of a {path.suffix} file")
    named = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)
    return {_strip_wrapper(name): value for name, value in named.items()}


def _read_safetensors(path: Path) -> Named:
    try:
        with paths.local_file(path) as local, safetensors.safe_open(local, framework="numpy") as tensors:
            named = {name: np.asarray(tensors.get_tensor(name)) for name in tensors.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, *paths.failures()) as error:
        raise UserError(f"{path} cannot be read ({error}); copy or convert it again") from error
    return {name: _full_precision(value) for name, value in named.items()}


def _full_precision(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value


def _read_torch(path: Path) -> Named:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} needs PyTorch to be read, which is not installed; where it is, write the file's state dict to "
            f"{path.with_suffix(SAFETENSORS).name} with safetensors.torch.save_file(state_dict, name), and use that"
        ) from error
    try:
        # SupContrast keeps its command line's options, an argparse.Namespace, beside the weights: plain values.
        with torch.serialization.safe_globals([argparse.Namespace]), paths.local_file(path) as local:
            content = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # Not its message: torch advises to run what the file holds.
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}): it is damaged, or holds pickled objects beside tensors, which "
            f"are not run here; write its state dict to {path.with_suffix(SAFETENSORS).name}, and use that"
        ) from error
    tensors = _state_dict(content, path)
    return {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()}


def _state_dict(content: Any, path: Path) -> dict[str, Any]:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(hasattr(value, "numpy") for value in content.values()):
        found = _some([str(key) for key in content]) if isinstance(content, Mapping) else type(content).__name__
        raise UserError(f"{path} holds no state dict but {found}; allowed: one, or one under 'model' or 'state_dict'")
    return {name: value.detach() for name, value in content.items()}


def write_safetensors(path: str | Path, named: Named, metadata: Mapping[str, str]) -> None:
    """A new .safetensors file; UserError where one is there already. Missing folders are made."""
    _write_new(as_path(path), safetensors.numpy.save(named, metadata=dict(metadata)))


def _write_new(path: Path, content: bytes) -> None:
    _refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if paths.is_remote(path):
            path.write_bytes(content)
        else:
            with path.open("xb") as file:
                file.write(content)
    except paths.failures() as error:
        if not paths.is_remote(path) and not isinstance(error, FileExistsError):
            path.unlink(missing_ok=True)  # half a file is none
        raise UserError(f"{path} cannot be written ({paths.reason(error)}); choose another --output") from error


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already and is not overwritten; remove it, or choose another --output")


# The function


def export_features(
    path: str | Path,
    backbone: ResNet,
    variables: Mapping[str, Any],
    *,
    image_shape: tuple[int, int, int],
    mean: Float[np.ndarray, "channel"],
    std: Float[np.ndarray, "channel"],
) -> None:
    """Write images -> features as a new `jax.export` artifact, StableHLO with the weights inside, for cpu, cuda and tpu.

    uint8 images [batch, *image_shape] of any batch size -> normalized with mean and std -> float32 [batch, feature].
    Read it with `jax.export.deserialize(bytearray(Path(path).read_bytes())).call`. UserError where the file is there already.
    """
    _refuse_existing(as_path(path))
    network = {name: variables[name]["backbone"] for name in COLLECTIONS}

    def features(images: UInt8[jax.Array, "batch height width channel"]) -> Float[jax.Array, "batch feature"]:
        return backbone.apply(network, normalize(images, mean, std), train=False)

    shape = jax.export.symbolic_shape("batch, " + ", ".join(str(size) for size in image_shape))
    exported = jax.export.export(jax.jit(features), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.uint8))
    _write_new(as_path(path), bytes(exported.serialize()))


# The command line


def export(workdir: Path, output: Path, *, head: bool = False) -> str:
    """Write a run's weights (.safetensors, timm names) or features function (.stablehlo); returns a line to print."""
    if output.suffix not in (SAFETENSORS, STABLEHLO):
        raise UserError(f"--output is {output}; allowed: a name that ends in {SAFETENSORS} or {STABLEHLO}")
    _refuse_existing(output)
    run = load_run(workdir)
    if output.suffix == SAFETENSORS:
        named = to_timm(run.variables, parts=PARTS if head else TIMM_PARTS)
        write_safetensors(output, named, _metadata(run))
        return f"{output}: {len(named)} tensors in timm names, from step {run.step} of {workdir}"
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


def _metadata(run: SavedRun) -> dict[str, str]:
    """What one has to know to use the weights, as text; lists are JSON."""
    backbone = run_backbone(run)
    return {
        "format": "pt",  # The layout of the tensors, as safetensors' readers for PyTorch expect it to be said.
        "made_by": f"gensupcon_jax {__version__}",
        "architecture": run.config.model.name,
        "stem": backbone.stem,
        "width": str(backbone.width),
        "step": str(run.step),
        **{name: json.dumps(run.description[name]) for name in ("image_shape", "mean", "std", "class_names")},
    }


def show(path: Path) -> str:
    """What a file holds: the naming, then the name, shape and dtype of each tensor; or an artifact's signature."""
    if path.suffix == STABLEHLO:
        return _show_artifact(path)
    named = read_file(path)
    naming, parts = recognize(named, where=path)
    total = sum(value.size for name, value in named.items() if not name.endswith("num_batches_tracked"))
    lines = [f"{path}: {naming} names; {', '.join(parts)}; {len(named)} tensors, {total:,} numbers"]
    width = max(len(name) for name in named)
    return "\n".join(lines + [f"  {name:{width}}  {value.shape}  {value.dtype}" for name, value in named.items()])


def _show_artifact(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is not there; give the path of a {path.suffix} file")
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); export it again") from error
    inputs, outputs = (", ".join(str(aval) for aval in avals) for avals in (exported.in_avals, exported.out_avals))
    return f"{path}: jax.export artifact for {', '.join(exported.platforms)}: {inputs} -> {outputs}"


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are UserErrors."""

    def error(self, message: str) -> None:
        raise UserError(f"{message}; see python -m gensupcon_jax.weights --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line's arguments; UserError for wrong ones."""
    parser = _Parser(prog="python -m gensupcon_jax.weights", description="Weights of runs and files.")
    commands = parser.add_subparsers(dest="command", required=True)
    exporting = commands.add_parser("export", help="a run's weights (.safetensors) or features function (.stablehlo)")
    exporting.add_argument("--workdir", type=as_path, required=True, help="folder of the run")
    exporting.add_argument("--output", type=as_path, required=True, help="new file: .safetensors or .stablehlo")
    exporting.add_argument("--head", action="store_true", help="also the projection head, as head.* (.safetensors)")
    showing = commands.add_parser("show", help="what a file holds")
    showing.add_argument("file", type=as_path, help=".safetensors, .pth, .pt or .stablehlo")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Do what the command line says; user mistakes end in one line, status 1."""
    try:
        chosen = parse(arguments)
        if chosen.command == "show":
            print(show(chosen.file))
        else:
            print(export(chosen.workdir, chosen.output, head=chosen.head))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])


@contextlib.contextmanager
def naming_the_field(field: str) -> Iterator[None]:
    """What is wrong with a run or a file of weights is said of this field of the config."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
