"""The gallery of neighbors: one HTML page with a thumbnail of each query and of its neighbors."""

from collections.abc import Sequence
from pathlib import Path as LocalPath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from gensupcon_jax.inference.neighbors_search import QueryResult
from gensupcon_jax.paths import Path, as_path
from gensupcon_jax.report.page import template, write_page
from gensupcon_jax.report.thumbnails import picture_uri
from gensupcon_jax.report.values import clean, printable

_PIXELS = 256  # a JPEG need not be decoded at more than this


def write_gallery(
    path: Path, results: Sequence[QueryResult], *, facts: Sequence[tuple[str, str]], command: str
) -> None:
    """Write the page atomically; facts: (name, value) under the title."""
    write_page(path, render_gallery(results, facts=facts, command=command))


def render_gallery(results: Sequence[QueryResult], *, facts: Sequence[tuple[str, str]], command: str) -> str:
    """The page as HTML text, with every name escaped; an image that cannot be read any more is said to be so."""
    pictures: dict[str, str | None] = {}

    def picture(path: str) -> str | None:
        if path not in pictures:
            pixels = thumbnail(path)
            pictures[path] = None if pixels is None else picture_uri(pixels)
        return pictures[path]

    return template("neighbors.html", LocalPath(__file__).parent).render(
        facts=[(clean(name), clean(value)) for name, value in facts],
        command=printable(command).strip(),
        queries=[_shown(result, picture) for result in results],
    )


def _shown(result: QueryResult, picture_fn: Any) -> dict[str, Any]:
    return {
        "name": clean(result.path),
        "uri": picture_fn(result.path),
        "is_in_set": result.is_in_set,
        "neighbors": [
            {"rank": rank, "name": clean(path), "cosine": f"{cosine:.3f}", "uri": picture_fn(path)}
            for rank, (path, cosine) in enumerate(result.neighbors, start=1)
        ],
    }


def thumbnail(path: str) -> UInt8[np.ndarray, "height width channel"] | None:
    """The whole image, upright and small; None if it cannot be read."""
    try:
        with as_path(path).open("rb") as file, Image.open(file) as image:
            image.draft("RGB", (_PIXELS, _PIXELS))
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((_PIXELS, _PIXELS))
            return np.asarray(upright)
    except (OSError, SyntaxError, ValueError):
        return None
