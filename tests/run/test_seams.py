"""Entries added to the tables from outside the package train without other changes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax import losses
from gensupcon_jax.data import datasets
from gensupcon_jax.method import optimizer
from gensupcon_jax.run import train
from tests.tiny import tiny_config, tiny_dataset

SETTINGS = {
    "steps": 3,
    "log_steps": 1,
    "evaluate.every_epochs": 0.0,
    "evaluate.linear_probe": False,
    "mix.kind": "none",
}


@pytest.fixture
def _everybody_is_similar(monkeypatch):
    monkeypatch.setitem(losses.LABEL_SIMILARITIES, "everybody", lambda labels: jnp.ones((len(labels), 1)))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("_everybody_is_similar")
def test_a_source_an_optimizer_and_a_similarity_of_labels_train_together(monkeypatch, tmp_path):
    def signs(schedule, fields):
        return optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(schedule))

    monkeypatch.setitem(datasets.SOURCES, "blobs:<classes>", lambda rest, _: tiny_dataset(num_classes=int(rest)))
    monkeypatch.setitem(optimizer.OPTIMIZERS, "signs", signs)
    changes = {
        "dataset.name": "blobs:3",
        "optimizer.name": "signs",
        "loss.label_similarity": "everybody",
        "loss.base_temperature": None,
    }
    results = train.train_and_evaluate(tiny_config(**SETTINGS | changes), tmp_path / "run", devices=jax.devices()[:1])
    assert json.loads((tmp_path / "run" / "dataset.json").read_text())["class_names"] == ["0", "1", "2"]
    rows = [row for row in rows_of(tmp_path / "run") if "train/loss" in row]
    # Of 32 images 2 views each: every other view is a similar contrast.
    assert [row["train/similarity_mass"] for row in rows] == [63.0] * 3
    assert results["chance_loss"] == pytest.approx(np.log(63), rel=1e-5)
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("_everybody_is_similar")
def test_a_similarity_of_labels_holds_for_the_queue_too(tmp_path):
    changes = {
        "loss.label_similarity": "everybody",
        "loss.mode": "momentum",
        "momentum_encoder.queue_size": 64,
    }
    train.train_and_evaluate(
        tiny_config(**SETTINGS | changes), tmp_path / "run", tiny_dataset(), devices=jax.devices()[:1]
    )
    rows = [row for row in rows_of(tmp_path / "run") if "train/loss" in row]
    # 32 keys of this batch, and those of the 0, 1 and 2 batches before it.
    assert [row["train/similarity_mass"] for row in rows] == [32.0, 64.0, 96.0]
