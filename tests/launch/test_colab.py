"""launch/colab.ipynb: the digits part runs as it stands, and shows its pictures."""

import base64
import io
import os

import matplotlib.image
import nbclient
import nbformat
import pytest

from tests import ROOT

NOTEBOOK = ROOT / "launch/colab.ipynb"


def cells(notebook, *tags):
    return [cell for cell in notebook.cells if set(tags) & set(cell.metadata.get("tags", ()))]


@pytest.fixture
def notebook():
    read = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(read)
    return read


def test_every_cell_of_code_belongs_to_a_part_and_has_no_output(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code == cells(notebook, "install", "digits", "accelerator", "own")
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    for cell in code:
        compile(cell.source, NOTEBOOK.name, "exec")


@pytest.mark.slow
def test_the_digits_part_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # one device, and optimized: the recipe's own network trains here
    notebook.cells = cells(notebook, "install", "digits")
    (parameters,) = cells(notebook, "parameters")
    parameters.source = "STEPS = 10\nRUNS = 'runs'"
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]

    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "linear probe on frozen features" in printed
    pictures = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(output.data["image/png"])))
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 5  # of the report, and the neighbors
    assert all(picture[..., :3].std() > 0.01 for picture in pictures)  # none is blank
    (views,) = (output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    assert views.count('title="original"') == views.count('title="view 2"') > 5
    assert (tmp_path / "runs/digits/report.html").exists()
    # The neighbors: six test images with eight training images each.
    assert notebook.cells[-1].outputs[-1].output_type == "display_data"
    if "SAVE_NOTEBOOK" in os.environ:  # to look at it
        nbformat.write(notebook, os.environ["SAVE_NOTEBOOK"])
