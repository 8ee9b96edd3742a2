"""Whole runs with images without a label: semi-supervised, and without any label; results, resume, what is refused."""

import json

import numpy as np
import pytest

import gensupcon_jax as gsc
from gensupcon_jax import __main__
from gensupcon_jax.data import datasets, input_pipeline
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.knn import knn_predictions
from gensupcon_jax.run import train
from gensupcon_jax.run.run import build_run
from tests.encoded import write_folder
from tests.run.test_imbalance import stops_at
from tests.run.test_train import rows_of
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset


def semi_supervised(**changes):
    return tiny_config(
        **{
            "steps": 6,
            "batch_size": 16,
            "mix.kind": "cutmix",
            "mix.block": 2,
            "dataset.labeled_images": 16,
            "loss.mode": "momentum",
            "momentum_encoder.queue_size": 32,
            "classifier.beside": True,
            "evaluate.linear_probe": False,
            "checkpoint.every_steps": 3,
        }
        | changes
    )


@pytest.mark.slow
def test_a_semi_supervised_run_resumes_and_evaluates_with_the_labels_that_it_has(tmp_path, monkeypatch):
    dataset = tiny_dataset(num=144)
    whole = train.train_and_evaluate(semi_supervised(), tmp_path / "whole", dataset)
    with monkeypatch.context() as patched:
        patched.setattr(input_pipeline, "train_batches", stops_at(4))
        with pytest.raises(KeyboardInterrupt):
            train.train_and_evaluate(semi_supervised(), tmp_path / "stopped", dataset)
    resumed = train.train_and_evaluate(semi_supervised(), tmp_path / "stopped", dataset)
    assert without_times(rows_of(tmp_path / "stopped")) == without_times(rows_of(tmp_path / "whole"))
    assert whole["knn_top1"] == resumed["knn_top1"] and whole["num_train"] == 96
    rows = [row for row in rows_of(tmp_path / "whole") if "train/loss" in row]
    assert all(0 <= row["train/classifier_accuracy"] <= 1 and row["train/valid_anchors"] == 1 for row in rows)
    report = (tmp_path / "whole" / "report.html").read_text()
    assert "no label" in report and "80 of 96 training images have no label" in report
    # k-NN compares with the 16 images alone.
    labeled = datasets.with_fewer_labels(dataset, 16).only_labeled()
    encoder = gsc.Encoder.load(tmp_path / "whole")
    train_features, queries = (encoder.embed(split.images) for split in (labeled.train, labeled.test))
    stored = Features(train_features, labeled.train.classes)
    settings = {"neighbors": (whole["knn_neighbors"],), "temperature": 0.07, "num_classes": 4}
    (found,) = knn_predictions(stored, queries, **settings).values()
    assert whole["knn_top1"] == pytest.approx(100 * np.mean(found == labeled.test.classes))


@pytest.mark.slow
def test_without_labels_in_the_loss_a_run_is_that_of_images_that_are_classes(tmp_path):
    dataset, settings = (
        tiny_dataset(num=72),
        {"steps": 3, "batch_size": 16, "mix.block": 2, "checkpoint.every_steps": 3},
    )
    settings |= {"evaluate.linear_probe": False, "log_steps": 1}
    train.train_and_evaluate(tiny_config(**settings, **{"loss.use_labels": False}), tmp_path / "simclr", dataset)
    own = datasets.Dataset(
        "own",
        dataset.train._replace(labels=np.eye(dataset.train.num_images, dtype=np.float32)),
        *(
            split._replace(labels=np.pad(split.labels, [(0, 0), (0, dataset.train.num_images - 4)]))
            for split in (dataset.validation, dataset.test)
        ),
        tuple(map(str, range(dataset.train.num_images))),
    )
    train.train_and_evaluate(tiny_config(**settings), tmp_path / "own", own)
    losses = [
        [row["train/loss"] for row in rows_of(tmp_path / name) if "train/loss" in row] for name in ("simclr", "own")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def config_of(**changes):
    return tiny_config(**{"mix.kind": "none"} | changes)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"objective": "cross_entropy", "augment.num_views": 1},
            "allowed with objective cross_entropy: labels, or set obj",
        ),
        ({"prototypes.use": True}, "allowed without a teacher: prototypes.use=False"),
        ({"classifier.beside": True}, "allowed without a teacher: classifier.beside=False"),
    ],
)
def test_what_needs_labels_is_refused_where_no_image_has_one(tmp_path, changes, problem):
    whole = tiny_dataset(num=72)
    nothing = whole.train.without_labels(np.ones(whole.train.num_images, bool))
    dataset = datasets.dataclasses.replace(whole, train=nothing)
    with pytest.raises(UserError, match=f"none of the 48 training images of arrays has a label; {problem}"):
        build_run(config_of(**changes), tmp_path, dataset)


def test_a_cross_entropy_with_some_labels_is_trained(tmp_path):
    run = build_run(
        config_of(**{"objective": "cross_entropy", "augment.num_views": 1, "dataset.labeled_images": 12}),
        tmp_path,
        tiny_dataset(num=72),
    )
    assert run.data.some_unlabeled and json.dumps(run.class_shares()) == "[0.25, 0.25, 0.25, 0.25]"


@pytest.mark.slow
def test_photos_without_labels_are_trained_embedded_and_found_again(tmp_path, capsys):
    write_folder(tmp_path / "my", splits={"photos": 12}, classes=("ash", "birch"))
    photos = tmp_path / "my" / "photos"
    for path in list(photos.rglob("*.*")):
        path.rename(photos / f"{path.parent.name}{path.name}")
    for path in list(photos.iterdir()):
        if path.is_dir():
            path.rmdir()
    settings = {"steps": 2, "batch_size": 8, "dataset.image_size": 16, "model.stem": "cifar", "model.width": 4}
    settings |= {"evaluate.batch_size": 8, "mix.kind": "none", "optimizer.warmup_steps": 1}
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    folder = tmp_path / "run"
    __main__.main(["train", str(photos), "--workdir", str(folder), *words])
    said = capsys.readouterr()
    assert "24 images and no class folders: no image has a label" in said.err
    assert "no training image has a label: there are no accuracies" in said.err
    assert " pixels (evaluated at the central 0.875), no labels, " in said.err
    assert said.out.startswith(f"trained on 19 images of folder:{photos} without labels\ntime:    ")
    results = json.loads((folder / "results.json").read_text())
    assert results["num_train"] == 19 and results["num_validation"] == 0 and results["best"] is None
    assert not any(name.endswith("top1") for name in results)
    assert "no label" in (folder / "report.html").read_text()
    assert gsc.Encoder.load(folder).embed(str(photos)).shape == (24, 16)
    __main__.main(["neighbors", str(folder), str(photos / "ash000.jpg"), "--in", str(photos)])
    for command, problem in (("evaluate", "nothing to evaluate"), ("predict", "so it predicts no classes")):
        with pytest.raises(SystemExit, match=problem):
            __main__.main([command, str(folder), *([str(photos)] if command == "predict" else [])])
