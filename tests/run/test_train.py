"""A whole run: the files it writes, how it resumes, and what it refuses."""

import html
import json
import shutil

import jax
import numpy as np
import pytest

from gensupcon_jax.data import input_pipeline
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import train
from gensupcon_jax.store import checkpoint
from tests.running import without_times
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    results = train.train_and_evaluate(
        tiny_config(), folder, tiny_dataset(), devices=DEVICE, launch=train.Launch("make tiny")
    )
    return folder, results


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_writes_all_its_files(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "dataset.json", "metrics.jsonl", "tensorboard", "checkpoints", "results.json", "report.html",
        "suspicious_labels.csv", "near_duplicates.csv",
        "predictions.npz",
        "probe.npz",
        "time.json",
    }  # fmt: skip


def test_the_saved_config_is_the_one_that_ran(finished):
    saved = json.loads((finished[0] / "config.json").read_text())
    assert saved["dataset"]["name"] == "arrays"  # the recipe names digits, the caller passes arrays
    assert saved["model"]["width"] == 4


def test_metrics_are_one_object_per_line(finished):
    rows = rows_of(finished[0])
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 6]
    for name in ("train/loss", "train/learning_rate", "train/images_per_second", "train/gradient_norm", "train/epoch"):
        assert name in rows[1]
    assert [row["step"] for row in rows if "knn/top1" in row] == [3, 6]  # every epoch of 3 steps


def test_results_hold_all_final_numbers(finished):
    folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == results
    for name in ("linear_top1", "knn_top1", "raw_pixel_knn_top1", "linear_validation_top1", "knn_validation_top1"):
        assert 0 <= results[name] <= 100
    assert (results["seed"], results["steps"], results["num_test"], results["device"]) == (0, 6, 32, "cpu")
    assert results["versions"]["jax"] == jax.__version__
    assert results["seconds"] >= results["train_seconds"] > 0


def test_the_time_of_a_run_adds_up(finished):
    folder, results = finished
    account = results["time"]
    assert account["wall"] == results["seconds"] == pytest.approx(sum(account["seconds"].values()))
    for phase in ("data", "compile", "step", "evaluation", "save", "final_evaluation", "report"):
        assert account["seconds"][phase] > 0
    assert account["goodput"] == pytest.approx(100 * account["seconds"]["step"] / account["wall"])
    page = (folder / "report.html").read_text()
    assert "Where did the time go?" in page and "tracing and compiling" in page


def test_the_report_shows_the_run(finished):
    page = (finished[0] / "report.html").read_text()
    assert "make tiny" in page
    assert f"{finished[1]['linear_top1']:.1f}" in page


def test_a_finished_run_is_not_repeated(finished, monkeypatch):
    folder, results = finished
    monkeypatch.setattr(train.loop, "train", None)
    assert train.train_and_evaluate(tiny_config(), folder, tiny_dataset(), devices=DEVICE) == results


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_stopped_run_resumes_to_the_same_end(finished, tmp_path, monkeypatch, stop_after):
    real = input_pipeline.train_batches

    def stops(*args, **kwargs):
        for number, batch in enumerate(real(*args, **kwargs)):
            if number == stop_after:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(input_pipeline, "train_batches", stops)
    with pytest.raises(KeyboardInterrupt):
        train.train_and_evaluate(tiny_config(), tmp_path, tiny_dataset(), devices=DEVICE)
    monkeypatch.setattr(input_pipeline, "train_batches", real)
    results = train.train_and_evaluate(tiny_config(), tmp_path, tiny_dataset(), devices=DEVICE)
    assert without_times(rows_of(tmp_path)) == without_times(rows_of(finished[0]))
    same = [key for key in results if key != "time" and not key.endswith("seconds")]
    assert {key: results[key] for key in same} == {key: finished[1][key] for key in same}


def stopped_after(step, folder, monkeypatch, config, devices=DEVICE):
    """A run that was interrupted after a step; saved every step."""
    real = input_pipeline.train_batches

    def stops(*args, **kwargs):
        for number, batch in enumerate(real(*args, **kwargs)):
            if number == step:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(input_pipeline, "train_batches", stops)
        with pytest.raises(KeyboardInterrupt):
            train.train_and_evaluate(config, folder, tiny_dataset(), devices=devices)


