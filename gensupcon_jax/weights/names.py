"""Names and layouts of weights in other programs: a table with one entry for each family of networks."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from gensupcon_jax.errors import UserError
from gensupcon_jax.models.vit import positions_of
from gensupcon_jax.paths import Path
from gensupcon_jax.store.saved_runs import COLLECTIONS
from gensupcon_jax.text import listed

Named = dict[str, np.ndarray]
ModulePath = tuple[str, ...]  # ("params", "backbone", "stage1_block1", "conv1", "kernel")

PARTS = ("backbone", "head", "classifier")
LAYERS = "head or classifier alone"
SUPCONTRAST = "SupContrast"


class Family(NamedTuple):
    """Names and layouts of the weights of one family of networks in files.

    naming: source of the names.  networks, example: for messages.  begins: prefixes of names unique to the family.
    name_fn: (path of a leaf, whether the head has a hidden layer) -> its name, None for a leaf of another family.
    part_fn: name -> the part of the network that it belongs to.  to_file_fn: (our array, part) -> array of the file.
    from_file_fn: (array of the file, number of axes) -> our array.  fit_fn: (name, array of the file, expected shape) ->
    the array, resized if weights for another image size can be used.
    """

    naming: str
    networks: str
    example: str
    begins: tuple[str, ...]
    name_fn: Callable[[ModulePath, bool], str | None]
    part_fn: Callable[[str], str]
    to_file_fn: Callable[[np.ndarray, str], np.ndarray]
    from_file_fn: Callable[[np.ndarray, int], np.ndarray]
    fit_fn: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray]


class Recognized(NamedTuple):
    """The naming of a file, and the parts of a network that it has."""

    naming: str
    parts: tuple[str, ...]


# Residual networks: timm, torchvision and, with different names, SupContrast

_BATCH_NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_DENSE_LEAVES = {"kernel": "weight", "bias": "bias"}
_STEM = {"stem_conv": "conv1", "stem_bn": "bn1"}
_SHORTCUT = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}


def _resnet_name(path: ModulePath, hidden: bool) -> str | None:
    """(..., "backbone", "stage1_block1", "conv1", "kernel") -> layer1.0.conv1.weight."""
    if path[1] != "backbone":
        return _layer_name(path, hidden, classifier="fc", head="head")
    *modules, leaf = path[2:]
    if len(modules) == 1:
        return _resnet_leaf(_STEM.get(modules[0]), modules[0], leaf)
    block = re.fullmatch(r"stage(\d+)_block(\d+)", modules[0]) if len(modules) == 2 else None
    if block is None:
        return None
    same_name = modules[1] if re.fullmatch(r"(conv|bn)\d", modules[1]) else None
    name = _resnet_leaf(_SHORTCUT.get(modules[1], same_name), modules[1], leaf)
    return name and f"layer{block[1]}.{int(block[2]) - 1}.{name}"


def _resnet_leaf(file_module: str | None, module: str, leaf: str) -> str | None:
    leaves = _BATCH_NORM_LEAVES if re.search(r"bn\d?$", module) else _DENSE_LEAVES
    return f"{file_module}.{leaves[leaf]}" if file_module and leaf in leaves else None


def _layer_name(path: ModulePath, hidden: bool, *, classifier: str, head: str) -> str | None:
    """Names of the head as in SupContrast: hidden layer 0, ReLU 1, output layer 2; the linear head has no number."""
    *modules, leaf = path[2:]
    if leaf not in _DENSE_LEAVES or modules not in (["hidden"], ["output"]):
        return None
    if path[1] == "classifier":
        return f"{classifier}.{_DENSE_LEAVES[leaf]}"
    position = {"hidden": "0.", "output": "2."}[modules[0]] if hidden else ""
    return f"{head}.{position}{_DENSE_LEAVES[leaf]}"


def _resnet_to_file(value: np.ndarray, part: str) -> np.ndarray:
    """Convolutions HWIO -> OIHW; a matrix of a backbone becomes a 1x1 convolution."""
    value = _to_torch(value, part)
    return value[:, :, None, None] if value.ndim == 2 and part == "backbone" else value


def _to_torch(value: np.ndarray, part: str) -> np.ndarray:
    """Convolutions HWIO -> OIHW, matrices [in, out] -> [out, in]."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value


