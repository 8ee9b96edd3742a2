"""2,000 damaged files of every kind that is read: each ends in a value that may be used, or in clear lines, nothing else.

A file is damaged in its bytes, or stays JSON with other values. Readers are called by their public functions, and what they
return is used as the commands use it. Checkpoints as a whole are damaged in store/test_checkpoint.py, lists of images in
data/test_list_fuzz.py.
"""

import functools
import json
import os
import random
import resource
import shutil
import traceback

import jax
import numpy as np
import pytest

from gensupcon_jax.compare.page import compare
from gensupcon_jax.compare.runs import read_runs
from gensupcon_jax.compare.table import as_text
from gensupcon_jax.data import array_files, cache, list_tables, memory_cache
from gensupcon_jax.data.encoded_sets import Reading
from gensupcon_jax.data.mapped_arrays import DamagedArrays, MappedArrays, read_mapped, write_mapped
from gensupcon_jax.errors import UserError
from gensupcon_jax.evaluation.choices import Choices, choices_of_run
from gensupcon_jax.evaluation.features import Features
from gensupcon_jax.evaluation.kept_neighbors import KeptNeighbors, read_neighbors, write_neighbors
from gensupcon_jax.evaluation.kept_probe import FittedProbe, read_probe, write_probe
from gensupcon_jax.inference.embed_files import About, FeatureTable, read_features, write_features
from gensupcon_jax.inference.embed_parts import OutputParts
from gensupcon_jax.inference.sources import read_source
from gensupcon_jax.phases import PHASES
from gensupcon_jax.report.curves import curve
from gensupcon_jax.run import class_similarity, diverged, record
from gensupcon_jax.run.log import trained_seconds
from gensupcon_jax.run.own_photos import read_start
from gensupcon_jax.store import changes, checkpoint, lock, saved_runs, workdir
from gensupcon_jax.store.kept_arrays import kept_content
from gensupcon_jax.store.metrics import MetricsFile, read_metrics
from gensupcon_jax.store.wall_time import TIME, read_starts, summed, write_starts
from gensupcon_jax.weights.artifact import json_path, read_artifact, stablehlo_function
from gensupcon_jax.weights.export import export
from gensupcon_jax.weights.files import read_weights_file, write_safetensors
from gensupcon_jax.weights.hub import results_of_step
from gensupcon_jax.weights.hub_config import hub_config
from gensupcon_jax.weights.show import show
from tests.compare import workdirs
from tests.mutations import SEED, damaged_bytes, damaged_json, damaged_lines
from tests.store.test_saved_runs import make_run

