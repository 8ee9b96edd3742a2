"""Where the tests find what they test, and the reference values."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "tests/data"
