"""A listing of the encoded images of one split: source, class and header of each."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from gensupcon_jax.data.headers import join_headers
from gensupcon_jax.data.splits import EncodedSplit, Headers

_BAR_FROM = 5_000  # fewer take only seconds
_SECONDS_BETWEEN_LINES = 15.0


class Listing(NamedTuple):
    """All images of a split, including those that cannot be decoded.

    sources_fn, where_fn, are_paths: as in `EncodedSplit`.  classes [example]: from 0; -1 without a label.
    problems: why an image cannot be decoded, according to its header; None where it seems intact.  fingerprint: changes with
    the listed images.  cache_key: changes also when one of their files is rewritten.  rows, values: labels that are not one class
    each, as in `Split`.
    """

    sources_fn: Callable[[Int[np.ndarray, "some"]], list[bytes]]
    where_fn: Callable[[int], str]
    are_paths: bool
    classes: Int[np.ndarray, "example"]
    headers: Headers
    problems: list[str | None]
    fingerprint: str
    cache_key: str
    rows: Float[np.ndarray, "example class"] | None = None
    values: Float[np.ndarray, "example"] | None = None

    def split(self, num_classes: int) -> EncodedSplit:
        """All images, as a split."""
        return EncodedSplit(
            sources_fn=self.sources_fn,
            where_fn=self.where_fn,
            are_paths=self.are_paths,
            numbers=np.arange(len(self.classes)),
            classes=self.classes,
            headers=self.headers,
            num_classes=num_classes,
            rows=self.rows,
            values=self.values,
        )


def headers_as_arrays(headers: Iterable) -> dict[str, np.ndarray]:
    """Headers and problems as arrays, for the cache; `headers_from_arrays` inverts it."""
    arrays, problems = join_headers(headers)
    return arrays._asdict() | {"problems": np.array([problem or "" for problem in problems], str)}


def headers_from_arrays(arrays: dict[str, np.ndarray]) -> tuple[Headers, list[str | None]]:
    """Headers and problems from the arrays of `headers_as_arrays`."""
    headers = Headers(*(arrays[name] for name in Headers._fields))
    return headers, [str(problem) or None for problem in arrays["problems"]]


def with_progress(items: Iterable, total: int, text: str) -> Iterable:
    """The items with a progress bar on standard error, where they are many; outside a terminal, one line every 15 s."""
    return tqdm(items, disable=total < _BAR_FROM, **_bar_settings(total, text))


def progress_bar(total: int, text: str, *, done: int = 0) -> tqdm:
    """A progress bar to advance by hand: always in a terminal, where images are many outside of one."""
    is_hidden = total < _BAR_FROM and not sys.stderr.isatty()
    return tqdm(initial=done, disable=is_hidden, **_bar_settings(total, text))


def _bar_settings(total: int, text: str) -> dict[str, Any]:
    often = {} if sys.stderr.isatty() else {"mininterval": _SECONDS_BETWEEN_LINES, "ascii": True}
    return {"total": total, "desc": text, "unit": " images", "unit_scale": True, "leave": False} | often