def losses_of(folder):
    return [row["train/loss"] for row in rows_of(folder) if "train/loss" in row]


MOMENTUM = {
    "log_steps": 1, "checkpoint.every_steps": 1, "loss.mode": "momentum", "momentum_encoder.queue_size": 64,
    "classifier.beside": True, "optimizer.name": "adamw", "optimizer.learning_rate": 1e-3,
}  # fmt: skip


@pytest.mark.slow
def test_a_run_ended_by_an_exception_waits_for_its_pending_save(tmp_path, monkeypatch):
    folder = tmp_path / "run" / "checkpoints"
    begun, real = [], checkpoint.ocp.CheckpointManager.wait_until_finished

    def waits(manager):
        begun.append(sorted(path.name for path in folder.iterdir()))
        real(manager)

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "wait_until_finished", waits)
    stopped_after(3, tmp_path / "run", monkeypatch, tiny_config(**MOMENTUM))
    assert begun  # it was waited for
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]


@pytest.mark.slow
def test_encoder_average_queue_labels_and_adam_resume_bit_for_bit(tmp_path, monkeypatch):
    config = tiny_config(**MOMENTUM)
    train.train_and_evaluate(config, tmp_path / "whole", tiny_dataset(), devices=DEVICE)
    stopped_after(3, tmp_path / "stopped", monkeypatch, config)
    shutil.copytree(tmp_path / "stopped", tmp_path / "wrong")
    shutil.copytree(tmp_path / "stopped", tmp_path / "on_two")
    train.train_and_evaluate(config, tmp_path / "stopped", tiny_dataset(), devices=DEVICE)
    assert without_times(rows_of(tmp_path / "stopped")) == without_times(rows_of(tmp_path / "whole"))
    assert bits_of(tmp_path / "stopped", 6) == bits_of(tmp_path / "whole", 6)
    assert any(name.startswith("queue/labels") for name in bits_of(tmp_path / "whole", 6))

    # Negative control: a resume that restarts the data is a different run.
    real = input_pipeline.train_batches

    def from_the_start(*args, steps, **kwargs):
        return real(*args, steps=range(len(steps)), **kwargs)

    monkeypatch.setattr(input_pipeline, "train_batches", from_the_start)
    train.train_and_evaluate(config, tmp_path / "wrong", tiny_dataset(), devices=DEVICE)
    assert losses_of(tmp_path / "wrong")[:2] == losses_of(tmp_path / "whole")[:2]  # the third save may be lost
    assert losses_of(tmp_path / "wrong")[3:] != losses_of(tmp_path / "whole")[3:]
    monkeypatch.setattr(input_pipeline, "train_batches", real)

    # On another number of devices the same images follow; only the order of the sums differs.
    train.train_and_evaluate(config, tmp_path / "on_two", tiny_dataset(), devices=jax.devices()[:2])
    assert losses_of(tmp_path / "on_two") == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-3)


@pytest.mark.slow
def test_twenty_steps_on_another_number_of_devices_agree(tmp_path, monkeypatch):
    config = tiny_config(steps=23, log_steps=1, **{"evaluate.every_epochs": 0, "checkpoint.every_steps": 3})
    train.train_and_evaluate(config, tmp_path / "whole", tiny_dataset(), devices=DEVICE)
    stopped_after(3, tmp_path / "on_two", monkeypatch, config)
    train.train_and_evaluate(config, tmp_path / "on_two", tiny_dataset(), devices=jax.devices()[:2])
    assert len(losses_of(tmp_path / "on_two")) == 23
    assert losses_of(tmp_path / "on_two") == pytest.approx(losses_of(tmp_path / "whole"), rel=1e-3)


def bits_of(folder, step):
    return json.loads((folder / "checkpoints" / str(step) / "record" / "metadata").read_text())["bits"]


