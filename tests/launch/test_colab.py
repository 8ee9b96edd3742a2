"""launch/colab.ipynb: its outputs are those of its cells, it runs as it stands, and it says what it replaces."""

import base64
import importlib.metadata
import io
import re
import subprocess
import sys
import tomllib
import types

import matplotlib.image
import nbformat
import numpy as np
import pytest

import gensupcon_jax
from docs.notebook import NOTEBOOK, execute, executed_cells, sources_fingerprint, stored_fingerprint
from tests import ROOT
from tests.encoded import write_folder


def cells(notebook, *tags):
    return [cell for cell in notebook.cells if set(tags) & set(cell.metadata.get("tags", ()))]


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def printed(notebook):
    return "".join(output.text for output in outputs_of(notebook) if output.output_type == "stream")


def pictures(notebook):
    found = [output.data["image/png"] for output in outputs_of(notebook) if "image/png" in output.get("data", {})]
    return [matplotlib.image.imread(io.BytesIO(base64.b64decode(picture))) for picture in found]


@pytest.fixture
def notebook():
    read = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(read)
    return read


def test_every_cell_of_code_belongs_to_a_part(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code == cells(notebook, "install", "digits", "accelerator", "own")
    for cell in code:
        compile(cell.source, NOTEBOOK.name, "exec")


def test_the_outputs_are_those_of_these_cells(notebook):
    assert stored_fingerprint(notebook) == sources_fingerprint(notebook), "run: python -m docs.notebook"
    executed = executed_cells(notebook)
    assert [cell.execution_count for cell in executed] == list(range(1, len(executed) + 1))
    for cell in cells(notebook, "accelerator", "own"):
        assert cell.execution_count is None and cell.outputs == []
    executed[-1].source += "\n"
    assert stored_fingerprint(notebook) != sources_fingerprint(notebook)


def test_a_reader_sees_pictures_and_numbers(notebook):
    found = pictures(notebook)
    assert len(found) == 5  # views, curves, mistakes, map, neighbors
    assert all(picture[..., :3].std() > 0.01 and picture.shape[1] > 300 for picture in found)
    assert re.search(r"linear probe on frozen features   9\d\.\d\d %", printed(notebook))
    assert "Encoder('runs/digits', step" in printed(notebook)
    assert not any(output.output_type == "error" for output in outputs_of(notebook))
    assert "/tmp" not in printed(notebook) and "/home" not in printed(notebook)
    assert NOTEBOOK.stat().st_size < 1_000_000


def run_cell(cell, **variables):
    exec(compile(cell.source, NOTEBOOK.name, "exec"), variables)


def test_the_install_names_what_it_replaces(notebook, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    images = [
        {"numpy": "2.0.2", "jax": "0.7.2", "pip": "24.1"},
        {"numpy": "2.4.6", "jax": "0.10.2", "pip": "24.1", "optax": "1"},
    ]
    packages = iter([[types.SimpleNamespace(name=name, version=each[name]) for name in each] for each in images])
    commands = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: next(packages))
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    (cell,) = cells(notebook, "install")
    with pytest.raises(SystemExit, match="Write the address of the repository"):
        run_cell(cell)
    cell.source = cell.source.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.com/code"')
    run_cell(cell)
    assert commands[0][:2] == ["git", "clone"] and commands[1][1:4] == ["-m", "pip", "install"]
    assert "Replaced packages of this image: jax 0.7.2 -> 0.10.2, numpy 2.0.2 -> 2.4.6\n" in capsys.readouterr().out


def test_the_packages_that_are_named_are_those_that_the_install_may_replace(notebook):
    (text,) = (cell.source for cell in notebook.cells if cell.source.startswith("## Install"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["tensorflow"]]
    needed = {re.split(r"[^A-Za-z0-9_-]", name)[0].lower() for name in asked} | {"jaxlib", "numpy"}  # of jax
    named = re.findall(r"[a-z][a-z-]+", text.split("needed: ")[1].split(", whose")[0].replace(" and ", ", ").lower())
    assert set(named) <= needed
    assert {"jax", "flax", "optax", "numpy", "scikit-learn", "pillow", "tensorflow"} <= set(named)


def test_it_ends_with_a_download_where_there_is_colab(notebook, monkeypatch):
    downloads = []
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(download=downloads.append)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    last = notebook.cells[-1]
    last.source = last.source[last.source.index('if "google.colab"') :]
    run_cell(last, sys=sys)
    assert downloads == ["embeddings.npz"]


@pytest.mark.slow
def test_the_digits_part_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # one device, and optimized: the recipe's own network trains here
    (parameters,) = cells(notebook, "parameters")
    parameters.source = "STEPS = 10\nRUNS = 'runs'"
    for cell in executed_cells(notebook):
        cell.outputs = []
    execute(notebook, tmp_path, timeout=300)
    assert "linear probe on frozen features" in printed(notebook)
    found = pictures(notebook)
    assert len(found) == 5 and all(picture[..., :3].std() > 0.01 for picture in found)
    assert (tmp_path / "runs/digits/report.html").exists()
    with np.load(tmp_path / "embeddings.npz") as saved:
        assert saved["embeddings"].shape == (540, 64) and saved["embeddings"].std() > 0
        assert saved["names"][-1] == "test image 539"
    assert "540 images, 64 numbers each: embeddings.npz" in printed(notebook)


@pytest.mark.slow
def test_the_part_on_your_own_images_chooses_as_the_command_does(notebook, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path, splits={"pets": 6})
    (cell,) = cells(notebook, "own")
    shown = []
    names = {"show_curves": shown.append, "show_neighbors": lambda *arguments: shown.append(arguments)}
    run_cell(cell, gsc=gensupcon_jax, RUNS="runs", STEPS=2, **names)
    said = capfd.readouterr()
    assert "chosen for folder:pets on " in said.err
    assert "test accuracy on 5 images of folder:pets" in said.out
    folder, (encoder, images, folders) = shown
    assert (folder, encoder.source, encoder.image_shape) == ("runs/own", "runs/own", (32, 32, 3))
    assert (len(images), images[0], folders[0]) == (24, "pets/ash/000.jpg", "ash")
