"""Contents of the contact sheet of a data set: the classes, images and copies that it shows."""

from gensupcon_jax.prepare.contents import Contents, Copies, SplitContents
from gensupcon_jax.prepare.contents_table import class_rows, damaged_lines, findings, remarks, split_name, split_rows
from gensupcon_jax.report import ContactSheet, Picture

_IMAGES_PER_CLASS = 4
_MOST_CLASSES = 30
_EXTREME_CLASSES = 5
_COPY_GROUPS = 12
_COPIES_SHOWN = 6


def contact_sheet(contents: Contents, copies: Copies, command: str) -> ContactSheet:
    """The contact sheet of a data set: a few images per class, copies side by side, names of damaged images."""
    chosen = shown_classes(contents)
    return ContactSheet(
        title=contents.name,
        command=command,
        facts=[("labels", contents.labels_text), ("location", contents.place)],
        findings=findings(contents, copies),
        remarks=remarks(contents),
        tables=[split_rows(contents, copies), class_rows(contents)],
        splits=[split_name(split) for split in contents.splits],
        classes=[
            (contents.class_names[number], [_pictures(split, number) for split in contents.splits]) for number in chosen
        ],
        classes_left_out=len(contents.class_names) - len(chosen),
        copies=[
            [_picture(contents.splits[split], index) for split, index in group[:_COPIES_SHOWN]]
            for group in copies.examples[:_COPY_GROUPS]
        ],
        damaged=damaged_lines(contents),
    )


def shown_classes(contents: Contents) -> list[int]:
    """All classes; of many, those with the fewest and the most training images, and some evenly spaced between."""
    num_classes = len(contents.class_names)
    if num_classes <= _MOST_CLASSES:
        return list(range(num_classes))
    order = contents.splits[0].counts(num_classes).argsort(kind="stable").tolist()
    extremes = order[:_EXTREME_CLASSES] + order[-_EXTREME_CLASSES:]
    middle = order[_EXTREME_CLASSES:-_EXTREME_CLASSES]
    between = _spread(middle, _MOST_CLASSES - len(extremes))
    return sorted(extremes + between)


def _spread(items: list[int], num: int) -> list[int]:
    """Up to num items, evenly spaced, including the first and the last."""
    if len(items) <= num:
        return items
    return [items[round(place * (len(items) - 1) / (num - 1))] for place in range(num)]


def _pictures(split: SplitContents, number: int) -> list[Picture]:
    of_class = [int(index) for index in split.intact if split.classes[index] == number]
    return [_picture(split, index) for index in _spread(of_class, _IMAGES_PER_CLASS)]


def _picture(split: SplitContents, index: int) -> Picture:
    try:
        pixels = split.pixels_fn(index)
    except (OSError, ValueError):  # removed or changed since it was read: the page reports it
        pixels = None
    return Picture(split.where_fn(index), pixels)
