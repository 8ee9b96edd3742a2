"""A run that trains on all images: nothing is chosen by a score, and log, metrics, results, report and comparisons say so."""

import dataclasses

import jax
import numpy as np
import pytest

from gensupcon_jax.compare.results import notes, result_table
from gensupcon_jax.compare.runs import read_runs
from gensupcon_jax.data import datasets
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.choices import Choices
from gensupcon_jax.evaluation.final import Settings
from gensupcon_jax.inference.encoder import Encoder
from gensupcon_jax.inference.evaluate_scores import evaluate_encoder, results_table
from gensupcon_jax.run import train
from gensupcon_jax.run.run import build_run
from gensupcon_jax.run.summary import summary
from gensupcon_jax.store.metrics import read_metrics
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]
SETTINGS = {
    "steps": 2,
    "evaluate.every_steps": 1,
    "evaluate.neighbors": (1, 3, 5),
    "evaluate.measures": ("recall_at_1",),
}
SAID = "there is no validation split: nothing is evaluated while training, only the last step counts, and k of k-NN ("


def all_images():
    cut = tiny_dataset()
    arrays = [(split.images, split.classes) for split in (cut.train, cut.test)]
    return datasets.from_arrays(*arrays[0], test=arrays[1], validation_fraction=0)


def test_choices_of_another_run_are_refused_where_there_is_a_validation_split(tmp_path):
    config = tiny_config(**{"evaluate.choices_from": str(tmp_path)})
    with pytest.raises(
        UserError, match=r"evaluate\.choices_from is .*; allowed with 16 validation images, on which this"
    ):
        build_run(config, tmp_path / "run", tiny_dataset(), devices=DEVICE)


def test_the_teacher_is_checked_on_training_images(tmp_path):
    run = build_run(tiny_config(), tmp_path, all_images(), devices=DEVICE)
    split, name = run.teacher_images()
    assert (split.num_images, name) == (96, "96 training images, as there is no validation split,")
    split, name = build_run(tiny_config(), tmp_path, tiny_dataset(), devices=DEVICE).teacher_images()
    assert (split.num_images, name) == (16, "validation images")


def test_the_teacher_is_checked_on_images_that_have_a_label(tmp_path):
    config = tiny_config(**{"dataset.labeled_images": 12})
    split, name = build_run(config, tmp_path, all_images(), devices=DEVICE).teacher_images()
    assert (split.num_images, name) == (12, "12 training images, as there is no validation split,")
    assert split.is_labeled.all()
    nothing = all_images()
    nothing = dataclasses.replace(nothing, train=nothing.train.without_labels(np.ones(96, bool)))
    assert build_run(tiny_config(), tmp_path, nothing, devices=DEVICE).teacher_images() is None


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Workdir and results of a run on all images, and of one with the choices of a run with validation."""
    root = tmp_path_factory.mktemp("runs")
    chosen = train.train_and_evaluate(tiny_config(**SETTINGS), root / "chosen", tiny_dataset(), devices=DEVICE)
    whole = train.train_and_evaluate(tiny_config(**SETTINGS), root / "whole", all_images(), devices=DEVICE)
    own = SETTINGS | {"evaluate.choices_from": str(root / "chosen")}
    follows = train.train_and_evaluate(tiny_config(**own), root / "follows", all_images(), devices=DEVICE)
    return root, chosen, whole, follows


@pytest.mark.slow
def test_results_say_who_has_chosen(ran):
    root, chosen, whole, follows = ran
    assert [each["choices"] for each in (chosen, whole, follows)] == ["validation", "defaults", str(root / "chosen")]
    assert (whole["num_train"], whole["num_validation"]) == (96, 0)
    assert (whole["knn_neighbors"], whole["linear_penalty"]) == (3, 0.1)
    assert (whole["best"], whole["best_step"]) == (None, None)
    assert (whole["knn_validation_top1"], whole["linear_validation_top1"]) == (None, None)
    assert whole["validation_measures"] == {"recall_at_1": None}
    assert follows["knn_neighbors"] == chosen["knn_neighbors"]
    assert chosen["knn_validation_top1"] is not None


@pytest.mark.slow
def test_log_metrics_and_report_say_so(ran, capsys):
    root, chosen, whole, _ = ran
    rows = read_metrics(root / "whole")
    assert rows[0]["advice"] == [f"{SAID}3) and the probe's penalty (0.1) are not chosen but the defaults"]
    assert f"not chosen but those of {root / 'chosen'}" in read_metrics(root / "follows")[0]["advice"][0]
    assert not any("knn/top1" in row for row in rows)
    assert any("knn/top1" in row for row in read_metrics(root / "chosen"))
    page = (root / "whole" / "report.html").read_text()
    assert "not chosen on validation images" in page and SAID.replace("'", "&#39;") in page
    assert "there was no validation split: the last step, with k" in summary(whole, root)
    assert "there was no validation split" not in summary(chosen, root)


@pytest.mark.slow
def test_a_comparison_says_so(ran):
    root = ran[0]
    runs = read_runs([root / name for name in ("chosen", "whole")])
    table = result_table(runs)
    assert [row[3] for row in table.rows] == [str(ran[1]["best_step"]), "-"]
    said = "whole has no validation split: only its last step counts, and its k and its probe's penalty are default values."
    assert said in notes(runs)


@pytest.mark.slow
def test_the_encoder_is_evaluated_on_data_without_a_validation_split(ran):
    """The same numbers as at the end of the run, which chose nothing either."""
    root, _, whole, _ = ran
    encoder = Encoder.load(root / "whole")
    settings = Settings.of(
        tiny_config(**SETTINGS).evaluate,
        dataset=all_images(),
        extraction=encoder.extraction(32),
        choices=Choices(3, 0.1),
        measures=("recall_at_1",),
    )
    results = evaluate_encoder(encoder, all_images(), settings)
    assert (results["choices"], results["num_validation"], results["knn_validation_top1"]) == ("defaults", 0, None)
    assert (results["knn_top1"], results["linear_top1"]) == (whole["knn_top1"], whole["linear_top1"])
    printed = results_table(results)
    assert "there is no validation split: k and penalty are the middle candidates, not chosen" in printed
    (row,) = [line for line in printed.splitlines() if line.startswith("k-NN, top-1 (k 3)")]
    assert row.split()[-1] == f"{results['knn_top1']:.2f}" and len(row.split()) == 5


@pytest.mark.slow
def test_the_run_embeds_and_predicts_and_has_no_best_step(ran):
    root = ran[0]
    images = all_images().test.images
    assert Encoder.load(root / "whole").predict(images).classes.shape == (32,)
    with pytest.raises(UserError, match="records no best step"):
        Encoder.load(root / "whole", step="best")