def test_a_checkpoint_holds_config_versions_and_the_best_step(finished):
    folder, results = finished
    record = json.loads((folder / "checkpoints" / "6" / "record" / "metadata").read_text())
    assert record["config"]["model"]["width"] == 4
    assert record["history"] == []
    assert record["versions"]["jax"] == jax.__version__
    assert record["fingerprints"] == {"teacher": None, "weights": None}
    scores = {row["step"]: row["knn/top1"] for row in rows_of(folder) if "knn/top1" in row}
    best = max(sorted(scores), key=scores.get)
    assert record["best"] == {"step": best, "metric": "knn/top1", "value": scores[best]}
    assert results["best_step"] == best
    assert (folder / "checkpoints" / str(best)).is_dir()


def test_the_time_that_training_waits_for_saves_is_logged(finished):
    rows = [row for row in rows_of(finished[0]) if "train/stall_seconds" in row]
    assert all(row["train/stall_seconds"] >= 0 for row in rows)
    assert any(row["train/stall_seconds"] > 0 for row in rows)  # of the save before the row


@pytest.mark.slow
def test_at_most_two_steps_are_in_flight(tmp_path, monkeypatch):
    most, waiting = 0, []

    class Metric:
        """A number that must be waited for."""

        def __float__(self):
            if self in waiting:
                waiting.remove(self)
            return 0.0

        def __bool__(self):
            return bool(float(self))

    real = train.assemble.build_parts

    def build_parts(*args, **kwargs):
        parts = real(*args, **kwargs)

        def step_fn(state, *inputs):
            nonlocal most
            state, metrics = parts.train_step_fn(state, *inputs)
            waiting.append(Metric())
            most = max(most, len(waiting))
            return state, metrics | {"diverged": waiting[-1]}

        return parts._replace(sized=(parts.sized[0]._replace(train_step_fn=step_fn),))

    monkeypatch.setattr(train.assemble, "build_parts", build_parts)
    monkeypatch.setattr(jax, "device_get", lambda tree: tree)
    config = tiny_config(log_steps=100, **{"evaluate.every_epochs": 0.0, "checkpoint.every_steps": 100})
    train.train_and_evaluate(config, tmp_path, tiny_dataset(), devices=DEVICE)
    assert most == 2


def test_a_different_config_is_refused_and_nothing_changes(finished):
    folder, _ = finished
    before = (folder / "results.json").read_bytes()
    with pytest.raises(UserError, match=r"loss.temperature \(0.1 there, 0.5 now\)"):
        train.train_and_evaluate(tiny_config(**{"loss.temperature": 0.5}), folder, tiny_dataset(), devices=DEVICE)
    with pytest.raises(UserError, match=r"different data: .*fingerprint"):
        train.train_and_evaluate(tiny_config(), folder, tiny_dataset(seed=1), devices=DEVICE)
    assert (folder / "results.json").read_bytes() == before


@pytest.mark.slow
def test_a_warm_up_in_steps_overrides_the_one_in_epochs(tmp_path):
    config = tiny_config(steps=None, epochs=1.0, **{"optimizer.warmup_epochs": 10.0, "optimizer.warmup_steps": 0})
    results = train.train_and_evaluate(config, tmp_path, tiny_dataset(), devices=DEVICE)
    assert results["steps"] == 3


@pytest.mark.slow
def test_a_resumed_run_does_not_repeat_what_was_reported(tmp_path, monkeypatch, capsys):
    collapses = tiny_config(
        steps=70,
        log_steps=1,
        **{"optimizer.learning_rate": 50.0, "optimizer.schedule": "constant", "checkpoint.every_steps": 60},
    )
    real = input_pipeline.train_batches

    def stops(*args, **kwargs):
        for number, batch in enumerate(real(*args, **kwargs)):
            if number == 65:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(input_pipeline, "train_batches", stops)
    with pytest.raises(KeyboardInterrupt):
        train.train_and_evaluate(collapses, tmp_path, tiny_dataset(), devices=DEVICE)
    assert capsys.readouterr().err.count("learning rate too large: ") == 1
    monkeypatch.setattr(input_pipeline, "train_batches", real)
    train.train_and_evaluate(collapses, tmp_path, tiny_dataset(), devices=DEVICE)
    assert capsys.readouterr().err.count("learning rate too large: ") == 0
    said = [sentence for row in rows_of(tmp_path) for sentence in row.get("advice", [])]
    assert sum(sentence.startswith("learning rate too large: ") for sentence in said) == 1  # kept from the first start
    page = (tmp_path / "report.html").read_text()
    assert all(sentence in html.unescape(page) for sentence in said)


