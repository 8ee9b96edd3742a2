"""The nearest images of many images by the cosine of their features, on the CPU, in bounded time."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

MOST_PAIRS = 5 * 10**8  # of compared images: about 1 s on two cores
FEWEST_STORED = 10_000  # so many images are compared with, however many ask
_CANDIDATE_DIMENSIONS = 48
_TILE = 256
_BLOCK = 32


class Nearest(NamedTuple):
    """The nearest stored images of each query, the nearest first.

    queries: numbers of the images that asked.  among: numbers of the images that were compared with.  stored: numbers
    [query, neighbor] of the neighbors.  cosines: of these.
    """

    queries: Int[np.ndarray, " query"]
    among: Int[np.ndarray, " among"]
    stored: Int[np.ndarray, "query neighbor"]
    cosines: Float[np.ndarray, "query neighbor"]


def nearest_images(
    features: Float[np.ndarray, "image dim"],
    stored: Float[np.ndarray, "stored dim"] | None,
    num_neighbors: int,
) -> Nearest:
    """The neighbors of each image among the stored ones; stored None: among the others of the same split.

    Up to MOST_PAIRS are compared; of larger splits some are drawn at random (fixed seed), first of the stored ones.
    """
    itself = stored is None
    among = features if stored is None else stored
    asked, kept = drawn(len(features), len(among))
    num_neighbors = min(num_neighbors, len(kept) - itself)
    queries, rows = (_short_units(part) for part in (features[asked], among[kept]))
    own = np.full(len(asked), -1)
    if itself:
        places = np.searchsorted(kept, asked).clip(max=len(kept) - 1)
        own = np.where(kept[places] == asked, places, -1)
    found, cosines = _search(queries, rows, own, num_neighbors)
    return Nearest(asked, kept, kept[found], cosines)


def drawn(num_queries: int, num_stored: int) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, " stored"]]:
    """Which images ask and which are compared with: all, or as many as MOST_PAIRS allows."""
    most_stored = max(FEWEST_STORED, MOST_PAIRS // max(1, num_queries))
    kept = _draw(num_stored, most_stored)
    return _draw(num_queries, max(1, MOST_PAIRS // max(1, len(kept)))), kept


def _draw(count: int, most: int) -> Int[np.ndarray, " chosen"]:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _search(
    queries: Float[np.ndarray, "query dim"],
    stored: Float[np.ndarray, "stored dim"],
    own: Int[np.ndarray, " query"],
    num_neighbors: int,
) -> tuple[Int[np.ndarray, "query neighbor"], Float[np.ndarray, "query neighbor"]]:
    """Places and cosines of the nearest stored rows; own: the row that is the query itself, or -1.

    Wide features are compared in their principal directions first, and the best candidates of that in full.
    """
    from threadpoolctl import threadpool_limits

    if num_neighbors < 1 or not len(queries):
        shape = (len(queries), max(0, num_neighbors))
        return np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    directions = _principal_directions(stored)
    small_queries, small_stored = (
        (queries, stored) if directions is None else (queries @ directions, stored @ directions)
    )
    columns = _in_blocks(small_stored)
    num_candidates = min(len(stored), 3 * num_neighbors + 10)

    def one_tile(start: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(start, start + _TILE)
        scores = small_queries[rows] @ columns
        scores[:, len(stored) :] = -np.inf
        with_own = np.flatnonzero(own[rows] >= 0)
        scores[with_own, own[rows][with_own]] = -2.0  # below every cosine, above the columns that are not there
        candidates = top_columns(scores, num_candidates)
        cosines = np.matmul(stored[candidates], queries[rows, :, None])[..., 0]
        cosines[candidates == own[rows, None]] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :num_neighbors]
        return np.take_along_axis(candidates, order, 1), np.take_along_axis(cosines, order, 1)

    # One thread of BLAS for each tile: the passes over its scores then use all cores too.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        parts = list(pool.map(one_tile, range(0, len(queries), _TILE)))
    return np.concatenate([places for places, _ in parts]), np.concatenate([cosines for _, cosines in parts])


def top_columns(scores: Float[np.ndarray, "row column"], count: int) -> Int[np.ndarray, "row {count}"]:
    """The columns of the largest scores of each row, in ascending order of column.

    The largest lie in the blocks with the largest maxima, so that only those need to be ordered.
    A block is every so-many-th column.
    """
    rows, columns = scores.shape
    num_blocks = columns // _BLOCK
    if columns % _BLOCK or num_blocks <= 2 * count:
        return np.sort(np.argpartition(scores, columns - count, axis=1)[:, columns - count :], axis=1)
    blocked = scores.reshape(rows, _BLOCK, num_blocks)
    blocks = np.argpartition(blocked.max(1), num_blocks - count, axis=1)[:, num_blocks - count :]
    inside = np.take_along_axis(blocked, blocks[:, None], 2).reshape(rows, -1)
    places = (np.arange(_BLOCK)[:, None] * num_blocks + blocks[:, None]).reshape(rows, -1)
    best = np.argpartition(inside, inside.shape[1] - count, axis=1)[:, inside.shape[1] - count :]
    return np.sort(np.take_along_axis(places, best, 1), axis=1)


def _in_blocks(rows: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "dim column"]:
    """The rows as columns, with zeros up to a multiple of _BLOCK."""
    columns = np.zeros((rows.shape[1], math.ceil(len(rows) / _BLOCK) * _BLOCK), np.float32)
    columns[:, : len(rows)] = rows.T
    return columns


def _short_units(rows: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Rows of length 1 in float32, which is exact enough to order cosines."""
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _principal_directions(rows: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "dim direction"] | None:
    """The directions that keep most of the inner products; None for rows that are narrow already."""
    from sklearn.utils.extmath import randomized_svd

    if rows.shape[1] <= 2 * _CANDIDATE_DIMENSIONS:
        return None
    sample = rows[_draw(len(rows), 4000)]
    if len(sample) <= _CANDIDATE_DIMENSIONS:
        return None
    _, _, directions = randomized_svd(sample, _CANDIDATE_DIMENSIONS, n_iter=1, random_state=0)  # pyright: ignore[reportArgumentType]
    return np.ascontiguousarray(directions.T.astype(np.float32))


def unit_rows(rows: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Rows of length 1; a zero row stays zero."""
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