def _from_torch(value: np.ndarray, num_axes: int) -> np.ndarray:
    """The inverse, to a leaf with this number of axes."""
    if num_axes == 4:
        return value.transpose(2, 3, 1, 0)
    if num_axes == 2:
        return value.reshape(value.shape[:2]).T
    return value


# Vision transformers of timm

_TRANSFORMER_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_TRANSFORMER_MODULES: dict[ModulePath, str] = {
    ("patch_embed",): "patch_embed.proj",
    ("norm",): "norm",
    ("fc_norm",): "fc_norm",
}
_BLOCK_MODULES = {("norm1",), ("norm2",), ("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1"), ("mlp", "fc2")}


def _vit_name(path: ModulePath, hidden: bool) -> str | None:
    """(..., "backbone", "block1", "attn", "qkv", "kernel") -> blocks.0.attn.qkv.weight.

    In timm "head" is the classifier; the projection head, which timm's networks do not have, is "projection".
    """
    if path[1] != "backbone":
        return _layer_name(path, hidden, classifier="head", head="projection")
    *modules, leaf = path[2:]
    if not modules:
        return leaf if leaf in ("cls_token", "pos_embed") else None
    if leaf not in _TRANSFORMER_LEAVES:
        return None
    block = re.fullmatch(r"block(\d+)", modules[0])
    if block and tuple(modules[1:]) in _BLOCK_MODULES:
        return ".".join(("blocks", str(int(block[1]) - 1), *modules[1:], _TRANSFORMER_LEAVES[leaf]))
    module = _TRANSFORMER_MODULES.get(tuple(modules))
    return module and f"{module}.{_TRANSFORMER_LEAVES[leaf]}"


