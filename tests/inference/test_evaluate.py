"""evaluate: the numbers of the run on its own data, another data set, calibration, and mistakes in one line."""

import json

import numpy as np
import pytest

from gensupcon_jax.evaluation.measures import MEASURES
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.run.train import train_and_evaluate
from tests.encoded import write_folder
from tests.running import told
from tests.tiny import tiny_config

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def on_digits(tmp_path_factory):
    """A run on the digits with a classifier beside the contrastive loss, as it was drawn, and its results."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    config = tiny_config(**{"classifier.beside": True, "steps": 0, "evaluate.measures": ("recall_at_1",)})
    return folder, train_and_evaluate(config, folder)


def test_on_its_own_data_the_numbers_are_those_of_the_run(on_digits, tmp_path, capfd):
    folder, expected = on_digits
    output = tmp_path / "numbers.json"
    status, printed, _ = told(capfd, "evaluate", folder, "--output", output)
    assert status == 0
    found = json.loads(output.read_text())
    same = [
        name for name in expected if name.endswith(("_top1", "_penalty", "_neighbors")) and name != "per_class_top1"
    ]
    assert {"linear_top1", "knn_top1", "classifier_top1", "raw_pixel_knn_top1", "knn_neighbors"} <= set(same)
    assert {name: found[name] for name in same} == pytest.approx({name: expected[name] for name in same}, abs=0.2)
    assert found["measures"]["recall_at_1"] == pytest.approx(expected["measures"]["recall_at_1"], abs=0.2)
    assert tuple(found["measures"]) == tuple(MEASURES) and (found["num_train"], found["num_test"]) == (1077, 540)
    assert (found["step"], found["fingerprint"]) == (0, Encoder.load(folder).fingerprint)
    lines = printed.splitlines()
    assert lines[0] == f"encoder  {folder}, step 0"
    assert lines[1] == "data     digits: 10 classes, 1,077 / 180 / 540 images of train / validation / test"
    assert f"k-NN, top-1 (k {found['knn_neighbors']})" in printed
    assert [line.split("  ")[0] for line in lines[8:12]] == [
        "retrieval R@1", "retrieval R@10", "retrieval mAP", "calibration error of the linear probe",
    ]  # fmt: skip
    assert lines[12].split() == [
        "calibration", "error", "of", "the", "classifier", f"{found['calibration_error']['classifier']:.2f}",
    ]  # fmt: skip
    assert lines[-1] == f"The same numbers, unrounded: {output}"


def test_the_calibration_error_is_that_of_the_classifiers_probabilities(on_digits, tmp_path, capfd):
    from gensupcon_jax.data.datasets import digits

    folder, _ = on_digits
    told(capfd, "evaluate", folder, "--output", tmp_path / "x.json")
    found = json.loads((tmp_path / "x.json").read_text())["calibration_error"]
    test = digits().test
    probabilities = Encoder.load(folder).predict(test.images).probabilities
    surest, right = probabilities.max(1), probabilities.argmax(1) == test.classes
    error = 0.0
    for number in range(15):
        rows = (number / 15 < surest) & (surest <= (number + 1) / 15)
        if rows.any():
            error += rows.mean() * abs(right[rows].mean() - surest[rows].mean())
    assert found["bins"] == 15 and found["classifier"] == pytest.approx(100 * error, abs=0.3)


def test_another_data_set_with_other_sizes_channels_and_classes(on_digits, tmp_path, capfd):
    folder, _ = on_digits
    write_folder(tmp_path / "trees", splits={"train": 6, "validation": 2, "test": 3})
    status, printed, _ = told(
        capfd, "evaluate", folder, f"--dataset.name=folder:{tmp_path / 'trees'}", "--output", tmp_path / "x.json"
    )
    assert status == 0
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["num_classes"], found["num_train"], found["num_validation"], found["num_test"]) == (4, 24, 8, 12)
    assert "classifier_top1" not in found and set(found["calibration_error"]) == {"bins", "linear"}
    assert 0 <= found["linear_top1"] <= 100 and "classifier" not in printed
    # The images are those that `embed` sees: converted to gray, center-cropped to 8 x 8.
    names = sorted((tmp_path / "trees" / "test").rglob("*.*g"))
    features = Encoder.load(folder).embed(names)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(12)
    folders = np.array([name.parent.name for name in names])
    expected = 100 * np.mean(folders[cosines.argmax(1)] == folders)
    assert found["measures"]["recall_at_1"] == pytest.approx(expected, abs=100 / 12 + 1e-6)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ("SOURCE", "evaluate --help")),
        (["nowhere"], ("SOURCE is nowhere, which does not exist",)),
        (["RUN", "--dataset.nam=digits"], ("dataset.nam is not a field of the config", "did you mean dataset.name?")),
        (["RUN", "--config.epochs=3"], ("epochs is not a field of the data set", "--dataset.name")),
        (["RUN", "--dataset.image_size=32"], ("dataset.image_size is given, but it is that of the encoder",)),
        (["RUN", "--dataset.test_fraction=2"], ("dataset.test_fraction is 2", "allowed:")),
        (["RUN", "--dataset.name=imagenet"], ("dataset.name is 'imagenet'", "folder:<path>")),
        (["RUN", "--dataset.name=folder:nowhere"], ("folder:nowhere", "not a folder")),
        (["RUN", "--step", "1"], ("no checkpoint of step 1", "saved steps")),
        (["RUN", "--output", "x.txt"], ("ends with .json",)),
        (["RUN", "--output", "old.json"], ("exists and is kept", "--overwrite")),
        (["ARRAYS"], ("was trained on arrays from Python", "--dataset.name")),
        (["HUB"], ("--dataset.name is missing, and HUB is not a run",)),
        (["FILE.safetensors"], ("--dataset.name is missing", "is not a run")),
    ],
)
def test_every_mistake_is_one_line(on_digits, trained, tmp_path, monkeypatch, capfd, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(on_digits[0])
    (tmp_path / "ARRAYS").symlink_to(trained)
    (tmp_path / "FILE.safetensors").touch()
    (tmp_path / "old.json").touch()
    (tmp_path / "HUB").mkdir()
    (tmp_path / "HUB" / "config.json").write_text('{"architecture": "resnet50"}')
    status, printed, said = told(capfd, "evaluate", *arguments)
    assert (status, printed) == (1, "")
    assert said.startswith("error: ") and said.count("\n") == 1, said
    assert [part for part in parts if part not in said] == []


def test_help_shows_examples(capfd):
    status, printed, _ = told(capfd, "evaluate", "--help")
    assert status == 0
    assert "gensupcon evaluate runs/photos --dataset.name=folder:flowers" in printed
    assert "--dataset.field=value" in printed
