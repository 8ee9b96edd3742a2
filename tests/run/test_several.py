"""Whole runs on images with several labels: every objective, mixing, teacher, resume, and what is refused."""

import json

import jax
import numpy as np
import pytest

from gensupcon_jax.data.datasets import from_arrays
from gensupcon_jax.errors import UserError
from gensupcon_jax.run.config_check import check_config
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.summary import summary
from gensupcon_jax.run.train import train_and_evaluate
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


def test_a_config_with_several_refuses_arrays_of_one_class(tmp_path):
    one_class = from_arrays(np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2)
    with pytest.raises(
        UserError, match=r"dataset.label_kind is 'several', but the labels of arrays are of the kind 'class'"
    ):
        build_run(tiny_config(**{"dataset.label_kind": "several"}), tmp_path, one_class)