def _vit_fitted(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Position embeddings of another image size are resized; what is of another width stays as it is."""
    if name != "pos_embed" or value.shape == shape or value.shape[-1] != shape[-1]:
        return value
    return positions_of(value, shape[1])


# Networks from outside this package: our own names and layouts


def _own_name(path: ModulePath, hidden: bool) -> str:
    return ".".join(path)


def _own_part(name: str) -> str:
    part = name.split(".")[1] if "." in name else ""
    return part if part in PARTS else "backbone"


def _unchanged(value: np.ndarray, of_file: Any) -> np.ndarray:
    return value


def _unfitted(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return value


RESNET = Family(
    naming="timm / torchvision",
    networks="ResNets",
    example="layer1.0.conv1.weight",
    begins=("conv1.", "layer1."),
    name_fn=_resnet_name,
    part_fn=lambda name: {"fc": "classifier", "head": "head"}.get(name.split(".")[0], "backbone"),
    to_file_fn=_resnet_to_file,
    from_file_fn=_from_torch,
    fit_fn=_unfitted,
)
VIT = Family(
    naming="timm ViT",
    networks="vision transformers",
    example="blocks.0.attn.qkv.weight",
    begins=("patch_embed.", "blocks."),
    name_fn=_vit_name,
    part_fn=lambda name: {"head": "classifier", "projection": "head"}.get(name.split(".")[0], "backbone"),
    to_file_fn=_to_torch,
    from_file_fn=_from_torch,
    fit_fn=_vit_fitted,
)
OWN = Family(
    naming="this program's",
    networks="any network",
    example="params.backbone.Dense_0.kernel",
    begins=("params.backbone.", "batch_stats.backbone."),
    name_fn=_own_name,
    part_fn=_own_part,
    to_file_fn=_unchanged,
    from_file_fn=_unchanged,
    fit_fn=_unfitted,
)
FAMILIES = (RESNET, VIT, OWN)  # the first that has a name for every leaf of a backbone is the backbone's


def family_of(variables: Mapping[str, Any]) -> Family:
    """The family of the network with these variables, by the names of its modules."""
    paths = [path for path in flatten_dict(dict(variables)) if path[1] == "backbone"]
    return next(family for family in FAMILIES if all(family.name_fn(path, False) for path in paths))


def paths_by_name(variables: Mapping[str, Any], family: Family, parts: Iterable[str]) -> dict[str, ModulePath]:
    """Name in the family's files -> (collection, part, module, leaf) of every leaf of these parts."""
    flat = flatten_dict({name: variables.get(name, {}) for name in COLLECTIONS})
    hidden = "hidden" in variables["params"].get("head", {})
    names = {path: family.name_fn(path, hidden) for path in flat if path[1] in parts}
    return dict(sorted((name, path) for path, name in names.items() if name))


def recognize(names: Iterable[str], *, where: str | Path) -> Recognized:
    """The naming of tensors, and which of "backbone", "head", "classifier" they are; UserError for unknown names."""
    names = [strip_wrapper(name) for name in names]
    family, is_supcontrast = _family_of_names(names)
    found = {(family or RESNET).part_fn(canonical(name)) for name in names}
    parts = tuple(part for part in PARTS if part in found)
    if family is not None:
        return Recognized(SUPCONTRAST if is_supcontrast else family.naming, parts)
    if names and "backbone" not in parts:
        return Recognized(LAYERS, parts)
    known = ", ".join(f"{each.networks} named by {each.naming} ({each.example})" for each in FAMILIES if each != OWN)
    raise UserError(
        f"{where} has names of an unknown network: {listed(sorted(names)) or 'none'}; allowed: ResNets named by "
        f"{SUPCONTRAST} (encoder.layer1.0.conv1.weight), {known}, and files that this program exported ({OWN.example})"
    )


def _family_of_names(names: list[str]) -> tuple[Family | None, bool]:
    if any(name.startswith("encoder.") for name in names):
        return RESNET, True
    return next((each for each in FAMILIES if any(name.startswith(each.begins) for name in names)), None), False


_WRAPPERS = re.compile(r"(?:(?:_orig_mod|backbone|model|encoder_q|module)\.)+")
_CONTAINERS = ("encoder_q.", "backbone.")  # other networks, queues and heads stand beside these
_LAYERS_BESIDE = ("fc.", "head.", "projection.")


def strip_wrapper(name: str) -> str:
    """Remove the prefixes, in any order, that training programs add to a network, or to its encoder (SupContrast).

    "_orig_mod." (torch.compile), "module." (DataParallel), "model." (Lightning), "backbone." (solo-learn, mmpretrain),
    "encoder_q." (MoCo).
    """
    name = name[len(_wrapper(name)) :]
    inner = name.removeprefix("encoder.")
    return name if inner == name else "encoder." + inner[len(_wrapper(inner)) :]


def unwrapped(named: Mapping[str, Any], *, where: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The tensors without these prefixes, and the names of those that are left out.

    Where some names have "encoder_q." or "backbone.", the network is what has it: what stands beside it, such as MoCo's
    encoder_k and queue, is left out, except layers named fc, head or projection. UserError if two names become one.
    """
    contained = [name for name in named if any(part in _wrapper(name) for part in _CONTAINERS)]
    taken = [name for name in named if name in contained or strip_wrapper(name).startswith(_LAYERS_BESIDE)]
    origins: dict[str, str] = {}
    for name in taken if contained else named:
        other = origins.setdefault(strip_wrapper(name), name)
        if other != name:
            raise UserError(
                f"{where} has both {other} and {name}, which may be the same weight; remove one of the two networks"
            )
    return {short: named[name] for short, name in origins.items()}, sorted(set(named) - set(origins.values()))


def _wrapper(name: str) -> str:
    """The prefixes of wrappers at the beginning of a name."""
    found = _WRAPPERS.match(name)
    return found[0] if found else ""


def canonical(name: str) -> str:
    """A SupContrast name -> the timm name; other names are unchanged, without wrappers."""
    name = strip_wrapper(name).removeprefix("encoder.")
    return re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.", name)


def supcontrast(name: str) -> str:
    """A timm name -> the SupContrast name."""
    return name if RESNET.part_fn(name) != "backbone" else f"encoder.{name.replace('.downsample.', '.shortcut.')}"
