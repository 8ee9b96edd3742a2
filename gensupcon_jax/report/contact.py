"""The contact sheet of a data set: a few images per class and split, copies side by side, and damaged images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from gensupcon_jax.paths import Path
from gensupcon_jax.report.page import template, write_page
from gensupcon_jax.report.thumbnails import picture_uri
from gensupcon_jax.report.values import clean, printable, short

MARK = "gensupcon_jax.prepare"  # in every contact sheet, to recognize it
_DAMAGED_LINES = 200


class Picture(NamedTuple):
    """An image and its name; pixels None: it could not be read."""

    name: str
    pixels: UInt8[np.ndarray, "height width channel"] | None


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """The contents of the page.

    facts: (name, value) under the title.  findings: one sentence per problem.  remarks: other sentences.  tables: each with its
    heading first.  classes: (name of the class, pictures of each of `splits`).  classes_left_out: number of classes that are
    not shown.  copies: groups of identical images.  damaged: one line per image that cannot be decoded.
    """

    title: str
    command: str
    facts: Sequence[tuple[str, str]]
    findings: Sequence[str]
    remarks: Sequence[str]
    tables: Sequence[Sequence[Sequence[str]]]
    splits: Sequence[str]
    classes: Sequence[tuple[str, Sequence[Sequence[Picture]]]]
    classes_left_out: int = 0
    copies: Sequence[Sequence[Picture]] = ()
    damaged: Sequence[str] = ()


def write_contact_sheet(path: str | Path, sheet: ContactSheet) -> None:
    """Write the page to `path` atomically."""
    write_page(path, render_contact_sheet(sheet))


def render_contact_sheet(sheet: ContactSheet) -> str:
    """The page as HTML text, with every name and sentence escaped."""
    return template("contact.html").render(
        mark=MARK,
        title=clean(sheet.title),
        command=printable(sheet.command).strip(),
        facts=[(clean(name), clean(value)) for name, value in sheet.facts],
        findings=[clean(sentence) for sentence in sheet.findings],
        remarks=[clean(sentence) for sentence in sheet.remarks],
        tables=[[[clean(cell) for cell in row] for row in rows] for rows in sheet.tables],
        splits=[clean(split) for split in sheet.splits],
        classes=[
            (short(clean(name)), [[_shown(each) for each in part] for part in parts]) for name, parts in sheet.classes
        ],
        left_out=sheet.classes_left_out,
        copies=[[_shown(each) for each in group] for group in sheet.copies],
        damaged=[clean(line) for line in sheet.damaged[:_DAMAGED_LINES]],
        more_damaged=max(0, len(sheet.damaged) - _DAMAGED_LINES),
    )


def _shown(picture: Picture) -> dict[str, str | None]:
    return {
        "name": clean(picture.name),
        "uri": None if picture.pixels is None else picture_uri(picture.pixels),
    }
