"""A listing of the encoded images of one split: source, class and header of each."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from gensupcon_jax.data.headers import join_headers
from gensupcon_jax.data.splits import EncodedSplit, Headers

_SECONDS_BEFORE_A_BAR = 2.0
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


def unlabeled_note(num_images: int) -> str:
    """What becomes of training images without a label, in one sentence."""
    are = "image" if num_images == 1 else "images"
    return f"{num_images:,} {are} of train without a label: each is trained as a class of its own, and not evaluated"


def headers_as_arrays(headers: Iterable) -> dict[str, np.ndarray]:
    """Headers and problems as arrays, for the cache; `headers_from_arrays` inverts it."""
    arrays, problems = join_headers(headers)
    return arrays._asdict() | {"problems": np.array([problem or "" for problem in problems], str)}


def headers_from_arrays(arrays: dict[str, np.ndarray]) -> tuple[Headers, list[str | None]]:
    """Headers and problems from the arrays of `headers_as_arrays`."""
    headers = Headers(*(arrays[name] for name in Headers._fields))
    return headers, [str(problem) or None for problem in arrays["problems"]]


def with_progress(items: Iterable, total: int, text: str) -> Iterable:
    """The items with a progress bar, as `progress_bar`."""
    return _Bar(items, total=total, desc=text)


def progress_bar(total: int, text: str, *, done: int = 0) -> tqdm:
    """A bar to advance by hand, on standard error, shown for what takes longer than 2 s; outside a terminal, a line each 15 s."""
    return _Bar(initial=done, total=total, desc=text)


class _Bar(tqdm):
    def __init__(self, *arguments: Any, **settings: Any):
        self._is_log = not sys.stderr.isatty()
        super().__init__(
            *arguments,
            delay=_SECONDS_BEFORE_A_BAR,
            miniters=1,
            unit=" images",
            leave=False,
            ascii=self._is_log,
            **settings,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar; a log gets a line of its own, the next one in 15 s, and nothing that would erase a line."""
        if not self._is_log:
            return bool(super().display(msg, pos))
        elapsed = self.format_dict["elapsed"]
        is_due = elapsed >= max(self.delay, self.last_print_t - self.start_t + self.mininterval)
        if msg is None and is_due:  # tqdm.write shows every bar again, due or not
            self.fp.write(f"{self}\n")
            self.fp.flush()
            self.mininterval = _SECONDS_BETWEEN_LINES
        return False

    def clear(self, nolock: bool = False) -> None:
        """Make way for a line of text; in a log nothing is in its way."""
        if not self._is_log:
            super().clear(nolock)
