"""A whole run on long-tailed data, with everything for rare classes: results, resume, prediction."""

import numpy as np
import pytest

import gensupcon_jax as gsc
from gensupcon_jax.data import input_pipeline
from gensupcon_jax.run import train
from tests.run.test_train import rows_of
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset

pytestmark = pytest.mark.slow


def imbalanced_config():
    return tiny_config(
        **{
            "steps": 8,
            "batch_size": 16,
            "mix.block": 2,
            "dataset.imbalance_factor": 4.0,
            "dataset.sampling": "balanced",
            "dataset.remainder": "carry",
            "loss.denominator": "balanced",
            "loss.mode": "momentum",
            "momentum_encoder.queue_size": 32,
            "mix.kind": "cutmix",
            "prototypes.use": True,
            "prototypes.prior": True,
            "evaluate.linear_probe": False,
            "checkpoint.every_steps": 4,
        }
    )


def stops_at(step):
    real = input_pipeline.train_batches

    def stops(*arguments, **settings):
        for number, batch in enumerate(real(*arguments, **settings)):
            if number == step:
                raise KeyboardInterrupt
            yield batch

    return stops


def test_a_run_with_everything_for_rare_classes_resumes_and_predicts(tmp_path, monkeypatch):
    dataset = tiny_dataset(num=216)
    whole = train.train_and_evaluate(imbalanced_config(), tmp_path / "whole", dataset)
    with monkeypatch.context() as patched:
        patched.setattr(input_pipeline, "train_batches", stops_at(6))
        with pytest.raises(KeyboardInterrupt):
            train.train_and_evaluate(imbalanced_config(), tmp_path / "stopped", dataset)
    resumed = train.train_and_evaluate(imbalanced_config(), tmp_path / "stopped", dataset)
    assert without_times(rows_of(tmp_path / "stopped")) == without_times(rows_of(tmp_path / "whole"))
    assert whole["num_train"] == 36 + 22 + 14 + 9
    for results in (whole, resumed):
        assert len(results["per_class_top1"]["classifier"]) == 4
        assert results["classifier_macro_top1"] == pytest.approx(np.mean(results["per_class_top1"]["classifier"]))
        assert results["classifier_macro_top1"] == whole["classifier_macro_top1"]
    assert all("train/classifier_accuracy" in row for row in rows_of(tmp_path / "whole") if "train/loss" in row)
    predictions = gsc.Encoder.load(tmp_path / "whole").predict(dataset.test.images)
    assert predictions.predictor == "classifier"
    assert 100 * np.mean(predictions.classes == dataset.test.classes) == pytest.approx(whole["classifier_top1"])
