"""End with a sentence where this Python cannot run the tests: they need TensorFlow, which has no wheel for 3.14."""

import platform
import sys

FIRST, LAST = (3, 11), (3, 13)

if not FIRST <= sys.version_info[:2] <= LAST:
    newer = (
        " The package without its extra `tensorflow` may run on newer ones: pip install ."
        if sys.version_info[:2] > LAST
        else ""
    )
    sys.exit(
        f"Python 3.11, 3.12 or 3.13 is needed; found {platform.python_version()}.{newer} "
        "Say which one to use: make PYTHON=python3.12"
    )
