"""Object storage behaves like a local folder: the same run, the same errors. No test accesses the network."""

import json
import types

import jax
import numpy as np
import pytest

from gensupcon_jax import paths
from gensupcon_jax.data import input_pipeline
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import start, train
from gensupcon_jax.store import metrics, saved_runs, workdir
from gensupcon_jax.weights.export import export
from gensupcon_jax.weights.files import read_file
from gensupcon_jax.weights.variables import named_tensors
from tests import object_storage
from tests.object_storage import Board
from tests.tiny import tiny_config, tiny_dataset

DEVICE = jax.devices()[:1]


def rows_of(folder):
    exact = ("step", "train/loss", "train/gradient_norm", "train/learning_rate", "knn/top1")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key in exact} for row in rows]


@pytest.fixture
def storage(tmp_path, monkeypatch):
    return object_storage.install(tmp_path / "storage", monkeypatch)


@pytest.fixture
def stopping(monkeypatch):
    """After `stopping(n)` the next training ends with KeyboardInterrupt in step n + 1; the one after it is whole."""
    real = input_pipeline.train_batches

    def arm(stop_after):
        def stops(*args, **kwargs):
            for number, batch in enumerate(real(*args, **kwargs)):
                if number == stop_after:
                    monkeypatch.setattr(input_pipeline, "train_batches", real)
                    raise KeyboardInterrupt
                yield batch

        monkeypatch.setattr(input_pipeline, "train_batches", stops)

    return arm


CONFIG = {"evaluate.linear_probe": False}


@pytest.mark.slow
def test_a_run_in_a_bucket_equals_one_in_a_folder_also_when_it_resumes(tmp_path, storage, stopping):
    expected = train.train_and_evaluate(tiny_config(**CONFIG), tmp_path / "run", tiny_dataset(), devices=DEVICE)
    stopping(5)
    with pytest.raises(KeyboardInterrupt):
        train.train_and_evaluate(tiny_config(**CONFIG), "gs://bucket/run", tiny_dataset(), devices=DEVICE)
    remote = storage.root / "bucket/run"
    assert [row["step"] for row in rows_of(remote)] == [1, 2, 3]  # the checkpoint of step 3 resumes from these
    results = train.train_and_evaluate(tiny_config(**CONFIG), "gs://bucket/run", tiny_dataset(), devices=DEVICE)
    same = [name for name in expected if name != "time" and not name.endswith("seconds")]
    assert {name: results[name] for name in same} == {name: expected[name] for name in same}
    assert rows_of(remote) == rows_of(tmp_path / "run")
    assert (remote / "report.html").read_text().startswith("<!doctype html>")
    assert json.loads((remote / "results.json").read_text()) == results
    assert Board.folders[-1] == "gs://bucket/run/tensorboard"

    # Finished: its results are read. Another config: an error. Its weights: read and written.
    assert train.train_and_evaluate(tiny_config(**CONFIG), "gs://bucket/run", tiny_dataset(), devices=DEVICE) == results
    with pytest.raises(
        UserError, match=r"workdir gs://bucket/run contains a run with different config fields: seed \(0 th"
    ):
        train.train_and_evaluate(tiny_config(seed=1, **CONFIG), "gs://bucket/run", tiny_dataset(), devices=DEVICE)
    read, local = saved_runs.read_run("gs://bucket/run"), saved_runs.read_run(tmp_path / "run")
    assert read.step == local.step == 6
    jax.tree.map(np.testing.assert_array_equal, read.variables, local.variables)
    file = "gs://bucket/weights/tiny.safetensors"
    export(paths.as_path("gs://bucket/run"), paths.as_path(file))
    named = read_file(file)
    assert set(named) == set(named_tensors(local.variables))
    with pytest.raises(UserError, match="already exists and is kept"):
        export(paths.as_path("gs://bucket/run"), paths.as_path(file))


def test_rows_are_in_the_bucket_after_a_flush_and_after_a_minute(storage, monkeypatch):
    folder = paths.as_path("gs://bucket/run")
    writer = metrics.MetricsFile(folder, 0)
    writer.write(1, {"loss": 2.0})
    assert metrics.read_metrics(folder) == []
    writer.flush()
    assert metrics.read_metrics(folder) == [{"step": 1, "loss": 2.0}]
    monkeypatch.setattr(metrics, "_REWRITE_SECONDS", -1.0)
    writer.write(2, {"loss": 1.0})
    assert [row["step"] for row in metrics.read_metrics(folder)] == [1, 2]
    writer.close()
    assert [row["step"] for row in metrics.read_metrics(folder)] == [1, 2]
    metrics.MetricsFile(folder, 1).close()  # resumes from step 1
    assert [row["step"] for row in metrics.read_metrics(folder)] == [1]


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "runs/mine"])
def test_compiled_programs_are_kept_with_the_run(workdir, storage, monkeypatch):
    said = {}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    monkeypatch.setattr(start.jax, "config", types.SimpleNamespace(update=said.__setitem__))
    start.keep_compiled_programs(paths.as_path(workdir))
    assert said["jax_compilation_cache_dir"] == f"{workdir}/compiled"
    assert said.get("jax_persistent_cache_enable_xla_caches") == ("none" if workdir.startswith("gs://") else None)
    assert said["jax_persistent_cache_min_compile_time_secs"] == (0.5 if workdir.startswith("gs://") else 0.0)


def test_a_bucket_that_cannot_be_written_is_an_error(storage, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "open", refuse)
    with pytest.raises(
        UserError, match=r"workdir gs://bucket/run cannot be written \(Permission denied\); set --workdir"
    ):
        workdir.check(paths.as_path("gs://bucket/run"), {}, {})


@pytest.mark.parametrize("path", ["s3://bucket/run", "http://somewhere/run"])
def test_another_scheme_is_an_error(path):
    with pytest.raises(UserError, match=rf"{path} begins with \w+://; allowed: a local path, or gs://bucket"):
        paths.as_path(path)


def test_gs_without_its_packages_is_an_error(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(paths, "find_spec", absent)
    with pytest.raises(UserError, match=r'install them with: pip install "gensupcon_jax\[gcs\]"'):
        paths.as_path("gs://bucket/run")


def test_a_local_path_is_a_pathlib_path(tmp_path):
    path = paths.as_path(str(tmp_path))
    assert type(path) is type(tmp_path)
    assert not paths.is_remote(path)
    assert paths.absolute(paths.as_path("runs")).is_absolute()


def test_an_older_file_stays_when_the_new_one_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(TypeError):
        paths.write_whole(tmp_path / "file", None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"
    paths.write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_text() == "new"
