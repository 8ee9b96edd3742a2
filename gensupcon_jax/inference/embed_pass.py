"""One pass of an encoder over image files, with a progress bar; of many images, parts are kept to resume from."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from gensupcon_jax.data.listing import progress_bar
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference.embed_parts import OutputParts
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.images import ImageFiles
from gensupcon_jax.text import listed


class Encoded(NamedTuple):
    """What an encoder gives for the image files that can be decoded, in order.

    rows: of each image in the files that were passed.  logits: None where the encoder has no classifier.
    """

    rows: Int[np.ndarray, "image"]
    features: Float32[np.ndarray, "image feature"]
    logits: Float32[np.ndarray, "image class"] | None


def encode(encoder: Encoder, found: ImageFiles, *, batch_size: int, parts: OutputParts | None = None) -> Encoded:
    """Features and logits of all images that can be decoded; others are appended to `found.damaged`.

    parts: where the outputs of each range of images are kept; those of an earlier start are not computed again.
    """
    num_images = found.split.num_images
    size = parts.num_images if parts else max(1, num_images)
    starts = range(0, num_images, size)
    done = {start: arrays for start in starts if parts and (arrays := parts.read(start)) is not None}
    with progress_bar(num_images, "embedding", done=min(num_images, size * len(done))) as bar:
        for start in starts:
            if start not in done:
                done[start] = _computed(encoder, files_from(found, start, start + size), batch_size, bar.update)
                if parts:
                    parts.write(start, done[start])
    in_order = [done[start] | {"rows": done[start]["rows"] + start} for start in starts]
    for arrays in in_order:
        found.damaged.extend(zip(arrays["damaged"].tolist(), arrays["reasons"].tolist(), strict=True))
    joined = {name: _joined([arrays[name] for arrays in in_order if name in arrays]) for name in _OUTPUTS}
    if not len(joined["rows"]):
        which = "the only image cannot" if len(found.damaged) == 1 else f"none of the {len(found.damaged):,} images can"
        raise UserError(f"{which} be decoded: {damage_listed(found.damaged)}")
    return Encoded(joined["rows"], joined["features"], joined["logits"] if len(joined["logits"]) else None)


def damage_listed(damaged: Sequence[tuple[str, str]]) -> str:
    """The first few damaged images, each with the reason."""
    return listed([f"{name} ({reason})" for name, reason in damaged])


_OUTPUTS = ("rows", "features", "logits")


def files_from(found: ImageFiles, start: int, end: int) -> ImageFiles:
    """The image files of these rows, none of them damaged as far as their headers say."""
    rows = np.arange(start, min(end, found.split.num_images))
    return ImageFiles(found.names[start:end], found.split.subset(rows), found.folders[start:end], [])


def _computed(encoder: Encoder, some: ImageFiles, batch_size: int, advance_fn: Callable) -> dict[str, np.ndarray]:
    """The outputs for these images, and the names of the damaged ones with the reasons."""
    rows, features, logits = [], [], []
    for outputs in encoder.outputs(some, batch_size=batch_size):
        rows.append(outputs.indices)
        features.append(outputs.features)
        logits.append(outputs.logits)
        advance_fn(len(outputs.indices))
    advance_fn(len(some.damaged))
    with_logits = {"logits": _joined(logits)} if logits and logits[0] is not None else {}
    return with_logits | {
        "rows": _joined(rows).astype(np.int64),
        "features": _joined(features),
        "damaged": np.array([name for name, _ in some.damaged], str),
        "reasons": np.array([reason for _, reason in some.damaged], str),
    }


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    with_rows = [array for array in arrays if len(array)]
    return np.concatenate(with_rows) if with_rows else np.zeros(0, np.float32)
