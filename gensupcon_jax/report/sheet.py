"""Some training images, their views and their labels."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from gensupcon_jax.report.colors import NAMED_CLASSES, class_style
from gensupcon_jax.report.data import ReportData, class_names
from gensupcon_jax.report.thumbnails import picture_uri
from gensupcon_jax.report.values import clean, short

SHEET_IMAGES = 12
SHEET_PIXELS = 112  # the longer side of a stored picture, to keep the file small


def sheet_section(data: ReportData) -> dict[str, Any] | str:
    """The pictures with their labels, or why they are not shown."""
    if data.view_images is None or not data.view_images.size:
        return "The run has no augmented images."
    names, share_names = class_names(data), [clean(name) for name in data.label_names] or class_names(data)
    count, views, *_, channels = data.view_images.shape
    shown = min(count, SHEET_IMAGES)
    num_local = 0 if data.local_images is None else data.local_images.shape[1]
    return {
        "groups": [
            [_original(data, names, row), *_views(data, share_names, row), *_local_views(data, share_names, row)]
            for row in range(shown)
        ],
        "shown": shown,
        "columns": views + 1 + num_local,
        "has_local": num_local > 0,
        "has_labels": data.view_labels is not None,
        "one_channel_of": channels if channels not in (1, 3) else None,
    }


def _original(data: ReportData, names: Sequence[str], row: int) -> dict[str, Any]:
    image = None if data.original_images is None else data.original_images[row]
    label = "" if data.original_labels is None else _label(names, int(data.original_labels[row]))
    return _cell("original", image, label=label)


def _label(names: Sequence[str], number: int) -> str:
    return short(names[number]) if number >= 0 else "no label"


def _views(data: ReportData, names: Sequence[str], row: int) -> Iterator[dict[str, Any]]:
    for view, image in enumerate([] if data.view_images is None else data.view_images[row]):
        shares = [] if data.view_labels is None else label_shares(data.view_labels[row, view], names)
        yield _cell(f"view {view + 1}", image, shares)


def _local_views(data: ReportData, names: Sequence[str], row: int) -> Iterator[dict[str, Any]]:
    """The local views, drawn as much smaller than the views as they are."""
    if data.local_images is None or data.view_images is None:
        return
    percent = max(1, round(100 * data.local_images.shape[2] / data.view_images.shape[2]))
    for view, image in enumerate(data.local_images[row]):
        shares = [] if data.local_labels is None else label_shares(data.local_labels[row, view], names)
        yield _cell(f"local {view + 1}", image, shares, percent=percent)


def _cell(
    title: str,
    image: np.ndarray | None,
    shares: Sequence[dict[str, Any]] = (),
    *,
    label: str = "",
    percent: int = 100,
) -> dict[str, Any]:
    """A picture with what is written at it; percent: of the width of the column."""
    picture = None if image is None else picture_uri(image, SHEET_PIXELS)
    return {"title": title, "picture": picture, "label": label, "shares": shares, "percent": percent}


def label_shares(label: Float[np.ndarray, " class"], names: Sequence[str], top: int = 3) -> list[dict[str, Any]]:
    """The largest shares (in percent) of one label distribution, and the rest as one row."""
    if not np.isfinite(label).all():
        return [_share("not finite", 0.0, "k-bad")]
    order = [int(index) for index in np.argsort(-label, kind="stable")[:top] if label[index] >= 0.01]
    # Few classes have the colors of the map; with many, the rank gives the color.
    styles = [class_style(index if len(names) <= NAMED_CLASSES else rank) for rank, index in enumerate(order)]
    rows = [_share(names[index], float(label[index]), style) for index, style in zip(order, styles, strict=True)]
    rest = float(label.sum() - label[order].sum())
    rows += [_share("all others", rest, "others")] if abs(rest) >= 0.005 else []
    missing = 1.0 - float(label.sum())
    return rows + ([_share("no label", missing, "others")] if missing >= 0.005 else [])


def _share(name: str, share: float, style: str) -> dict[str, Any]:
    percent = round(100 * share)
    return {"name": short(name), "percent": percent, "width": min(100, max(0, percent)), "style": style}
