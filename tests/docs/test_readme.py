"""The README's Python blocks run as they are printed, and it stays short."""

import re

import numpy as np
import pytest
from PIL import Image

from tests import ROOT
from tests.tiny import tiny_config, tiny_dataset

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_your_own_images_then_the_encoder(tmp_path, monkeypatch):
    split = tiny_dataset().train
    np.save(tmp_path / "images.npy", split.images)
    np.save(tmp_path / "labels.npy", split.labels.argmax(1))
    monkeypatch.chdir(tmp_path)
    small = tiny_config(steps=2)
    monkeypatch.setattr("gensupcon_jax.configs.digits.get_config", lambda: small)
    names = {}
    exec(BLOCKS[0], names)  # the README is ours
    assert names["results"]["dataset"] == "arrays"
    assert (tmp_path / "runs/arrays/report.html").exists()

    (tmp_path / "runs/arrays").rename(tmp_path / "runs/photos")
    (tmp_path / "holiday").mkdir()
    for number, image in enumerate(split.images[:3]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"holiday/{number}.png")
    exec(BLOCKS[1], names)
    assert names["features"].shape == (3, 16)  # four times the width of the first stage
    assert names["features"].dtype == np.float32
    assert len(names["classes"]) == 3


def test_only_the_loss():
    names = {}
    exec(BLOCKS[2], names)
    # Random embeddings know nothing of the labels: about log(63 contrasts), and more as temperature 0.1 sharpens the softmax.
    assert np.log(63) < float(names["loss"]) < np.log(63) + 1


def test_it_fits_on_two_screens():
    assert len(README.splitlines()) <= 140
    assert len(BLOCKS) == 3


def test_the_pages_show_the_same_examples():
    assert BLOCKS[0] in (ROOT / "docs/your_images.md").read_text()


def test_the_numbers_of_what_it_gains_are_those_of_the_page_of_evidence():
    section = README[README.index("## What it gains") : README.index("## Install")]
    page = (ROOT / "docs/evidence.md").read_text()
    numbers = re.findall(r"\d+\.\d+", section)
    assert len(numbers) == 13
    assert set(numbers) <= set(re.findall(r"\d+\.\d+", page))
