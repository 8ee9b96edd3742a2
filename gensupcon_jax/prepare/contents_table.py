"""The contents of a data set as text: tables and findings of at most 100 columns."""

import textwrap

import numpy as np

from gensupcon_jax.data.listing import unlabeled_note
from gensupcon_jax.prepare.contents import Contents, Copies, SplitContents
from gensupcon_jax.report.values import clean, short
from gensupcon_jax.text import aligned, listed

MOST_NAMED = 20  # classes; for more, only the extremes are listed
_MOST_LISTED = 3
_NAME_LENGTH = 24
_WIDTH = 100
_OF_WORDS = ("formats", "fewest has", "most has")  # columns

Rows = list[list[str]]


def table(contents: Contents, copies: Copies) -> str:
    """The tables of splits and of classes, and the findings, as text."""
    parts = [_aligned(split_rows(contents, copies)), _aligned(class_rows(contents))]
    wrong = findings(contents, copies) or ["no problems were found"]
    parts += ["\n".join(_wrapped(sentence) for sentence in (*wrong, *remarks(contents)))]
    return "\n\n".join(parts)


def _wrapped(sentence: str) -> str:
    return textwrap.fill(
        sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _occur(number: int) -> str:
    return "occurs" if number == 1 else "occur"


def split_rows(contents: Contents, copies: Copies) -> Rows:
    """Heading and one row per split: counts, and sizes as height x width; the median is the image with the median area."""
    rows = [["split", "images", "damaged", "copies", "smallest", "median", "largest", "formats"]]
    for split in contents.splits:
        formats = ", ".join(f"{name} {count:,}" for name, count in split.formats.most_common())
        rows.append(
            [
                split_name(split),
                f"{len(split.classes):,}",
                f"{split.num_damaged:,}",
                f"{copies.within[split.split]:,}",
                *_sizes(split.sizes[split.sizes.min(1) > 0]),
                short(formats, 30) or "-",
            ]
        )
    return rows


def split_name(split: SplitContents) -> str:
    """Name of the split, with that of the source in brackets where it differs: test (validation)."""
    return split.split if split.source_name == split.split else short(f"{split.split} ({clean(split.source_name)})", 30)


def _sizes(sizes: np.ndarray) -> list[str]:
    if len(sizes) == 0:
        return ["-"] * 3
    order = sizes.astype(np.int64).prod(1).argsort(kind="stable")
    return [f"{height}x{width}" for height, width in sizes[order[[0, len(order) // 2, -1]]]]


def class_rows(contents: Contents) -> Rows:
    """Heading and number of images per class and split; for many classes, the extremes; of numbers, their range."""
    if contents.label_kind == "value":
        return _value_rows(contents)
    per = "images per label" if contents.label_kind == "several" else "images per class"
    num_classes = len(contents.class_names)
    counts = [split.counts(num_classes) for split in contents.splits]
    if num_classes <= MOST_NAMED:
        head = [per, *(split.split for split in contents.splits)]
        names = [short(clean(name), _NAME_LENGTH) for name in contents.class_names]
        return [
            head,
            *([name, *(f"{each[index]:,}" for each in counts)] for index, name in enumerate(names)),
        ]
    rows = [[per, "fewest", "median", "most", "without", "fewest has", "most has"]]
    for split, each in zip(contents.splits, counts, strict=True):
        extremes = [short(clean(contents.class_names[index]), 18) for index in (each.argmin(), each.argmax())]
        numbers = [f"{each.min():,}", f"{np.median(each):,.0f}", f"{each.max():,}", f"{(each == 0).sum():,}"]
        rows.append([split_name(split), *numbers, *extremes])
    return rows


def _value_rows(contents: Contents) -> Rows:
    rows = [["values", "lowest", "median", "highest"]]
    for split in contents.splits:
        if split.values is not None and len(split.values):
            rows.append([split_name(split), *(f"{each:g}" for each in np.quantile(split.values, (0, 0.5, 1)))])
    return rows


def findings(contents: Contents, copies: Copies) -> list[str]:
    """One sentence per problem, with its remedy."""
    sentences = (*contents.damaged_files, *_damage(contents), *_copies(contents, copies), *_classes(contents))
    return [clean(sentence) for sentence in sentences]


def remarks(contents: Contents) -> list[str]:
    """One sentence per property worth knowing that is not a problem."""
    turned = [
        f"{_count(split.num_turned, 'image')} of {split.split} {_are(split.num_turned)} turned by EXIF and read upright"
        for split in contents.splits
        if split.num_turned
    ]
    return [clean(sentence) for sentence in (*contents.notes, *_unlabeled(contents), *_cuts(contents), *turned)]


def damaged_lines(contents: Contents) -> list[str]:
    """Name and reason of every image that cannot be decoded."""
    return [
        clean(f"{split.where_fn(index)}: {problem}")
        for split in contents.splits
        for index, problem in enumerate(split.problems)
        if problem is not None
    ]


def _damage(contents: Contents) -> list[str]:
    lines = damaged_lines(contents)
    if not lines:
        return []
    total = sum(len(split.problems) for split in contents.splits)
    share = len(lines) / total
    allowed = np.ceil(share * 1000) / 1000
    remedy = f"--config.dataset.skip_damaged=True --config.dataset.max_damaged_share={allowed:g}"
    return [
        f"{len(lines):,} of {_count(total, 'image')} cannot be decoded: {listed(lines, _MOST_LISTED)}. "
        f"Repair or remove them, or skip them with {remedy} (their share is {share:.3g})"
    ]


def _copies(contents: Contents, copies: Copies) -> list[str]:
    sentences = []
    for (first, second), count in copies.across.items():
        if count:
            sentences.append(
                f"{_count(count, 'image')} of {second} {_are(count)} also in {first}, the same bytes: "
                f"{_examples(contents, copies, {first, second})}. Remove them from {first}: {second} must contain "
                "unseen images only"
            )
    for split, count in copies.within.items():
        if count:
            sentences.append(
                f"{_count(count, 'image')} of {split} {_occur(count)} more than once: {_examples(contents, copies, {split})}"
            )
    if copies.two_classes:
        are = "are in two or more classes: correct their labels"
        are = are if contents.label_kind == "class" else "have copies with other labels: correct them"
        sentences.append(f"{copies.two_classes:,} of these images {are}")
    return sentences


def _examples(contents: Contents, copies: Copies, wanted: set[str]) -> str:
    found = []
    for group in copies.examples:
        by_split = {}
        for split, index in group:
            by_split.setdefault(contents.splits[split].split, []).append(contents.splits[split].where_fn(index))
        names = [name for split in by_split if split in wanted for name in by_split[split]]
        if wanted <= set(by_split) and len(names) > 1:
            found.append(" = ".join((names[0], names[-1])))
    return listed(found, _MOST_LISTED) if found else "see the contact sheet"


def _classes(contents: Contents) -> list[str]:
    sentences = []
    num_classes = len(contents.class_names)
    for split in contents.splits:
        beyond = int((split.classes >= num_classes).sum())
        without = int((split.classes < 0).sum())
        if beyond:
            sentences.append(
                f"{_count(beyond, 'label')} of {split.split} {_are(beyond)} {num_classes} or more; allowed for "
                f"{num_classes} classes: 0 to {num_classes - 1}. Correct them"
            )
        if without and split.split != "train" and split.rows is None and not _is_unlabeled(split):
            sentences.append(
                f"{_count(without, 'image')} of {split.split} {'has' if without == 1 else 'have'} no label; "
                "add labels, or choose another split"
            )
    return sentences if contents.label_kind == "value" else sentences + _empty_classes(contents)


def _empty_classes(contents: Contents) -> list[str]:
    """Classes without images in training, and those without images only in an evaluation split."""
    sentences, in_training = [], np.array([], int)
    for split in contents.splits:
        empty = np.flatnonzero(split.counts(len(contents.class_names)) == 0)
        if split.split == "train":
            in_training = empty
        else:
            empty = np.setdiff1d(empty, in_training)
        if len(empty) == 0 or not (split.classes >= 0).any():
            continue
        names = listed([contents.class_names[index] for index in empty], _MOST_LISTED)
        sentence = (
            f"{_count(len(empty), 'class')} {'has' if len(empty) == 1 else 'have'} no images in {split.split}: {names}"
        )
        if split.split == "train":
            sentence += "; add images or remove the class"
            if contents.name.startswith("folder:"):
                sentence += ", or keep it without images: --config.dataset.skip_damaged=True"
        sentences.append(sentence)
    return sentences


def _is_unlabeled(split: SplitContents) -> bool:
    return split.split != "train" and not (split.classes >= 0).any()


def _unlabeled(contents: Contents) -> list[str]:
    whole = [f"{split_name(split)} has no labels and is not used" for split in contents.splits if _is_unlabeled(split)]
    without = sum(
        int((split.classes < 0).sum()) for split in contents.splits if split.split == "train" and split.rows is None
    )
    some = [unlabeled_note(without)] if without else []
    return whole + [note for note in some if note not in contents.notes]


def _cuts(contents: Contents) -> list[str]:
    labeled = [split.split for split in contents.splits if (split.classes >= 0).any()]
    unvalidated = "there is no validation split (dataset.validation_fraction is 0): nothing is chosen by a score"
    if "test" not in labeled and "validation" in labeled:
        becomes = "there is no labeled test split: validation becomes the test split"
        return (
            [f"{becomes}, and a new validation split is cut from train"]
            if contents.is_validated
            else [becomes, unvalidated]
        )
    missing = [split for split in ("validation", "test") if split not in labeled]
    cut = [split for split in missing if split == "test" or contents.is_validated]
    said = [f"there is no {' and no '.join(cut)} split: always the same images are cut from train"] if cut else []
    return said if cut == missing else [*said, unvalidated]


def _aligned(rows: Rows) -> str:
    """Text columns are aligned left, numbers right."""
    return aligned(rows, [0, *(column for column, name in enumerate(rows[0]) if name in _OF_WORDS)])
