"""Fingerprints of content: equal for equal bytes."""

import hashlib
from collections.abc import Iterable


def fingerprint(parts: Iterable[str | bytes | memoryview]) -> str:
    """16 hexadecimal digits of the SHA-256 of the concatenated parts."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.encode() if isinstance(part, str) else part)
    return content.hexdigest()[:16]
