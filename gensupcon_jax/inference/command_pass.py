"""What embed, predict and neighbors do alike: find images, load the encoder, encode, list what is damaged."""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gensupcon_jax.errors import UserError
from gensupcon_jax.fingerprints import fingerprint
from gensupcon_jax.inference.command_flags import given_of
from gensupcon_jax.inference.images import ImageFiles, find_images
from gensupcon_jax.paths import LocalPath, Path, is_remote, write_whole
from gensupcon_jax.text import counted, listed, visible

if TYPE_CHECKING:  # jax, after the arguments and the images have been found right
    from gensupcon_jax.inference.embed_pass import Encoded
    from gensupcon_jax.inference.encoder import Encoder

_DAMAGED_SHOWN = 5


def tell(sentence: str) -> None:
    """Print a line on standard error."""
    print(sentence, file=sys.stderr, flush=True)


def images_of(paths: Sequence[str]) -> ImageFiles:
    """The images of a folder, or these files."""
    return find_images(paths[0] if len(paths) == 1 else list(paths))


def load_encoder(options: Namespace) -> "Encoder":
    """The encoder of SOURCE and --step."""
    from gensupcon_jax.cluster import cpu_flags

    cpu_flags.set_for_this_machine(os.environ)
    from gensupcon_jax.inference.encoder import Encoder

    return Encoder.load(options.source, step=options.step, **given_of(options))


def encoded(encoder: "Encoder", found: ImageFiles, options: Namespace, output: Path | None = None) -> "Encoded":
    """Features and logits of the images that can be decoded; the others are listed, on standard error and beside the output.

    options: `batch_size`, and with an output `part_limit` and `strict`.  Raises UserError with `strict` where an image is
    damaged.
    """
    from gensupcon_jax.inference.embed_pass import encode

    if note := encoder.channels_note(found):
        tell(f"note: {note}")
    parts = None if output is None else _parts(encoder, found, options, output)
    if parts is not None and (sentence := parts.begin()):
        tell(sentence)
    result = encode(encoder, found, batch_size=options.batch_size, parts=parts)
    if output is not None:
        check_damaged(found, strict=options.strict)
    return result


def check_damaged(found: ImageFiles, *, strict: bool) -> None:
    """UserError if an image is damaged and none may be."""
    if strict and found.damaged:
        names = listed([f"{name} ({why})" for name, why in found.damaged], _DAMAGED_SHOWN)
        raise UserError(
            f"{counted(len(found.damaged), 'image')} cannot be decoded: {names}; repair or remove what is damaged, or leave "
            "--strict out"
        )


def list_damaged(found: ImageFiles, output: Path | None) -> None:
    """Say which images cannot be decoded, and list all of them in a file beside the output."""
    beside = None if output is None else output.with_name(f"{output.name}.damaged.txt")
    lines = [visible(f"{name}: {why}") for name, why in found.damaged]
    for line in lines[:_DAMAGED_SHOWN]:
        tell(f"cannot be decoded: {line}")
    if beside is not None and lines:
        write_whole(beside, "".join(f"{line}\n" for line in lines).encode())
    elif beside is not None:
        beside.unlink(missing_ok=True)  # of an earlier output of this name
    if lines:
        tell(
            f"{counted(len(lines), 'image')} {'was' if len(lines) == 1 else 'were'} left out"
            + (f"; see {beside}" if beside else "")
        )


def finish_parts(output: Path) -> None:
    """Remove the parts of an output that is complete."""
    from gensupcon_jax.inference.embed_parts import OutputParts

    if not is_remote(output):
        OutputParts(_parts_folder(output), "", 1).remove()


def _parts_folder(output: Path) -> LocalPath:
    return LocalPath(output).with_name(f"{output.name}.parts")


def _parts(encoder: "Encoder", found: ImageFiles, options: Namespace, output: Path):
    """Where the parts of this output are kept; None for few images, and for an output on object storage."""
    import numpy as np

    from gensupcon_jax.data.cache import size_and_time
    from gensupcon_jax.inference.embed_parts import OutputParts

    num_images = found.split.num_images
    if num_images <= options.part_limit or is_remote(output):
        return None
    files = [LocalPath(os.fsdecode(path)) for path in found.split.sources(np.arange(num_images))]
    listing = "\n".join(f"{name} {size_and_time(file)}" for name, file in zip(found.names, files, strict=True))
    what = f"{encoder.fingerprint} {encoder.source} {encoder.step} {options.batch_size} {options.part_limit}\n{listing}"
    return OutputParts(
        _parts_folder(output), fingerprint([what.encode(errors="surrogateescape")]), -(-options.part_limit // 2)
    )
