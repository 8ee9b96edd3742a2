"""Converts between the variables of a network and the named tensors of a file."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.models.vit import positions_of
from gensupcon_jax.paths import Path
from gensupcon_jax.text import listed
from gensupcon_jax.weights.names import (
    PARTS,
    SUPCONTRAST,
    VIT,
    Family,
    Named,
    canonical,
    family_of,
    paths_by_name,
    recognize,
    supcontrast,
)

NETWORK = ("backbone", "classifier")


def fill(
    variables: Mapping[str, Any], named: Mapping[str, np.ndarray], *, where: str | Path, parts: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`variables` with the tensors of a file in their place: float32 numpy, in our names and layouts.

    variables: {"params": {part: ...}, "batch_stats": ...}, arrays or shapes, parts among backbone, head, classifier.
    named: tensors by the names of one of `names.FAMILIES`; `where`: their source, for errors.
    parts: those that the file must fill (all others are unchanged); (): all parts of variables.
    Position embeddings of a vision transformer for another image size are resized.
    Raises UserError that lists the first five missing, unexpected and wrongly shaped names.
    """
    wanted_parts = parts or tuple(part for part in PARTS if part in variables["params"])
    naming, _ = recognize(named, where=where)
    family = family_of(variables)
    wanted = paths_by_name(variables, family, wanted_parts)
    found = {canonical(name): value for name, value in named.items() if not name.endswith("num_batches_tracked")}
    found = {name: value for name, value in found.items() if not parts or family.part_fn(name) in parts}
    flat: dict[Any, Any] = flatten_dict(dict(variables))
    shapes = {name: _file_shape(flat[path], path[1], family) for name, path in wanted.items()}
    found = {name: family.fit_fn(name, value, shapes.get(name, value.shape)) for name, value in found.items()}
    _check_names(found, shapes, where=where, naming=naming, parts=wanted_parts)
    for name, path in wanted.items():
        flat[path] = family.from_file_fn(np.asarray(found[name]).astype(np.float32), len(flat[path].shape))
    return unflatten_dict(flat)


def named_tensors(variables: Mapping[str, Any], *, parts: tuple[str, ...] = NETWORK) -> Named:
    """Our variables as tensors in the names and layouts of their family; missing `parts` are left out.

    The head is not included by default: timm's networks have none (in a ResNet file it has SupContrast's names).
    """
    flat, family = flatten_dict(dict(variables)), family_of(variables)
    return {
        name: np.ascontiguousarray(family.to_file_fn(np.asarray(flat[path]), path[1]))
        for name, path in paths_by_name(variables, family, parts).items()
    }


def fitted(variables: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """The variables for images of this size in pixels: position embeddings of a vision transformer are resized."""
    backbone = variables["params"].get("backbone", {})
    if not backbone or family_of(variables) is not VIT:
        return dict(variables)
    side = image_size // backbone["patch_embed"]["kernel"].shape[0]
    positions = positions_of(np.asarray(backbone["pos_embed"]), 1 + side * side)
    return {**variables, "params": {**variables["params"], "backbone": {**backbone, "pos_embed": positions}}}


def weights_fingerprint(variables: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of names, shapes and values."""

    def parts():
        for place, leaf in sorted(flatten_dict(dict(variables)).items()):
            value = np.asarray(leaf)
            yield f"{'/'.join(place)} {value.shape} {value.dtype}\n"
            yield value.tobytes()

    return fingerprint(parts())


def _file_shape(leaf: Any, part: str, family: Family) -> tuple[int, ...]:
    return family.to_file_fn(np.broadcast_to(np.float32(0), leaf.shape), part).shape


def _check_names(
    found: Named, shapes: Mapping[str, tuple[int, ...]], *, where: str | Path, naming: str, parts: tuple[str, ...]
) -> None:
    shown: Callable[[str], str] = supcontrast if naming == SUPCONTRAST else str
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
    problems = [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise UserError(
            f"{where} ({naming} names) does not fit {' and '.join(parts)}: {'; '.join(problems)}; "
            "set the architecture, stem, width, pool, head, classes and image channels to those of the file, or choose another"
        )
