"""The committed results: one JSON object per line and run, never changed."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evidence.plans import Wanted

FOLDER = Path("docs/evidence")


def path_of(plan: str, folder: Path = FOLDER) -> Path:
    """The file of a plan's lines."""
    return folder / f"{plan}.jsonl"


def read_lines(plan: str, folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The lines of a plan; none where there is no file."""
    path = path_of(plan, folder)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def append_line(plan: str, line: dict[str, Any], folder: Path = FOLDER) -> None:
    """Add the line of a finished run."""
    path = path_of(plan, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def wanted_of(line: dict[str, Any]) -> Wanted:
    """The run that a line is of."""
    return Wanted(line["method"], line["budget"], line["seed"], line["rate"])


def finished(lines: Iterable[dict[str, Any]]) -> dict[Wanted, dict[str, Any]]:
    """Run -> its line."""
    return {wanted_of(line): line for line in lines}


def packed(correct: np.ndarray) -> str:
    """Booleans [image] as text."""
    return base64.b64encode(np.packbits(correct)).decode()


def unpacked(text: str, num_images: int) -> np.ndarray:
    """The booleans [image] of a text of `packed`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=num_images).astype(bool)
