"""Fingerprints of content: equal for equal bytes."""

import hashlib
from collections.abc import Iterable


def fingerprint(parts: Iterable[str | bytes | memoryview]) -> str:
    """16 hexadecimal digits of the SHA-256 of the concatenated parts."""
    content = hashlib.sha256()
    for part in parts:
        # A file's name need not be UTF-8: its other bytes are surrogates in a str.
        content.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part)
    return content.hexdigest()[:16]
