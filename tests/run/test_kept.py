"""What a run keeps: the probe that its results count, or the neighbors, or a sentence; and its test predictions."""

import jax
import pytest

from gensupcon_jax.evaluation import final
from gensupcon_jax.evaluation.features import extract
from gensupcon_jax.evaluation.kept_neighbors import read_neighbors
from gensupcon_jax.evaluation.kept_predictions import read_predictions
from gensupcon_jax.evaluation.kept_probe import read_probe
from gensupcon_jax.evaluation.outcome import top1
from gensupcon_jax.run import train
from gensupcon_jax.run.run import build_run
from tests.tiny import tiny_config, tiny_dataset

pytestmark = pytest.mark.slow  # whole runs

DEVICE = jax.devices()[:1]


def evaluated(folder, **changes):
    """(results, test features, test classes) of a run of 0 steps, which evaluates its initial state."""
    config = tiny_config(steps=0, **changes)
    results = train.train_and_evaluate(config, folder, tiny_dataset(), devices=DEVICE)
    run = build_run(config, folder, tiny_dataset(), devices=DEVICE)
    predict_fn = run.predict_fn(run.initial_state())
    settings = run.evaluation_settings().extraction
    return results, extract(lambda images: predict_fn(images).features, run.dataset.test, **settings), run.dataset.test


def test_the_kept_probe_has_the_accuracy_of_the_results(tmp_path):
    results, features, test = evaluated(tmp_path)
    probe = read_probe(tmp_path, 0)
    assert probe.class_numbers.tolist() == [0, 1, 2, 3]
    assert top1(probe.probabilities(features).argmax(1), test.classes) == results["linear_top1"]
    assert not (tmp_path / "neighbors.npz").exists()


def test_the_kept_predictions_have_the_accuracies_of_the_results(tmp_path):
    results, _, test = evaluated(tmp_path)
    kept = read_predictions(tmp_path)
    assert kept.labels.tolist() == test.classes.tolist()
    accuracies = {f"{name}_top1": top1(each, test.classes) for name, each in kept.predictions[0].items()}
    assert accuracies == {name: results[name] for name in ("linear_top1", "knn_top1", "raw_pixel_knn_top1")}


def test_without_a_probe_the_neighbors_are_kept_or_a_sentence_says_that_nothing_is(tmp_path, monkeypatch, capsys):
    results, features, test = evaluated(tmp_path / "kept", **{"evaluate.linear_probe": False})
    kept = read_neighbors(tmp_path / "kept", 0)
    assert kept.neighbors == results["knn_neighbors"]
    assert top1(kept.class_probabilities(features, 4).argmax(1), test.classes) == results["knn_top1"]
    assert not (tmp_path / "kept" / "probe.npz").exists()
    assert "nothing is kept" not in capsys.readouterr().err

    monkeypatch.setattr(final, "fits", lambda train: False)
    evaluated(tmp_path / "large", **{"evaluate.linear_probe": False})
    assert not (tmp_path / "large" / "neighbors.npz").exists()
    assert "nothing is kept that predicts classes of new images: no probe was fitted" in capsys.readouterr().err
