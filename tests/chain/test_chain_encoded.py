"""Folders through the stages: pretrain, stop and resume, teacher, probe; and the same crops on any number of devices."""

import json
import signal

import jax
import numpy as np
import pytest

from gensupcon_jax.errors import RunStopped
from gensupcon_jax.run import progress, train
from tests.encoded import write_folder
from tests.run.test_train import rows_of
from tests.running import without_times
from tests.tiny import tiny_config

CLASSIFIED = {"objective": "cross_entropy", "augment.num_views": 1, "model.batch_norm": "local"}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("chain") / "trees", splits={"train": 16, "validation": 4, "test": 5})


def run(trees, folder, devices=2, **changes):
    settings = {"dataset.name": f"folder:{trees}", "dataset.image_size": 16, "batch_size": 16} | changes
    results = train.train_and_evaluate(tiny_config(**settings), folder, devices=jax.devices()[:devices])
    return results, rows_of(folder)


@pytest.fixture(scope="module")
def encoder(trees, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoded") / "encoder"
    return folder, *run(trees, folder, steps=12)


@pytest.mark.slow
def test_a_folder_is_trained_on_and_evaluated(trees, encoder):
    folder, results, rows = encoder
    assert (results["num_train"], results["num_validation"], results["num_test"]) == (64, 16, 20)
    assert results["knn_top1"] > 40  # chance is 25
    assert 0 <= rows[-1]["train/input_wait"] <= 1
    assert json.loads((folder / "dataset.json").read_text())["class_names"] == ["ash", "birch", "cedar", "date"]
    assert "data:image/png;base64" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_resumed_run_sees_the_same_crops(trees, encoder, tmp_path, monkeypatch):
    real = progress.Progress.advance

    def stop_at_5(self):
        real(self)
        self.count = getattr(self, "count", 0) + 1
        if self.count == 5:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(progress.Progress, "advance", stop_at_5)
        with pytest.raises(RunStopped):
            run(trees, tmp_path, steps=12)
    _, rows = run(trees, tmp_path, steps=12)
    whole = {row["step"]: row for row in without_times(encoder[2])}
    assert all(row == whole[row["step"]] for row in without_times(rows) if row["step"] in whole)
    assert rows[-1]["train/loss"] == encoder[2][-1]["train/loss"]


@pytest.mark.slow
def test_the_number_of_devices_changes_only_the_order_of_sums(trees, encoder, tmp_path):
    _, rows = run(trees, tmp_path, devices=4, steps=12)
    for one, other in zip(encoder[2], rows, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], abs=1e-3)


@pytest.mark.slow
def test_teacher_and_probe_take_folders_too(trees, encoder, tmp_path):
    teacher, _ = run(trees, tmp_path / "teacher", steps=30, **CLASSIFIED)
    assert teacher["classifier_top1"] > 50
    taught = {"teacher.kind": "workdir", "teacher.path": str(tmp_path / "teacher"), "augment.policy": "none"}
    _, rows = run(trees, tmp_path / "student", steps=2, **taught)
    assert np.isfinite(rows[-1]["train/teacher_loss"])
    probe = {"objective": "linear_probe", "augment.num_views": 1, "mix.kind": "none", "model.weights": str(encoder[0])}
    results, _ = run(trees, tmp_path / "probe", steps=20, **probe)
    assert results["classifier_top1"] > 40
    assert results["knn_top1"] == encoder[1]["knn_top1"]


@pytest.mark.slow
def test_images_in_memory_can_be_seen_at_another_size(tmp_path):
    config = tiny_config(steps=2, **{"dataset.image_size": 12})
    results = train.train_and_evaluate(config, tmp_path, devices=jax.devices()[:1])
    assert results["dataset"] == "digits"
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert (description["image_shape"], description["stored_size"]) == ([12, 12, 1], 8)
