"""The stages in order: teacher -> student -> linear probe, and mistakes between them."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gensupcon_jax.data.shapes import DataShape
from gensupcon_jax.errors import UserError
from gensupcon_jax.method.classification import softmax_cross_entropy
from gensupcon_jax.run import assemble, train
from gensupcon_jax.store import saved_runs
from gensupcon_jax.weights import initial
from gensupcon_jax.weights.files import write_safetensors
from gensupcon_jax.weights.variables import named_tensors
from tests.run.test_train import rows_of
from tests.tiny import tiny_config, tiny_dataset

DEVICES = jax.devices()[:2]
DATASET = tiny_dataset()
CLASSIFIED = {"objective": "cross_entropy", "augment.num_views": 1, "model.batch_norm": "local"}


def run(folder, dataset=DATASET, **changes):
    results = train.train_and_evaluate(tiny_config(**changes), folder, dataset, devices=DEVICES)
    return results, rows_of(folder)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "teacher"
    results, rows = run(folder, steps=30, **CLASSIFIED)
    return folder, results, rows


@pytest.fixture(scope="module")
def student(teacher):
    folder = teacher[0].parent / "student"
    results, rows = run(folder, steps=12, **{"teacher.kind": "workdir", "teacher.path": str(teacher[0])})
    return folder, results, rows


@pytest.mark.slow
def test_the_teacher_learns_and_is_evaluated_by_its_own_classifier(teacher):
    folder, results, rows = teacher
    assert results["classifier_top1"] > 60
    assert "classifier/top1" in rows[-1]
    assert "knn/top1" not in rows[-1]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert "trained in this run" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_the_student_uses_the_teachers_predictions_as_labels(teacher, student, capsys):
    folder, results, rows = student
    assert rows[-1]["train/loss"] == pytest.approx(rows[-1]["train/label_loss"] + rows[-1]["train/teacher_loss"])
    assert 0 < rows[-1]["train/teacher_entropy"] < math.log(4)
    assert results["knn_top1"] > 50
    assert json.loads((folder / "dataset.json").read_text())["teacher"]
    assert not (folder / "checkpoints" / "12" / "teacher").exists()


@pytest.mark.slow
def test_a_weight_of_inf_leaves_only_the_teacher_and_0_only_the_labels(teacher, tmp_path):
    taught = {"teacher.kind": "workdir", "teacher.path": str(teacher[0]), "steps": 2}
    _, rows = run(tmp_path / "inf", **taught, **{"teacher.weight": math.inf})
    assert rows[-1]["train/loss"] == rows[-1]["train/teacher_loss"]
    _, rows = run(tmp_path / "none", **taught, **{"teacher.weight": 0.0})
    _, alone = run(tmp_path / "alone", steps=2)
    assert rows[-1]["train/loss"] == alone[-1]["train/loss"]
    _, rows = run(tmp_path / "half", **taught, **{"teacher.weight": 0.5})
    assert rows[0]["train/loss"] == pytest.approx(rows[0]["train/label_loss"] + 0.5 * rows[0]["train/teacher_loss"])


@pytest.mark.slow
def test_a_momentum_student_queues_the_teachers_predictions(teacher, tmp_path):
    settings = {"loss.mode": "momentum", "momentum_encoder.queue_size": 64, "teacher.kind": "workdir"}
    results, rows = run(tmp_path, steps=4, **settings, **{"teacher.path": str(teacher[0])})
    assert np.isfinite(rows[-1]["train/teacher_loss"])
    assert results["steps"] == 4


@pytest.mark.slow
def test_the_probe_evaluates_the_students_frozen_encoder(student, tmp_path):
    probe = {"objective": "linear_probe", "augment.num_views": 1, "mix.kind": "none", "steps": 30}
    results, rows = run(tmp_path / "probe", **probe, **{"model.weights": str(student[0])})
    assert results["classifier_top1"] > 50
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    # The encoder is unchanged: its features, k-NN and fitted probe are those of the student.
    assert results["knn_top1"] == student[1]["knn_top1"]
    assert results["linear_top1"] == student[1]["linear_top1"]


@pytest.mark.slow
def test_a_run_starts_from_given_weights_and_0_steps_only_evaluate_them(student, tmp_path):
    results, rows = run(tmp_path, steps=0, **{"model.weights": str(student[0])})
    assert rows == []
    assert results["linear_top1"] == student[1]["linear_top1"]
    again, _ = run(tmp_path / "again", steps=0, **{"model.weights": str(tmp_path)})  # the evaluated state was saved
    assert again["linear_top1"] == results["linear_top1"]


@pytest.mark.slow
def test_a_classifier_next_to_the_contrastive_loss_is_evaluated(tmp_path):
    results, rows = run(tmp_path, steps=12, **{"classifier.beside": True})
    assert results["classifier_top1"] > 40
    assert {"classifier/top1", "knn/top1", "train/classifier_loss"} <= set(rows[-1])


@pytest.mark.slow
def test_a_callable_is_a_teacher(tmp_path):
    directions = np.float32(np.random.default_rng(0).standard_normal((64, 4)))
    config = tiny_config(steps=2, **{"teacher.kind": "callable", "teacher.allow_poor": True})
    train.train_and_evaluate(
        config,
        tmp_path,
        DATASET,
        devices=DEVICES,
        teacher_fn=lambda images: images.reshape(len(images), -1) @ directions,
    )
    assert "train/teacher_loss" in rows_of(tmp_path)[-1]


@pytest.mark.slow
def test_a_poor_teacher_stops_the_run_and_the_advice_can_be_followed(teacher, tmp_path):
    taught = {"teacher.kind": "workdir", "teacher.path": str(teacher[0]), "steps": 2}
    wrong = {"teacher.mean": (0.0,), "teacher.std": (0.001,)}
    with pytest.raises(UserError, match=r"teacher: .* accuracy on the validation images .*teacher.allow_poor to True"):
        run(tmp_path, **taught, **wrong)
    results, _ = run(tmp_path, **taught, **wrong, **{"teacher.allow_poor": True})
    assert results["steps"] == 2


@pytest.mark.slow
def test_a_file_gives_backbone_and_head(student, tmp_path):
    named = named_tensors(saved_runs.read_run(student[0]).variables, parts=("backbone", "head"))
    write_safetensors(tmp_path / "student.safetensors", named, {})
    data = DataShape.of(DATASET.description())
    for width, parts in ((8, {"backbone", "head"}), (16, {"backbone"})):  # the second head has another size
        model = assemble.encoder_of(tiny_config(**{"model.embedding_dim": width}), data)
        given = initial.read_weights(initial.open_weights(str(tmp_path / "student.safetensors")), model, data)
        assert set(given.variables["params"]) == parts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lars", {"optimizer.exclude_bias_and_norm": True}),
        ("rmsprop", {"optimizer.second_momentum": 0.9, "optimizer.learning_rate": 1e-3}),
        ("adamw", {"optimizer.learning_rate": 1e-3, "optimizer.schedule_per": "epoch"}),
    ],
)
def test_every_optimizer_trains(tmp_path, name, settings):
    _, rows = run(tmp_path, steps=4, images=32, **{"optimizer.name": name}, **settings)
    assert np.isfinite([row["train/loss"] for row in rows]).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["auto", "rand", "cutout", "none"])
def test_every_policy_is_drawn_on_the_sheet(tmp_path, policy):
    run(tmp_path, tiny_dataset(channels=3), steps=1, **{"augment.policy": policy, "mix.kind": "none"})
    page = (tmp_path / "report.html").read_text()
    assert "10. Are the inputs correct?" in page
    assert page.count("view 2") >= 12


@pytest.mark.slow
def test_the_report_compares_the_labels_loss_with_chance(student):
    page = (student[0] / "report.html").read_text()
    assert "train/label_loss" in page or "entropy of the teacher" in page
    assert "chance-level loss" in page
    assert student[1]["chance_loss"] == pytest.approx(rows_of(student[0])[0]["train/chance_loss"], rel=0.01)


@pytest.mark.slow
def test_a_classifier_at_chance_has_the_loss_of_equal_classes(teacher):
    assert teacher[1]["chance_loss"] == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": "linear_probe", "augment.num_views": 1},
            "model.weights is None; allowed with objective linear_probe",
        ),
        ({"teacher.kind": "workdir"}, "teacher.path is None; allowed with teacher.kind workdir"),
        ({"teacher.kind": "workdir", "teacher.path": "nowhere"}, "nowhere"),
        ({"model.weights": "nowhere"}, "nowhere"),
        ({"augment.num_views": 1}, "augment.num_views is 1; allowed with objective contrastive: 2 or more"),
        (
            {"objective": "linear_probe", "augment.num_views": 1, "model.weights": "x", "teacher.kind": "callable"},
            "teacher.kind is 'callable'; allowed with objective linear_probe: none",
        ),
        (
            {"loss.mode": "momentum", "momentum_encoder.queue_size": 100},
            "momentum_encoder.queue_size is 100; allowed: 0 or a multiple of batch_size (32) from 32; nearest: 96 or 128",
        ),
        (
            {"batch_size": 1, "mix.block": 2, "mix.kind": "none"},
            "batch_size is 1: an image has no others to be compared with",
        ),
        (
            {"optimizer.name": "adam", "optimizer.second_momentum": 1.0},
            "optimizer.second_momentum is 1; allowed with adam: from 0 to below 1",
        ),
        ({"momentum_encoder.momentum": 1.5}, "momentum_encoder.momentum is 1.5; allowed: a number from 0 to 1"),
    ],
)
def test_invalid_settings_are_one_line_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_teacher_with_different_classes_is_refused(teacher, tmp_path):
    with pytest.raises(UserError, match=r"teacher .*4 classes.*2"):
        run(tmp_path, tiny_dataset(num_classes=2), **{"teacher.kind": "workdir", "teacher.path": str(teacher[0])})


@pytest.mark.slow
def test_an_encoder_of_a_different_width_is_refused(student, tmp_path):
    with pytest.raises(UserError, match=r"does not fit this network: .*set model.name"):
        run(tmp_path, **{"model.weights": str(student[0]), "model.width": 8})


def test_cross_entropy_is_that_of_optax_with_smoothing():
    logits = jnp.array([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    labels = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0]])
    value, accuracy = softmax_cross_entropy(logits, labels, 0.1, None)
    smoothed = 0.9 * labels + 0.1 / 4
    assert float(value) == pytest.approx(float(optax.softmax_cross_entropy(logits, smoothed).mean()))
    assert float(accuracy) == 1.0
