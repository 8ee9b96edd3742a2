"""Runs as their workdirs hold them; what is no run, is given twice or is alone has one line each."""

import json

import numpy as np
import pytest

from gensupcon_jax.compare.runs import read_runs, unique_names
from gensupcon_jax.errors import UserError
from tests.compare.workdirs import make_run, write_json, wrong_at


def refusal(*folders):
    with pytest.raises(UserError) as error:
        read_runs(folders)
    return str(error.value)


def test_a_run_is_read(tmp_path):
    make_run(tmp_path / "a", linear=(3, 4), knn=(5,), best=(6, 7, 8), seed=2)
    run, _ = read_runs([tmp_path / "a", make_run(tmp_path / "b")])
    assert (run.name, run.seed, run.config["loss.temperature"]) == ("a", 2, 0.1)
    assert (run.step("last"), run.step("best")) == (16, 4)
    assert run.correct("last", "linear").tolist() == (wrong_at(3, 4) == np.arange(100) % 10).tolist()
    assert [run.accuracy("last", "linear"), run.accuracy("last", "knn"), run.accuracy("best", "knn")] == [98, 99, 97]
    assert run.accuracy("best", "linear") is None and run.accuracy("last", "classifier") is None


def test_without_kept_predictions_the_results_count(tmp_path):
    folder = make_run(tmp_path / "a", linear=(3, 4), keeps=False)
    results = json.loads((folder / "results.json").read_text())
    write_json(folder / "results.json", results | {"best_step": 4, "best": {"step": 4, "linear_top1": 91.5}})
    run, _ = read_runs([folder, make_run(tmp_path / "b")])
    assert (run.accuracy("last", "linear"), run.accuracy("best", "linear")) == (98.0, 91.5)
    assert run.correct("last", "linear") is None


def test_an_unfinished_run_has_no_results(tmp_path):
    run, _ = read_runs([make_run(tmp_path / "a", finished=False), make_run(tmp_path / "b")])
    assert run.results is None and run.step("last") is None and run.accuracy("last", "knn") is None
    assert len(run.metrics) == 8


def test_names_tell_runs_apart(tmp_path):
    paths = [tmp_path / "one/digits", tmp_path / "two/digits", tmp_path / "other"]
    assert unique_names(paths[1:]) == ["digits", "other"]
    assert unique_names(paths) == ["one/digits", "two/digits", f"{tmp_path.name}/other"]


def test_what_is_no_run_has_one_line_each(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    lines = refusal(tmp_path / "nowhere", tmp_path / "empty", tmp_path / "file").splitlines()
    assert lines == [
        f"{tmp_path / 'nowhere'} does not exist; allowed: the --workdir of a run",
        f"{tmp_path / 'empty'} contains no config.json and no dataset.json: it is not the workdir of a run; "
        "allowed: the --workdir of a run",
        f"{tmp_path / 'file'} is not a folder; allowed: the --workdir of a run",
    ]


def test_the_same_run_twice_is_refused(tmp_path):
    folder = make_run(tmp_path / "a")
    (tmp_path / "link").symlink_to(folder)
    again = f"{tmp_path}/x/../a"
    (tmp_path / "x").mkdir()
    for other in (folder, again, tmp_path / "link"):
        assert refusal(folder, other) == f"{other} is the same run as {folder}; name each run once"


def test_one_run_alone_is_refused(tmp_path):
    folder = make_run(tmp_path / "a")
    assert refusal(folder) == f"only one run is given, {folder}; allowed: 2 or more workdirs"


def test_a_damaged_file_is_named(tmp_path):
    folder, other = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (folder / "config.json").write_text('{"seed": ')
    assert refusal(folder, other).startswith(f"{folder / 'config.json'} cannot be read (Expecting value")
    (folder / "config.json").write_text("[1]")
    assert refusal(folder, other) == (
        f"{folder / 'config.json'} cannot be read (it contains list, not a JSON object); restore it, or leave this run out"
    )
