"""Whole runs on images with several labels: every objective, mixing, teacher, resume, and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from gensupcon_jax.__main__ import main
from gensupcon_jax.compare.page import compare
from gensupcon_jax.compare.runs import read_runs
from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation import several
from gensupcon_jax.evaluation.final import Settings
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.evaluate_scores import evaluate_encoder, results_table
from gensupcon_jax.run import loop
from gensupcon_jax.run.config_check import check_config
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.summary import summary
from gensupcon_jax.run.train import train_and_evaluate
from gensupcon_jax.weights import teachers
from gensupcon_jax.weights.description import description_of_file
from tests.report.pages import Page
from tests.tiny import tiny_config


def labeled(num=144, seed=0, num_labels=4):
    """Noisy images; label k is a bright quarter k, so that an image may have none of them or all."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 2, (num, num_labels)).astype(np.uint8)
    images = rng.integers(0, 120, (num, 8, 8, 1), np.uint8)
    for image, row in zip(images, rows, strict=True):
        for label in np.flatnonzero(row):
            top, left = divmod(label % 4, 2)
            image[4 * top : 4 * top + 4, 4 * left : 4 * left + 4] += 130
    names = ["north west", "north east", "south west", "south east", "nowhere"][:num_labels]
    settings = {"validation_fraction": 2 / 9, "test_fraction": 2 / 9, "class_names": names}
    return from_arrays(images, rows, label_kind="several", **settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run with mixing and a classifier beside it: its folder and its results."""
    folder = tmp_path_factory.mktemp("runs") / "several"
    config = tiny_config(**{"mix.kind": "mixup", "classifier.beside": True})
    return folder, train_and_evaluate(config, folder, labeled())


@pytest.mark.slow
def test_results_have_the_map_of_each_predictor_and_the_scores_of_each_label(finished):
    folder, results = finished
    for predictor in ("linear", "classifier", "knn", "raw_pixel_knn"):
        assert 0 < results[f"{predictor}_mean_average_precision"] <= 100
        assert 0 < results[f"{predictor}_validation_mean_average_precision"] <= 100
        assert 0 < results[f"{predictor}_macro_auc"] <= 100
        assert len(results["per_label_average_precision"][predictor]) == 4
    assert results["linear_mean_average_precision"] > 80  # labels are bright quarters
    assert results["label_kind"] == "several"
    assert not [name for name in results if "top1" in name]
    assert json.loads((folder / "dataset.json").read_text())["label_kind"] == "several"


@pytest.mark.slow
def test_the_best_step_is_chosen_by_the_map(finished):
    folder, results = finished
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["knn/mean_average_precision"] for row in rows if "knn/mean_average_precision" in row}
    assert results["best_step"] == min(step for step in scores if scores[step] == max(scores.values()))
    assert all("classifier/mean_average_precision" in row for row in rows if "knn/neighbors" in row)


@pytest.mark.slow
def test_the_last_lines_name_the_score(finished):
    folder, results = finished
    text = summary(results, folder)
    assert text.startswith("test mean average precision over labels on 32 images of arrays, seed 0:")
    assert "linear probe on frozen features" in text


@pytest.mark.slow
def test_the_same_call_returns_the_same_results(finished):
    folder, results = finished
    config = tiny_config(**{"mix.kind": "mixup", "classifier.beside": True})
    assert train_and_evaluate(config, folder, labeled()) == results


def steps_of(objective, tmp_path, devices, num_steps=2, dataset=None, **changes):
    """The loss of each step of a run, on these devices."""
    config = tiny_config(**{"objective": objective, "steps": num_steps, **changes})
    run = build_run(config, tmp_path / "run", dataset or labeled(), devices=devices)
    state, key = run.initial_state(), run.key("step")
    losses = []
    for batch in run.batches(0, num_steps):
        state, metrics = run.parts.train_step_fn(state, run.frozen, batch, key)
        losses.append(float(metrics["loss"]))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("similarity", ["cosine", "jaccard"])
def test_steps_are_the_same_on_any_number_of_devices(similarity, tmp_path):
    changes = {"loss.label_similarity": similarity, "mix.kind": "cutmix", "classifier.beside": True}
    found = [steps_of("contrastive", tmp_path, jax.devices()[:count], **changes) for count in (1, 2, 8)]
    np.testing.assert_allclose(found[1], found[0], rtol=2e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=2e-5)


def test_cross_entropy_starts_at_the_binary_cross_entropy_of_even_odds(tmp_path):
    changes = {"augment.num_views": 1, "optimizer.learning_rate": 1e-6}
    (first,) = steps_of("cross_entropy", tmp_path, jax.devices()[:1], num_steps=1, **changes)
    assert first == pytest.approx(4 * np.log(2), rel=0.5)


@pytest.mark.parametrize("rows", [np.ones((1, 5)), np.array([[1, 0, 0, 0, 0]])])
def test_a_batch_may_have_images_with_all_labels_and_a_label_that_nobody_has(rows, tmp_path):
    data = labeled(num_labels=4)
    labels = np.concatenate([data.train.labels, np.zeros((data.train.num_images, 1))], axis=1)
    labels[:40] = rows
    dataset = from_arrays(data.train.images, labels, label_kind="several")
    losses = steps_of("contrastive", tmp_path, jax.devices()[:1], dataset=dataset)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset.sampling": "balanced"},
            "dataset.sampling is 'balanced'; allowed with dataset.label_kind several: uniform",
        ),
        (
            {"dataset.imbalance_factor": 10.0},
            "dataset.imbalance_factor is 10.0; allowed with dataset.label_kind several: None",
        ),
        ({"prototypes.use": True}, "prototypes.use is True; allowed with dataset.label_kind several: False"),
    ],
)
def test_what_needs_one_class_per_image_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError) as error:
        check_config(tiny_config(**{"dataset.label_kind": "several", **changes}))
    assert message in str(error.value)
    with pytest.raises(UserError) as error:  # the kind of given arrays
        build_run(tiny_config(**changes), tmp_path, labeled())
    assert message in str(error.value)


def test_bins_of_numbers_have_no_long_tail():
    changes = {"dataset.label_kind": "value", "dataset.imbalance_factor": 10.0}
    with pytest.raises(
        UserError, match=r"dataset.imbalance_factor is 10.0; allowed with dataset.label_kind value: None"
    ):
        check_config(tiny_config(**changes))
    check_config(tiny_config(**{"dataset.label_kind": "value", "dataset.sampling": "balanced", "prototypes.use": True}))


def test_a_config_with_several_refuses_arrays_of_one_class(tmp_path):
    one_class = from_arrays(np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2)
    with pytest.raises(
        UserError, match=r"dataset.label_kind is 'several', but the labels of arrays are of the kind 'class'"
    ):
        build_run(tiny_config(**{"dataset.label_kind": "several"}), tmp_path, one_class)


# What a finished run is used for


@pytest.mark.slow
def test_the_report_has_a_table_of_labels_in_place_of_the_sections_for_classes(finished):
    folder, results = finished
    page = Page((folder / "report.html").read_text())
    assert {"labels", "similarity", "scatter", "neighbors", "suspicious", "duplicates", "sheet"} <= page.ids
    assert not page.ids & {"confusion", "classes", "mistakes"}
    table = page.section_text("labels")
    assert "there is no confusion matrix" in table
    for name, value in zip(labeled().class_names, results["per_label_average_precision"]["linear"], strict=True):
        assert f"{name} " in table
        assert f" {value:.1f} " in table
    assert "An image has any number of 4 labels" in page.text
    assert "north west + south east" in page.section_text("scatter")
    assert "north east" in page.section_text("sheet")
    assert "ranks each label better than chance" in page.section_text("checks")


@pytest.mark.slow
def test_an_encoder_predicts_the_probability_of_each_label(finished):
    folder, _ = finished
    test, encoder = labeled().test, Encoder.load(folder)
    found = encoder.predict(test.images)
    assert (found.predictor, found.label_kind, found.probabilities.shape) == ("classifier", "several", (32, 4))
    assert np.abs(found.probabilities.sum(1) - 1).max() > 0.5
    chosen = found.probabilities[0] >= 0.5
    assert found.names[0] == "; ".join(name for name, is_on in zip(found.class_names, chosen, strict=True) if is_on)
    with np.load(folder / "predictions.npz") as kept:
        np.testing.assert_allclose(kept["6/classifier"], found.probabilities, atol=1e-5)
        np.testing.assert_array_equal(kept["labels"], test.labels)


@pytest.mark.slow
def test_the_kept_probe_predicts_where_there_is_no_classifier(finished, tmp_path):
    folder = tmp_path / "run"
    results = train_and_evaluate(tiny_config(steps=2), folder, labeled(), devices=jax.devices()[:1])
    test = labeled().test
    found = Encoder.load(folder).predict(test.images)
    assert (found.predictor, found.label_kind) == ("probe", "several")
    again = several.mean_label_precision(found.probabilities, test.labels)
    assert again == pytest.approx(results["linear_mean_average_precision"], abs=0.2)


@pytest.mark.slow
def test_predict_writes_a_column_for_each_label(finished, tmp_path, capsys):
    folder, _ = finished
    Image.fromarray(labeled().test.images[0, ..., 0]).save(tmp_path / "one.png")
    main(["predict", str(folder), str(tmp_path / "one.png"), "--output", str(tmp_path / "out.csv")])
    header, row = (line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines())
    assert header == ["name", "labels", "north west", "north east", "south west", "south east", "folder"]
    probabilities = np.array(row[2:6], float)
    expected = [name for name, value in zip(header[2:6], probabilities, strict=True) if value >= 0.5]
    assert row[1] == ("; ".join(expected) or "-")
    main(["predict", str(folder), str(tmp_path / "one.png"), "--top", "1"])
    printed = capsys.readouterr().out
    assert f"{header[2 + probabilities.argmax()]} {probabilities.max():.2f}" in printed


@pytest.mark.slow
def test_evaluate_repeats_the_scores_of_the_run(finished):
    folder, results = finished
    encoder = Encoder.load(folder)
    fields = tiny_config().evaluate
    settings = Settings.of(
        fields, dataset=labeled(), extraction=encoder.extraction(32), choices=None, measures=("recall_at_1",)
    )
    found = evaluate_encoder(encoder, labeled(), settings)
    for name in ("linear", "classifier", "knn"):
        key = f"{name}_mean_average_precision"
        assert found[key] == pytest.approx(results[key], abs=0.1)
    assert found["calibration_error"] == {"bins": 15}
    table = results_table(found)
    assert "4 labels, 80 / 32 / 32 images" in table
    assert "linear probe, mAP (penalty 0.1)" in table


@pytest.mark.slow
def test_an_export_says_that_its_classifier_has_sigmoids(finished, tmp_path):
    folder, _ = finished
    path = tmp_path / "weights.safetensors"
    main(["export", str(folder), "--output", str(path)])
    assert description_of_file(path).label_kind == "several"
    images = labeled().test.images
    ours, exported = Encoder.load(folder).predict(images), Encoder.load(path).predict(images)
    assert exported.label_kind == "several"
    np.testing.assert_allclose(exported.probabilities, ours.probabilities, atol=1e-5)


@pytest.mark.slow
def test_runs_are_compared_by_their_map_over_seeds(finished, tmp_path):
    folder, _ = finished
    for group, kind in (("mixup", "mixup"), ("none", "none")):
        for seed in (0, 1):
            copy = shutil.copytree(folder, tmp_path / f"{group}{seed}")
            config = json.loads((copy / "config.json").read_text())
            config["seed"], config["mix"]["kind"] = seed, kind
            (copy / "config.json").write_text(json.dumps(config))
    found = compare(read_runs([tmp_path / name for name in ("mixup0", "mixup1", "none0", "none1")]))
    assert "mixup has the same mean average precision over labels as none" in found.sentences[0]
    assert any("Numbers are the mean average precision over labels" in note for note in found.notes)
    single = compare(read_runs([tmp_path / "mixup0", tmp_path / "none0"]))
    assert list(single.tests) == []
    assert "%" in single.results.rows[0][4]


@pytest.mark.slow
def test_a_teacher_of_several_labels_gives_each_its_sigmoid(finished, tmp_path):
    folder, _ = finished
    changes = {"teacher.kind": "workdir", "teacher.path": str(folder), "mix.kind": "mixup"}
    run = build_run(tiny_config(**changes), tmp_path / "student", labeled(), devices=jax.devices()[:1])
    assert run.teacher.output == "sigmoid"
    images = (labeled().test.images[:5] / 255 - run.data.mean) / run.data.std
    settings = {"student_mean": run.data.mean, "student_std": run.data.std, "temperature": 1.0}
    found = teachers.teacher_probabilities(run.teacher, run.teacher.variables, np.float32(images), **settings)
    expected = Encoder.load(folder).predict(labeled().test.images[:5]).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-4)
    preprocessing = {name: settings[name] for name in ("student_mean", "student_std")}
    extraction, split = run.evaluation_settings().extraction, run.dataset.validation
    predictions = teachers.teacher_predictions(run.teacher, split, **preprocessing, **extraction)
    score, chance = teachers.teacher_label_precision(predictions, split)
    assert chance == pytest.approx(100 * labeled().validation.labels.mean())
    assert score > chance
    losses = steps_of("contrastive", tmp_path, jax.devices()[:1], **changes)
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_a_run_that_is_interrupted_ends_like_one_that_is_not(finished, tmp_path, monkeypatch):
    _, results = finished
    config = tiny_config(**{"mix.kind": "mixup", "classifier.beside": True})
    taken = {"steps": 0}
    take_step = loop._Loop.take_step

    def interrupted(self, batch):
        take_step(self, batch)
        taken["steps"] += 1
        if taken["steps"] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Loop, "take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(config, tmp_path / "run", labeled())
    monkeypatch.setattr(loop._Loop, "take_step", take_step)
    again = train_and_evaluate(config, tmp_path / "run", labeled())
    for name in ("linear", "knn", "classifier"):
        assert again[f"{name}_mean_average_precision"] == results[f"{name}_mean_average_precision"]


def test_a_teacher_near_the_share_of_the_labels_is_refused():
    assert teachers.check_score(80.0, 40.0, False, "mean average precision on the validation images") == (
        "teacher: 80.00 % mean average precision on the validation images (chance: 40 %)"
    )
    with pytest.raises(UserError, match=r"allowed: 70 % or more.*teacher.allow_poor"):
        teachers.check_score(69.0, 40.0, False, "mean average precision")