@pytest.mark.slow
def test_another_seed_is_another_run(finished, tmp_path):
    train.train_and_evaluate(tiny_config(seed=1), tmp_path, tiny_dataset(), devices=DEVICE)
    assert without_times(rows_of(tmp_path)) != without_times(rows_of(finished[0]))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_more_devices_give_the_same_run(finished, tmp_path, devices):
    train.train_and_evaluate(tiny_config(), tmp_path, tiny_dataset(), devices=jax.devices()[:devices])
    for row, other in zip(rows_of(tmp_path), rows_of(finished[0]), strict=True):
        assert row["train/loss"] == pytest.approx(other["train/loss"], rel=1e-4) if "train/loss" in row else True


@pytest.mark.slow
def test_color_images_bfloat16_soft_labels_and_every_option_run(tmp_path):
    dataset = tiny_dataset(channels=3, size=9)
    config = tiny_config(
        steps=2,
        **{
            "model.dtype": "bfloat16",
            "model.head": "linear",
            "model.batch_norm": "local",
            "loss.mode": "one",
            "loss.normalizer": "count",
            "loss.base_temperature": None,
            "loss.tile_size": 7,
            "mix.per": "image",
            "mix.views": "alike",
            "augment.num_views": 3,
            "evaluate.every_epochs": 0.0,
        },
    )
    results = train.train_and_evaluate(config, tmp_path, dataset, devices=jax.devices()[:2])
    assert [row["step"] for row in rows_of(tmp_path) if "knn/top1" in row] == [2]
    assert np.isfinite([row["train/loss"] for row in rows_of(tmp_path)]).all()
    assert results["num_devices"] == 2


@pytest.mark.parametrize(
    ("changes", "devices", "message"),
    [
        (
            {"batch_size": 30, "mix.block": 2},
            4,
            "batch_size is 30, not divisible by 4 devices; set batch_size to 28 or 32, "
            "or use another number of devices",
        ),
        (
            {"mix.block": 5},
            1,
            "mix.block is 5, which does not divide the 32 images per device; allowed: 2, 4, 8, 16, 32",
        ),
        (
            {"batch_size": 4},
            4,
            "mix.kind is 'mixup_cutmix', but 1 image per device has no partner to mix with; allowed: raise batch_size (4) to "
            "8 or more, or set mix.kind to none",
        ),
        (
            {
                "batch_size": 8,
                "loss.mode": "momentum",
                "momentum_encoder.queue_size": 16,
                "model.batch_norm": "local",
                "mix.block": 2,
            },
            4,
            "batch_size is 8, so 2 keys per device cannot be spread over 4 devices in equal parts, which model.batch_norm local "
            "needs with loss.mode momentum; allowed: a multiple of 16, such as 16, or model.batch_norm sync",
        ),
        ({"batch_size": 512}, 1, "batch_size is 512; allowed: 1 to 96, the number of training images"),
        ({"loss.temperature": 0.0}, 1, "loss.temperature is 0.0; allowed: a number above 0"),
        ({"mix.kind": "cutmx"}, 1, "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix"),
        ({"loss.normalizer": "sum", "loss.mode": "both"}, 1, "loss.mode is 'both'; allowed: all, one, momentum"),
    ],
)
def test_invalid_settings_are_reported_before_anything_is_written(tmp_path, changes, devices, message):
    with pytest.raises(UserError) as error:
        train.train_and_evaluate(
            tiny_config(**changes), tmp_path / "run", tiny_dataset(), devices=jax.devices()[:devices]
        )
    assert message in str(error.value).splitlines()
    assert not (tmp_path / "run").exists()
