"""Exported functions in a file, with a JSON beside it: what it takes and returns, and a checksum, verified before it is read."""

import datetime
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.export

from gensupcon_jax import paths
from gensupcon_jax.disk import refuse_lost
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import brief, read_object
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.text import reason, visible
from gensupcon_jax.weights.description import Description, from_json
from gensupcon_jax.weights.files import refuse_existing, write_new

STABLEHLO, ONNX = ".stablehlo", ".onnx"
KINDS = (STABLEHLO, ONNX)
_VERSION = 1  # of the JSON
# jax/docs/export/export.md, "Compatibility guarantees": 6 months of backward, 3 weeks of forward compatibility.
PROMISE = "jax promises that versions released up to 6 months after it, or up to 3 weeks before it, can read the file"


class Artifact(NamedTuple):
    """A file that was verified: its content, what one must know to use it, and the other fields of its JSON.

    made: "made_at" (a date), "sha256", and the versions of the libraries that wrote it.
    """

    path: Path
    content: bytes
    description: Description
    made: dict[str, Any]


def json_path(path: Path) -> Path:
    """The JSON of an artifact: x.stablehlo.json beside x.stablehlo."""
    return path.with_name(f"{path.name}.json")


def write_artifact(path: Path, content: bytes, description: Description, details: Mapping[str, Any]) -> None:
    """Write a new artifact and its JSON; UserError if one of them exists.

    details: what is known of this kind only, such as versions.
    """
    refuse_existing(path)
    made = {
        "version": _VERSION,
        "made_at": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_new(json_path(path), (json.dumps(made | dict(details) | description.as_json(), indent=1) + "\n").encode())
    write_new(path, content)


def read_artifact(path: str | Path) -> Artifact:
    """The artifact, verified by its checksum; nothing of it is parsed or run.

    Raises UserError, in one line, for a file that is missing, damaged or truncated, whose JSON is missing or damaged, or that
    a later version of this program wrote.
    """
    path = as_path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the path of a {path.suffix} file")
    beside = json_path(path)
    if not beside.is_file():
        raise UserError(
            f"{beside} is missing: it has the checksum without which {path.name} is not read; copy both files, or export the "
            "run again"
        )
    try:
        content = path.read_bytes()
    except paths.failures() as error:
        refuse_lost(error, path)
        raise UserError(f"{path} cannot be read ({reason(error)}); copy both files again") from error
    values = read_object(beside, "copy both files again")
    if "sha256" not in values:
        raise UserError(f"{beside} is not the JSON of an exported artifact; copy both files again")
    if values.get("version") != _VERSION:
        raise UserError(
            f"{beside} is of version {brief(values.get('version'))}, this program reads version {_VERSION}; install the version "
            f"that wrote it ({visible(values.get('made_by', 'unknown'))[:100]}), or export the run again"
        )
    if hashlib.sha256(content).hexdigest() != values["sha256"]:
        raise UserError(
            f"{path} is damaged: its {len(content):,} bytes do not have the checksum in {beside.name}; copy both files again, or "
            "export the run again"
        )
    description = from_json(values, where=beside)
    made = {name: value for name, value in values.items() if name not in description.as_json()}
    return Artifact(path, content, description, made)


def content_of(path: Path) -> bytes:
    """The bytes of a function that any program exported; verified where a JSON with its checksum lies beside it."""
    return read_artifact(path).content if json_path(path).is_file() else path.read_bytes()


def write_stablehlo(path: Path, exported: jax.export.Exported, description: Description) -> None:
    """Write a new artifact of jax.export and its JSON; UserError if one of them exists."""
    details = {
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "calling_convention": exported.calling_convention_version,
        "platforms": list(exported.platforms),
    }
    write_artifact(path, bytes(exported.serialize()), description, details)


def stablehlo_function(artifact: Artifact) -> jax.export.Exported:
    """The function of a verified .stablehlo artifact: `.call(uint8 images [batch, *image_shape])` -> float32 features.

    Raises UserError where this version of jax cannot read it.
    """
    lowest, highest = (
        jax.export.minimum_supported_calling_convention_version,
        jax.export.maximum_supported_calling_convention_version,
    )
    convention = artifact.made.get("calling_convention")
    made = f"{artifact.path} was made {made_with(artifact)}"
    if not isinstance(convention, int) or not lowest <= convention <= highest:
        raise UserError(
            f"{made}, with calling convention {convention}; jax {jax.__version__} reads {lowest} to {highest}: install that "
            f"version of jax, or export the run again"
        )
    try:
        exported = jax.export.deserialize(bytearray(artifact.content))
        exported.mlir_module()  # parses the program, which is read lazily
    except Exception as error:  # flatbuffers and MLIR raise different types
        raise UserError(
            f"{made}; jax {jax.__version__} cannot read it ({reason(error)}): install that version, or export the run again"
        ) from error
    return exported


def made_with(artifact: Artifact) -> str:
    """The date, and the library whose version matters: "2026-11-26 with jax 0.10.2"."""
    library = "jax" if artifact.path.suffix == STABLEHLO else "onnx"
    return f"{artifact.made.get('made_at')} with {library} {artifact.made.get(library)}"
