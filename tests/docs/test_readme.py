"""The README's Python blocks run as they are printed."""

import re

import numpy as np
import pytest

from tests import ROOT
from tests.tiny import tiny_config, tiny_dataset

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_your_own_images(tmp_path, monkeypatch):
    split = tiny_dataset().train
    np.save(tmp_path / "images.npy", split.images)
    np.save(tmp_path / "labels.npy", split.labels.argmax(1))
    monkeypatch.chdir(tmp_path)
    small = tiny_config(steps=2)
    monkeypatch.setattr("gensupcon_jax.configs.digits.get_config", lambda: small)
    names = {}
    exec(BLOCKS[0], names)  # the README is ours
    assert names["results"]["dataset"] == "arrays"
    assert (tmp_path / "runs/mine/report.html").exists()


def test_your_own_training_loop():
    names = {}
    exec(BLOCKS[1], names)
    first = names["loss_fn"](0.1 * np.ones((20, 8), np.float32), names["images"], names["labels"])
    assert float(names["loss"]) < float(first) - 0.5


@pytest.mark.parametrize("name", re.findall(r"^ {6}(\w+(?:\.py|/))", README, re.MULTILINE))
def test_the_map_names_files_that_are_there(name):
    assert (ROOT / "gensupcon_jax" / name).exists()
