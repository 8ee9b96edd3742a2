"""The images of a set that are most similar to a query, by the cosine of their features."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gensupcon_jax.evaluation.knn import nearest
from gensupcon_jax.text import visible


class Neighbor(NamedTuple):
    """An image of the set: its path, and the cosine of its features and those of the query, -1..1."""

    path: str
    cosine: float


class QueryResult(NamedTuple):
    """The neighbors of a query, the nearest first; is_in_set: whether its own file was in the set, and was left out."""

    path: str
    neighbors: list[Neighbor]
    is_in_set: bool


def search(
    queries: tuple[Sequence[str], Float[np.ndarray, "query feature"]],
    stored: tuple[Sequence[str], Float[np.ndarray, "image feature"]],
    num_neighbors: int,
) -> list[QueryResult]:
    """The nearest images of a set for each query; queries, stored: the paths of the images and their features.

    A query whose own file is in the set is not its own neighbor. A copy of it under another name is one, with cosine 1.
    """
    query_paths, query_features = queries
    paths, features = stored
    num = min(num_neighbors + 1, len(paths))  # one more, as the query itself may be among them
    cosines, indices = (np.asarray(part) for part in nearest(query_features, features, num))
    own = {os.path.realpath(path): place for place, path in enumerate(paths)}
    results = []
    for path, row_cosines, row in zip(query_paths, cosines, indices, strict=True):
        itself = own.get(os.path.realpath(path))
        found = [
            Neighbor(paths[int(place)], float(cosine))
            for place, cosine in zip(row, row_cosines, strict=True)
            if place != itself
        ]
        results.append(QueryResult(path, found[:num_neighbors], itself is not None))
    return results


def results_text(results: Sequence[QueryResult]) -> str:
    """A table for each query: rank, cosine, file."""
    return "\n\n".join(_table(result) for result in results)


def _table(result: QueryResult) -> str:
    itself = " (its own file is in the set, and left out)" if result.is_in_set else ""
    width = max([len("rank"), len(str(len(result.neighbors)))])
    lines = [f"{visible(result.path)}{itself}", f"{'rank':>{width}}  cosine  file"]
    for rank, (path, cosine) in enumerate(result.neighbors, start=1):
        lines.append(f"{rank:>{width}}  {cosine:>6.3f}  {visible(path)}")
    if not result.neighbors:
        return f"{lines[0]}: there is no other image"
    return "\n".join(lines)
