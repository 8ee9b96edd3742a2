"""Near-duplicates on the page, and as a table beside it."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from gensupcon_jax.report.data import ReportData, class_names
from gensupcon_jax.report.duplicates import NearDuplicate
from gensupcon_jax.report.thumbnails import pictures_of
from gensupcon_jax.report.values import ending, short

DUPLICATES_FILE = "near_duplicates.csv"  # beside the report
_SHOWN = 12


def duplicates_section(data: ReportData, found: Sequence[NearDuplicate] | None) -> dict[str, Any] | str:
    """The pairs as pictures, or why they are not shown."""
    if found is None:
        return "The run has no features of its training images."
    names, shown = class_names(data), found[:_SHOWN]
    wanted: dict[str, list[int]] = {name: [] for name in data.splits}
    for pair in shown:
        for name, number in zip(pair.splits, pair.images, strict=True):
            wanted[name].append(number)
    pictures = {name: pictures_of(data.splits[name], numbers) for name, numbers in wanted.items()}

    def shown_image(split: str, number: int) -> dict[str, Any]:
        return {
            "picture": pictures[split][number],
            "split": split,
            "label": short(names[data.splits[split].classes[number]]),
            "name": data.splits[split].title_of(number),
            "file": ending(data.splits[split].title_of(number)),
        }

    return {
        "file": DUPLICATES_FILE,
        "count": len(found),
        "tested": len({pair.images[0] for pair in found if pair.splits[0] == "test"}),
        "rows": [
            {
                "images": [shown_image(*each) for each in zip(pair.splits, pair.images, strict=True)],
                "difference": "identical pixels" if pair.difference == 0 else f"pixels differ by {pair.difference:.1f} of 255",
            }
            for pair in shown
        ],
    }  # fmt: skip


def duplicates_table(data: ReportData, found: Sequence[NearDuplicate]) -> str:
    """All pairs as CSV: split, image (file, or number in the split) and label of both, cosine, pixel difference (0..255)."""
    names = class_names(data)
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    sides = ("first", "second")
    columns = [f"{side}_{column}" for side in sides for column in ("split", "image", "label")]
    table.writerow((*columns, "cosine", "pixel_difference"))
    for pair in found:
        cells: list[Any] = []
        for split, number in zip(pair.splits, pair.images, strict=True):
            part = data.splits[split]
            cells += [split, part.name_of(number) or number, names[part.classes[number]]]
        table.writerow((*cells, f"{pair.cosine:.5f}", f"{pair.difference:.2f}"))
    return stream.getvalue()
