"""Suspicious labels on the page, and as a table beside it."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from gensupcon_jax.report.data import ReportData, class_names
from gensupcon_jax.report.suspicious import SuspiciousLabel
from gensupcon_jax.report.thumbnails import pictures_of
from gensupcon_jax.report.values import ending, short

SUSPICIOUS_FILE = "suspicious_labels.csv"  # beside the report
_SHOWN = 12
_SHOWN_NEIGHBORS = 4


def suspicious_section(
    data: ReportData, found: Sequence[SuspiciousLabel] | None, asked: dict[str, int]
) -> dict[str, Any] | str:
    """The clearest cases as pictures; asked: number of images of each split that were examined."""
    if found is None:
        return "The run has no features of its training images."
    names, shown = class_names(data), found[:_SHOWN]
    wanted: dict[str, list[int]] = {name: [] for name in data.splits}
    for each in shown:
        wanted[each.split].append(each.image)
        wanted["train"] += each.neighbors[:_SHOWN_NEIGHBORS].tolist()
    pictures = {name: pictures_of(data.splits[name], numbers) for name, numbers in wanted.items()}
    train = data.splits["train"]
    return {
        "file": SUSPICIOUS_FILE,
        "count": len(found),
        "asked": [(name, count, len(data.splits[name].classes)) for name, count in asked.items()],
        "rows": [
            {
                "picture": pictures[each.split][each.image],
                "name": data.splits[each.split].title_of(each.image),
                "file": ending(data.splits[each.split].title_of(each.image)),
                "split": each.split,
                "label": short(names[each.label]),
                "neighbors_label": short(names[each.neighbors_label]),
                "percent": round(100 * each.share),
                "neighbors": [
                    {
                        "picture": pictures["train"][number],
                        "label": short(names[train.classes[number]]),
                        "name": train.title_of(number),
                    }
                    for number in each.neighbors[:_SHOWN_NEIGHBORS].tolist()
                ],
            }
            for each in shown
        ],
    }


def suspicious_table(data: ReportData, found: Sequence[SuspiciousLabel]) -> str:
    """All cases as CSV, the clearest first: image (file, or number in the split), split, both labels, share (0..1)."""
    names = class_names(data)
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(("image", "split", "label", "neighbors_label", "share"))
    for each in found:
        image = data.splits[each.split].name_of(each.image) or each.image
        table.writerow((image, each.split, names[each.label], names[each.neighbors_label], f"{each.share:.3f}"))
    return stream.getvalue()