NUM_ROWS = 5


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A workdir with two checkpoints, as training leaves it."""
    folder = make_run(tmp_path_factory.mktemp("fuzz") / "run", steps=())
    config = saved_runs.ml_collections.ConfigDict(json.loads((folder / workdir.CONFIG).read_text()))
    shutil.rmtree(folder / workdir.CHECKPOINTS)
    content = record.new_record(config, {"teacher": None, "weights": None})
    from tests.store.test_saved_runs import network

    checkpoints = checkpoint.Checkpoints(folder / workdir.CHECKPOINTS, keep=3)
    for step in (2, 4):
        checkpoints.save(step, network() | {"step": np.int32(step)}, content)
    checkpoints.close()
    rows = [{"step": step, "train/loss": 5.0 - step, "train/seconds": 0.5 * step, "knn/top1": 50.0, "advice": ["a", "b"]}
            for step in range(NUM_ROWS)]  # fmt: skip
    (folder / workdir.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def network_read_once(run_folder):
    """The files beside the checkpoint are damaged many times: it is read once."""
    names = saved_runs.COLLECTIONS
    restored = checkpoint.read_newest(run_folder / workdir.CHECKPOINTS, names)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "read_newest", lambda folder, names: restored)
        yield run_folder


def check_damage(path, damage_fn, read_fn, *, num, seed, wanted=()):
    """Damage a file so often; returns how many were read, refused, or, with `wanted` errors, said to be damaged."""
    rng, whole, ends, faults = random.Random(f"{SEED} {seed}" if SEED else seed), path.read_bytes(), [0, 0], {}
    read_fn()
    for number in range(num):
        content = damage_fn(whole, rng)
        path.write_bytes(content)
        try:
            read_fn()
            ends[0] += 1
        except (UserError, *wanted) as error:
            ends[1] += 1
            message = str(error)
            assert len(message) < 3000, message
            assert all(line.isprintable() for line in message.split("\n")), message
            assert not isinstance(error, UserError) or "\n" not in message, message
        except Exception as error:
            faults.setdefault(
                f"{type(error).__name__}: {traceback.format_tb(error.__traceback__)[-1]}", (number, content, error)
            )
        finally:
            path.write_bytes(whole)
    for where, (number, content, error) in faults.items():
        print(f"FAULT {number} {str(error)[:200]}\n{where}\n{content[:300]!r}")
    assert not faults, f"{len(faults)} kinds of errors"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20
    return ends


# A workdir


@pytest.mark.parametrize("name", [workdir.CONFIG, workdir.DATASET])
def test_config_and_description_of_a_run(network_read_once, name):
    folder = network_read_once

    def read():
        read_source(folder)
        read_start(str(folder))

    read_count, refused = check_damage(folder / name, damaged_json, read, num=200, seed=name)
    assert read_count > 1 and refused > 50


@pytest.mark.parametrize("name", [workdir.CONFIG, workdir.DATASET])
def test_config_and_description_of_a_run_that_resumes(run_folder, name):
    config, dataset = (json.loads((run_folder / each).read_text()) for each in (workdir.CONFIG, workdir.DATASET))
    check_damage(
        run_folder / name, damaged_json, lambda: workdir.check(run_folder, config, dataset), num=100, seed=name
    )


def test_history_of_changes(run_folder):
    path = run_folder / workdir.HISTORY
    start = {
        "time": "2026",
        "step": 4,
        "command": "train",
        "fields": {"log_steps": [1, 2]},
        "extension": [4, 8, "constant"],
    }
    path.write_text(json.dumps({"starts": [start, start]}))
    check_damage(path, damaged_json, lambda: changes.extensions_of(workdir.read_history(run_folder)), num=100, seed=0)
    path.unlink()


def test_account_of_the_time(tmp_path):
    seconds = dict.fromkeys(PHASES, 1.5)
    start = {
        "began": "2026",
        "seconds": seconds,
        "first_step": 0,
        "last_step": 8,
        "step_bins": {"3": 4},
        "slowest_step": 2.0,
    }
    write_starts(tmp_path, [start, start | {"first_step": 6}])

    def read():
        total = summed(read_starts(tmp_path))
        assert total["starts"] == len(read_starts(tmp_path))
        assert isinstance(total["wall"], float) and isinstance(total["goodput"], float)

    _, refused = check_damage(tmp_path / TIME, damaged_json, read, num=200, seed=0)
    assert refused > 100


def test_step_that_went_wrong(tmp_path):
    arrays = {"about": np.frombuffer(b'{"names": []}', np.uint8), "indices": np.arange(4), "seed_key": np.arange(2)}
    (tmp_path / workdir.DIVERGED).mkdir()
    path = tmp_path / workdir.DIVERGED / "step_00000002.npz"
    path.write_bytes(kept_content(diverged.KIND, arrays))

    def read():
        assert np.array_equal(diverged.read_kept_step(tmp_path).indices, [0, 1, 2, 3])

    read_count, _ = check_damage(path, damaged_bytes, read, num=150, seed=0)
    assert read_count < 30


def test_lock_of_a_workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STILL_SECONDS", 0.01)
    holder = lock.Holder(lock.host_name(), 42, "2026-01-02 03:04:05 UTC", "gensupcon train digits", "its token", 7)
    path = tmp_path / lock.LOCK
    path.write_bytes(holder.content())

    def read():  # a file that stands still is left over, whatever is in it
        before = path.read_bytes()
        with lock.held(tmp_path):
            assert json.loads(path.read_bytes())["process_id"] == os.getpid()
        path.write_bytes(before)

    assert check_damage(path, damaged_json, read, num=100, seed=0) == [100, 0]


def test_record_of_a_checkpoint(run_folder):
    folder = run_folder / workdir.CHECKPOINTS
    expected = checkpoint.read_newest(folder, ("params",)).fields

    def read():
        found = checkpoint.read_newest(folder, ("params",))
        assert found.step in (2, 4)
        jax.tree.map(np.testing.assert_array_equal, found.fields, expected)

    check_damage(folder / "4" / "record" / "metadata", damaged_json, read, num=60, seed=0)


def test_rows_of_metrics(run_folder, tmp_path):
    path = run_folder / workdir.METRICS

    def read():
        rows = read_metrics(run_folder)
        trained_seconds(run_folder, 3)
        curve(rows, "train/loss")
        shutil.copy(path, tmp_path / workdir.METRICS)
        MetricsFile(tmp_path, 3).close()
        assert all(row["step"] <= 3 for row in read_metrics(tmp_path))

    check_damage(path, damaged_lines, read, num=200, seed=0)


@pytest.mark.parametrize("name", ["config.json", "dataset.json", "results.json", "metrics.jsonl", "predictions.npz"])
def test_compared_runs(tmp_path, name):
    runs = [workdirs.make_run(tmp_path / seed, seed=int(seed), best=[3]) for seed in ("0", "1")]
    damage_fn = {"metrics.jsonl": damaged_lines, "predictions.npz": damaged_bytes}.get(name, damaged_json)

    def read():
        as_text(compare(read_runs(runs)))

    check_damage(runs[0] / name, damage_fn, read, num=100, seed=name)


def test_results_of_a_run(tmp_path):
    folder = workdirs.make_run(tmp_path / "run")
    path = folder / "results.json"
    content = json.loads(path.read_text()) | {
        "knn_neighbors": 5,
        "linear_penalty": 0.1,
        "num_validation": 10,
        "best": {"step": 4},
    }
    path.write_text(json.dumps(content))

    def read():
        assert isinstance(workdir.read_results(folder), dict)
        choices = choices_of_run(str(folder), Choices(5, 0.1, "defaults"))
        assert choices.neighbors >= 1 and choices.penalty > 0
        assert all(isinstance(value, float) for value in results_of_step(folder, 16).values())

    check_damage(path, damaged_json, read, num=150, seed=0)


# Kept arrays


def test_kept_arrays(tmp_path):
    probe = FittedProbe(np.ones((3, 2)), np.zeros(2), np.arange(2), step=7)
    write_probe(tmp_path, [probe])
    train = Features(np.ones((4, 3), np.float32), np.arange(4))
    write_neighbors(tmp_path, [KeptNeighbors(train, 2, 0.1, 7)])
    for name, read_fn in (("probe.npz", read_probe), ("neighbors.npz", read_neighbors)):
        _, refused = check_damage(tmp_path / name, damaged_bytes, lambda fn=read_fn: fn(tmp_path, 7), num=80, seed=name)
        assert refused > 60


def test_mapped_arrays(tmp_path):
    path = tmp_path / "x.arrays"
    write_mapped(path, MappedArrays({"a": np.arange(40), "b": np.ones((3, 2), np.float32)}, {"fact": 1}))
    _, damaged = check_damage(path, damaged_bytes, lambda: read_mapped(path), num=100, seed=0, wanted=[DamagedArrays])
    assert damaged > 90
    check_damage(path, damaged_bytes, lambda: cache.read_kept_file(path), num=50, seed=1)


def test_decoded_data_set(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    reading = Reading(arrays_folder=tmp_path / "cache")
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    decoded = memory_cache.Decoded(("ant", "bee"), {"train": (images, np.arange(2))}, str(source))
    memory_cache.keep_decoded("mnist", reading, decoded)
    (path,) = (tmp_path / "cache").iterdir()

    def read():
        found = memory_cache.read_decoded("mnist", reading)
        assert found is None or found.class_names == ("ant", "bee")

    check_damage(path, damaged_bytes, read, num=100, seed=0)


def test_parts_of_features(tmp_path):
    parts = OutputParts(tmp_path / "parts", "abc", 2)
    parts.begin()
    parts.write(0, {"features": np.ones((2, 3), np.float32), "names": np.array(["a", "b"])})
    part = parts.folder / "000000000.npz"

    def read():
        found = parts.read(0)
        assert found is None or found["features"].shape == (2, 3)

    check_damage(part, damaged_bytes, read, num=100, seed=0)
    check_damage(parts.folder / "about.json", damaged_json, lambda: parts.begin(), num=50, seed=1)


def test_files_of_features(tmp_path):
    path = tmp_path / "x.npz"
    table = FeatureTable(["a", "b"], np.ones((2, 3), np.float32), About("run", "4", "abc", "/data"))
    write_features(path, table)
    check_damage(path, damaged_bytes, lambda: read_features(path), num=100, seed=0)


def test_files_of_arrays(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((4, 2, 2, 1), np.uint8), labels=np.arange(4), class_names=["a", "b", "c", "d"])
    check_damage(path, damaged_bytes, lambda: array_files.read_array_file(str(path), "class"), num=100, seed=0)


# Files of weights


def test_safetensors(run_folder, tmp_path):
    path = tmp_path / "x.safetensors"
    export(run_folder, path)

    def read():
        show(path)
        read_weights_file(path)
        read_source(path)

    check_damage(path, damaged_bytes, read, num=80, seed=0)
    check_damage(path, damaged_header, read, num=150, seed=1)


def damaged_header(content, rng):
    """The file with another JSON in its header, of the length that stands before it."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.5:
        header["__metadata__"] = json.loads(damaged_metadata(json.dumps(header["__metadata__"]).encode(), rng))
        header = json.dumps(header).encode()
    else:
        header = damaged_json(content[8 : 8 + length], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def damaged_metadata(content, rng):
    """Texts, of which some are JSON: the values inside are damaged too."""
    texts = json.loads(content)
    name = rng.choice(sorted(texts))
    try:
        texts[name] = damaged_json(texts[name].encode(), rng).decode(errors="replace")
    except ValueError:
        texts[name] = rng.choice(("", "1", "null", "[]", "x", "9" * 300))
    return json.dumps(texts).encode()


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_exported_functions(run_folder, tmp_path, form):
    path = tmp_path / f"x.{form}"
    export(run_folder, path)

    def read():
        artifact = read_artifact(path)
        if form == "stablehlo":
            stablehlo_function(artifact)
        show(path)

    check_damage(path, damaged_bytes, read, num=60, seed=0)
    if form == "stablehlo":
        check_damage(json_path(path), damaged_json, lambda: read_source(path), num=150, seed=1)
    check_damage(json_path(path), damaged_json, lambda: show(path), num=150, seed=1)


def test_config_of_the_hub(tmp_path):
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    write_safetensors(weights, {"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}, {})
    own = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "input_size": [3, 32, 32], "crop_pct": 0.9}
    config.write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": own, "label_names": ["a", "b"]}))

    def read():
        found = hub_config(weights)
        assert all(isinstance(each, float | int) for name in ("mean", "std") for each in found.get(name) or ())

    check_damage(config, damaged_json, read, num=100, seed=0)


# Lists and tables


def test_matrix_of_labels(tmp_path):
    matrix = np.eye(3) + 0.5
    np.save(tmp_path / "m.npy", matrix)
    np.savetxt(tmp_path / "m.csv", matrix, delimiter=",")
    (tmp_path / "g.csv").write_text("ant,insect\nbee,insect\ncat,mammal\n")
    for path in sorted(tmp_path.iterdir()):
        read_fn = functools.partial(class_similarity.read_matrix, str(path), 3)
        check_damage(path, damaged_bytes, read_fn, num=60, seed=path.name)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables(tmp_path, form):
    path = tmp_path / f"x.{form}"
    path.write_text("path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(9)))
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").table({"path": ["a", "b"], "age": [1.5, None]}), path)

    def read():
        table = list_tables.read_table(array_files.epath.Path(path), form)
        for column in table.columns:
            assert len(table.texts(column)) == len(table.places)

    check_damage(path, damaged_bytes, read, num=100, seed=0)
