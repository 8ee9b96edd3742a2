"""Executes launch/colab.ipynb and stores its outputs in it, so that it shows pictures where it is only read.

    python -m docs.notebook

The parts that need an accelerator or a folder of yours stay without outputs. The notebook keeps a fingerprint of the cells
that were executed: a test fails when one of them has changed since.
"""

import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat

from gensupcon_jax.fingerprints import fingerprint

NOTEBOOK = Path(__file__).parent.parent / "launch/colab.ipynb"
EXECUTED = ("install", "digits")  # tags
_KEY = "executed_cells"


def executed_cells(notebook: Any) -> list[Any]:
    """The cells whose outputs are stored."""
    return [cell for cell in notebook.cells if set(EXECUTED) & set(cell.metadata.get("tags", ()))]


def sources_fingerprint(notebook: Any) -> str:
    """Of the cells that are executed."""
    return fingerprint(f"{cell.id}\n{cell.source}\n" for cell in executed_cells(notebook))


def stored_fingerprint(notebook: Any) -> str | None:
    """That of the cells whose outputs the notebook has."""
    return notebook.metadata.get(_KEY)


def execute(notebook: Any, folder: Path, timeout: int) -> None:
    """Run the cells in this folder, and put their outputs into the notebook: what they print to the user, and pictures."""
    part: Any = nbformat.from_dict({**notebook, "cells": executed_cells(notebook)})
    client = nbclient.NotebookClient(
        part, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, record_timing=False
    )
    client.execute()
    ran = {cell.id: cell for cell in part.cells}
    for cell in executed_cells(notebook):
        cell.execution_count = ran[cell.id].execution_count
        # Progress bars and warnings of the machine are on stderr.
        cell.outputs = [output for output in ran[cell.id].outputs if output.get("name") != "stderr"]
    notebook.metadata[_KEY] = sources_fingerprint(notebook)


def main() -> None:
    """Execute the notebook, and write it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, Path(folder), timeout=3600)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
