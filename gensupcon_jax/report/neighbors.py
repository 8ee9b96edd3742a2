"""The nearest training images of some test images, as pictures."""

from typing import Any

import numpy as np
from jaxtyping import Int

from gensupcon_jax.report.data import ReportData, class_names
from gensupcon_jax.report.nearest import Nearest
from gensupcon_jax.report.thumbnails import pictures_of
from gensupcon_jax.report.values import short

_SHOWN_IMAGES = 10
_SHOWN_NEIGHBORS = 6
_WIDE_WORD = 8  # letters that fit below a neighbor on a laptop; longer ones are written smaller


def neighbors_section(data: ReportData, nearest: Nearest | None) -> dict[str, Any] | str:
    """Some test images with their neighbors, or why they are not shown; nearest: of the test images among training."""
    if nearest is None or not nearest.stored.size:
        return "The run has no features of its training images."
    of_values = data.test_values is not None  # which agree by degrees
    test, train, names = data.splits["test"], data.splits["train"], class_names(data)
    places = shown_places(test.classes[nearest.queries])
    numbers, neighbors = nearest.queries[places], nearest.stored[places, :_SHOWN_NEIGHBORS]
    pictures = pictures_of(test, numbers.tolist()), pictures_of(train, neighbors.ravel().tolist())
    rows = []
    for place, number, found in zip(places, numbers.tolist(), neighbors.tolist(), strict=True):
        label = test.classes[number]
        rows.append(
            {
                "picture": pictures[0][number],
                "label": short(names[label]),
                "is_long": _is_long(names[label]),
                "name": test.title_of(number),
                "neighbors": [
                    {
                        "picture": pictures[1][other],
                        "label": short(names[train.classes[other]]),
                        "is_long": _is_long(names[train.classes[other]]),
                        "name": train.title_of(other),
                        "cosine": f"{nearest.cosines[place, rank]:.2f}",
                        "agrees": of_values or bool(train.classes[other] == label),
                    }
                    for rank, other in enumerate(found)
                ],
            }
        )
    agree = train.classes[nearest.stored[:, 0]] == test.classes[nearest.queries]
    found = {"rows": rows, "agree": f"{100 * agree.mean():.1f}", "columns": neighbors.shape[1]}
    return found | {"of_values": of_values}


def _is_long(label: str) -> bool:
    return max(map(len, short(label).split()), default=0) > _WIDE_WORD


def shown_places(classes: Int[np.ndarray, " query"]) -> Int[np.ndarray, " shown"]:
    """Places of the shown images: of evenly spaced classes, one image each (fixed seed), then more at random."""
    present = np.unique(classes)
    chosen = present[np.linspace(0, len(present) - 1, min(len(present), _SHOWN_IMAGES)).round().astype(int)]
    shuffled = np.random.default_rng(0).permutation(len(classes))
    first = [shuffled[classes[shuffled] == number][0] for number in chosen]
    rest = shuffled[~np.isin(shuffled, first)][: _SHOWN_IMAGES - len(first)]
    return np.concatenate([first, rest]).astype(np.int64)
