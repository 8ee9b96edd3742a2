"""Damaged copies of a file: any bytes, and what may stand in a JSON file."""

import copy
import json
import os

SEED = int(os.environ.get("FUZZ_SEED", "0"))  # FUZZ_SEED=12345 python -m pytest tests/test_file_fuzz.py: other damage

# Values that are valid JSON and wrong almost everywhere.
ODD_VALUES = (
    None, True, -1, 0, 2, 0.5, 1e308, 10**30, float("nan"), float("inf"), "", "text", "\ud800", "a\nb", [], {}, [[]], ["x"], [1],
    [1, 2, 3], [None], [1e300, 1e300, 1], {"x": 1}, [True, False], "last", "9" * 400,
)  # fmt: skip
DEEP = b"[" * 100_000 + b"]" * 100_000


def damaged_bytes(content, rng):
    """The content with flipped bits, a part cut off, doubled, moved or overwritten, or with bytes that are no text."""
    place, other = (rng.randrange(len(content) + 1) for _ in range(2))
    length = rng.choice((1, 4, 60, 1000))
    kind = rng.randrange(10)
    if kind <= 2 and content:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 8))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 3:
        return content[:place]
    if kind == 4:
        return content * 2
    if kind == 5:
        return content[:place] + content[other : other + length] + content[place:]
    if kind == 6:
        return (
            content[:place]
            + rng.choice((b"\xff\xfe", b"\0" * length, b"\xc3", b"9" * 400, b"-", b"1e999", b"\n"))
            + content[place:]
        )
    if kind == 7:
        return content[:place] + bytes(length) + content[place + length :]
    if kind == 8:
        return content[:place] + content[place + length :]
    return rng.choice((b"", DEEP, b"null", b"\xff" * 100, content[::-1], b"PK\x03\x04", b"\x80\x04N."))


def damaged_json(content, rng):
    """The JSON object with one to three entries of other values, kinds or names, missing or double; or as damaged bytes."""
    if rng.random() < 0.3:
        return damaged_bytes(content, rng)
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = _changed(tree, rng)
    text = json.dumps(tree)
    if rng.random() < 0.05:
        text = text.replace(": ", f': {"[" * 5000}{"]" * 5000}, "again": ', 1)
    return text.encode()


def damaged_lines(content, rng):
    """The same for a file with a JSON object in each line; lines may also be missing, double, or in another order."""
    if rng.random() < 0.3:
        return damaged_bytes(content, rng)
    lines = content.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        del lines[number]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[number])
    elif kind == 2:
        rng.shuffle(lines)
    else:
        lines[number] = damaged_json(lines[number], rng).strip() + b"\n"
    return b"".join(lines)


def _changed(tree, rng):
    places = list(_places(tree))
    if not places or rng.random() < 0.05:
        return rng.choice(ODD_VALUES)
    tree = copy.deepcopy(tree)
    *path, last = rng.choice(places)
    inside = tree
    for key in path:
        inside = inside[key]
    kind = rng.randrange(8)
    if kind == 0:
        del inside[last]
    elif kind == 1 and isinstance(inside, dict):
        inside[f"{last}x"] = inside.pop(last)
    elif kind == 2:
        inside[last] = [inside[last]]
    elif kind == 3:
        inside[last] = str(inside[last])
    elif kind == 4 and isinstance(inside[last], int | float):
        inside[last] = inside[last] * rng.choice((-1, 2, 1e6, 0))
    else:
        inside[last] = rng.choice(ODD_VALUES)
    return tree


def _places(tree, path=()):
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from _places(value, (*path, key))
