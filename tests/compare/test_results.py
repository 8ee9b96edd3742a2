"""Tables of results, and what limits a comparison."""

import json

from gensupcon_jax.compare.groups import grouped
from gensupcon_jax.compare.page import compare, render_comparison
from gensupcon_jax.compare.results import measure_table, notes, result_table, seed_table, time_table
from gensupcon_jax.compare.runs import read_runs
from gensupcon_jax.compare.table import as_text
from tests.compare.workdirs import TEST, make_run, write_json


def test_results_of_last_and_best_step(tmp_path):
    runs = read_runs([
        make_run(tmp_path / "a", linear=(1,), knn=(1, 2), best=(3,), seed=4),
        make_run(tmp_path / "b", finished=False),
    ])  # fmt: skip
    assert result_table(runs).heading == [
        "run",
        "seed",
        "last step",
        "best step",
        "linear probe, last",
        "k-NN, last",
        "k-NN, best",
    ]
    assert result_table(runs).rows == [
        ["a", "4", "16", "4", "99.00 %", "98.00 %", "99.00 %"],
        ["b", "0", "-", "-", "-", "-", "-"],
    ]


def test_mean_and_spread(tmp_path):
    runs = read_runs([
        *(make_run(tmp_path / f"a_{seed}", seed=seed, linear=range(2 * seed)) for seed in range(3)),
        make_run(tmp_path / "b", linear=(1,), epochs=1.0),
    ])  # fmt: skip
    table = seed_table(grouped(runs))
    assert [row[:3] for row in table.rows] == [["a", "3", "98.00 ± 2.00 %"], ["b", "1", "99.00 %"]]
    assert seed_table(grouped(runs[2:])) is None


def test_further_measures(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    assert measure_table(read_runs(folders)) is None
    results = json.loads((folders[0] / "results.json").read_text())
    write_json(folders[0] / "results.json", results | {"measures": {"recall_at_1": 0.98765}})
    assert measure_table(read_runs(folders)) == (["run", "recall_at_1"], [["a", "0.9877"], ["b", "-"]])


def test_time_and_goodput_where_they_are_known(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b"), make_run(tmp_path / "c", finished=False)]
    assert time_table(read_runs(folders)) is None
    results = json.loads((folders[0] / "results.json").read_text())
    write_json(folders[0] / "results.json", results | {"time": {"wall": 5000.0, "goodput": 91.26}})
    assert time_table(read_runs(folders)) == (
        ["run", "time", "goodput"],
        [["a", "1 h 23 min", "91.3 %"], ["b", "-", "-"], ["c", "-", "-"]],
    )
    page = compare(read_runs(folders))
    assert "1 h 23 min" in as_text(page)
    assert "91.3 %" in render_comparison(page, "gensupcon compare a b c")


def test_unfinished_runs_old_runs_other_data_and_other_losses_are_said(tmp_path):
    runs = read_runs([
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", finished=False, rows=3, loss={"temperature": 0.2}),
        make_run(tmp_path / "c", keeps=False, test=TEST._replace(images=TEST.images + 1)),
        make_run(tmp_path / "d", finished=False, rows=0),
    ])  # fmt: skip
    assert notes(runs) == [
        "b is not finished (was last logged at step 6): it has curves, but no results.",
        "c keeps no test predictions (it is of an earlier version): no paired test on its images.",
        "d is not finished (has not logged a step): it has curves, but no results.",
        "The runs have different test images (digits: a, b, d; digits: c): paired tests are made within the same images only.",
        "The losses are not on one scale, as loss.temperature differs: compare the accuracies.",
    ]
    assert notes(runs[:1]) == []


def test_a_run_without_labels_has_no_accuracies(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", keeps=False)]
    write_json(folders[1] / "results.json", {"steps": 16, "best": None, "num_validation": 0, "choices": "validation"})
    assert notes(read_runs(folders))[0] == "b was trained without labels: it has curves, but no accuracies."


def test_a_score_of_some_runs_is_said_with_their_names(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    dataset = json.loads((folders[1] / "dataset.json").read_text())
    write_json(folders[1] / "dataset.json", dataset | {"label_kind": "value"})
    write_json(folders[1] / "results.json", {"steps": 16, "linear_r2": 50.0})
    found = notes(read_runs(folders))
    assert any(note.startswith("Numbers of b are the share of the variance explained (R²);") for note in found)
    write_json(folders[0] / "dataset.json", dataset | {"label_kind": "value"})
    write_json(folders[0] / "results.json", {"steps": 16, "linear_r2": 50.0})
    assert any(note.startswith("Numbers are the share of the variance") for note in notes(read_runs(folders)))
