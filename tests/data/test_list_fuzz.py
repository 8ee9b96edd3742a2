"""Lists with random damage: each ends in what a naive reader finds in it, or in one line that names the file or the place."""

import csv
import io

import numpy as np
import pytest

from gensupcon_jax.data import lists
from gensupcon_jax.errors import UserError
from tests.encoded import encode, picture
from tests.mutations import SEED

NAMES = tuple(f"{letter}.png" for letter in "abcdefgh")
WHOLE = "path,label,split\n" + "".join(
    f"{name},{'xyz'[n % 3]},{('train', 'test')[n > 5]}\n" for n, name in enumerate(NAMES)
)
SOFT = "path,cat,dog\n" + "".join(f"{name},{n / 8},{1 - n / 8}\n" for n, name in enumerate(NAMES))
AGES = "path,value\n" + "".join(f"{name},{n * 1.5}\n" for n, name in enumerate(NAMES))
TAGS = "path,tags\n" + "".join(f"{name},{'x|y' if n % 2 else 'y;z'}\n" for n, name in enumerate(NAMES))
ODD = (*'",;\t\n\r\0\\|~/-.1é ', "nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(encode(picture(number, number, (4, 4)), "PNG"))
    return folder


def damaged(text, rng):
    """The text as bytes after one to three changes."""
    content = text.encode()
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(0, len(content) + 1))
        lines = content.splitlines(keepends=True)
        kind = rng.integers(0, 7)
        if kind == 0:
            content = content[:place] + ODD[rng.integers(len(ODD))].encode() + content[place:]
        elif kind == 1:
            content = content[:place] + content[place + int(rng.integers(1, 5)) :]
        elif kind == 2:
            content = content[:place] + bytes([rng.integers(256)]) + content[place + 1 :]
        elif kind == 3 and lines:
            content = b"".join(np.array(lines, object)[rng.integers(0, len(lines), len(lines))])
        elif kind == 4 and lines:
            del lines[rng.integers(len(lines))]
            content = b"".join(lines)
        elif kind == 5:
            content = content.replace(b",", ODD[rng.integers(2, 4)].encode(), int(rng.integers(1, 30)))
        else:
            content = content[:place]
    return content


def naive(content):
    """Name of each image -> its label, by Python's own reader of tables."""
    text = content.decode("utf-8-sig")
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    return {
        row["path"].strip(): (row["label"] or "").strip() for row in rows if row.get("path") and row["path"].strip()
    }


@pytest.mark.parametrize(("text", "kind"), [(WHOLE, "class"), (SOFT, "class"), (AGES, "value"), (TAGS, "several")])
def test_a_damaged_list_is_read_as_it_stands_or_refused_in_one_line(folder, text, kind):
    rng = np.random.default_rng(len(text) + SEED)
    ends = {"read": 0, "refused": 0, "compared": 0}
    file = folder / "list.csv"
    for _ in range(250):
        content = damaged(text, rng)
        file.write_bytes(content)
        try:
            found = lists.list_images("csv", str(file), lists.ListSettings(label_kind=kind))
        except UserError as error:
            ends["refused"] += 1
            message = str(error)
            assert "\n" not in message and message.isprintable()
            assert any(word in message for word in (str(file), "line ", "column ", "dataset.")), message
            continue
        ends["read"] += 1
        for listing in found.listings.values():
            assert listing.classes.min() >= -1 and listing.classes.max() < len(found.class_names)
            assert listing.problems == [None] * len(listing.classes)  # every file that is listed is there
        if content.startswith(b"path,label,split\n"):
            ends["compared"] += 1
            labels = naive(content)
            for listing in found.listings.values():
                for number, label in enumerate(listing.classes):
                    name = listing.where_fn(number).rpartition("/")[2]
                    assert labels[name] == (found.class_names[label] if label >= 0 else "")
    assert min(ends["read"], ends["refused"]) > 20
    assert text != WHOLE or ends["compared"] > 20
