"""All that reads, on a disk that does not answer (NFS with stale handles): one line; nothing is taken for damaged or missing."""

import builtins
import contextlib
import errno
import io
import os
import pathlib
import re

import numpy as np
import pytest
import safetensors
from etils import epath

from gensupcon_jax import disk, paths
from gensupcon_jax.data import array_files, cache, file_listing, input_pipeline, inspection, list_paths, list_tables
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference import embed_files
from gensupcon_jax.inference.embed_parts import OutputParts
from gensupcon_jax.run import class_similarity, diverged
from gensupcon_jax.store import checkpoint, kept_arrays, metrics, wall_time, workdir
from gensupcon_jax.weights import artifact, description, files
from tests import ROOT
from tests.encoded import encode, picture
from tests.inference.test_embed_files import PLAIN
from tests.store.test_writing import ARRAYS, ROW, _failing_fn, checkpoints, failing, metrics_rows

INDICES = np.array([0])


def write_files(folder):
    """Everything that READERS reads; most of it is never parsed, as its disk does not answer."""
    workdir.claim(folder, {"seed": 0}, {"name": "digits"})
    metrics_rows(folder)
    checkpoints(folder)
    wall_time.write_starts(folder, [])
    kept_arrays.write_kept(folder / "probe.npz", "probe 1", ARRAYS)
    (folder / "diverged").mkdir()
    kept_arrays.write_kept(folder / "diverged" / "step_00000002.npz", diverged.KIND, ARRAYS)
    OutputParts(folder, "0f", 8).write(0, ARRAYS)
    embed_files.write_features(folder / "out.npz", PLAIN)
    files.write_safetensors(folder / "out.safetensors", ARRAYS, {})
    for name in ("results.json", "report.html", "f.stablehlo", "f.stablehlo.json", "f.json", "m.csv", "m.parquet"):
        (folder / name).write_text("{}")
    np.savez(folder / "images.npz", **ARRAYS)
    (folder / "a.jpg").write_bytes(encode(picture(0, 0)))


def images(folder):
    names = [str(folder / "a.jpg")]
    about = {"names": ["a.jpg"], "cache_name": "a", "text": "", "cache_folder": None}
    return file_listing.list_files(names, np.zeros(1, np.int64), **about).split(1)


# What is read, by a function that gets the folder and what was prepared while the disk still answered.
READERS = {
    "config.json": lambda folder, _: workdir.read_config(folder),
    "results.json": lambda folder, _: workdir.read_results(folder),
    "metrics.jsonl": lambda folder, _: metrics.read_metrics(folder),
    "time.json": lambda folder, _: wall_time.read_starts(folder),
    "probe, neighbors, predictions": lambda folder, _: kept_arrays.read_kept(folder / "probe.npz", "probe 1"),
    "a step that went wrong": lambda folder, _: diverged.read_kept_step(folder),
    "checkpoints": lambda folder, _: checkpoint.read_newest(folder / "checkpoints", ("params",)),
    "embed: a part": lambda folder, _: OutputParts(folder, "0f", 8).read(0),
    "embed: features": lambda folder, _: embed_files.read_features(folder / "out.npz"),
    "weights": lambda folder, _: files.read_file(folder / "out.safetensors"),
    "a description": lambda folder, _: description.description_of_file(folder / "out.safetensors"),
    "an exported function": lambda folder, _: artifact.read_artifact(folder / "f.stablehlo"),
    "csv:": lambda folder, _: list_tables.read_table(epath.Path(folder / "m.csv"), "csv"),
    "parquet:": lambda folder, _: list_tables.read_table(epath.Path(folder / "m.parquet"), "parquet"),
    "arrays:": lambda folder, _: array_files.read_array_file(str(folder / "images.npz"), "class"),
    "matrix:": lambda folder, _: class_similarity.read_matrix(str(folder / "m.csv"), 2),
    "the header of an image": lambda folder, _: images(folder),
    "an image, for statistics": lambda _, split: inspection.examine(split, INDICES, ""),
    "an image, decoded": lambda _, split: input_pipeline.damaged_images(split, INDICES),
}


@contextlib.contextmanager
def not_answering(folder, number=errno.ESTALE):
    """What is there is still known, as from the cache of an NFS client, but no file can be opened."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((io, "open"), (builtins, "open"), (os, "open"), (safetensors, "safe_open")):
            patch.setattr(module, name, _failing_fn(getattr(module, name), str(folder), number))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("shared") / "run"
    made.mkdir()
    write_files(made)
    return made


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("name", READERS)
def test_a_disk_that_does_not_answer_is_one_line_and_no_damage(folder, name, number):
    prepared = images(folder)
    with not_answering(folder, number), pytest.raises(UserError) as raised:
        READERS[name](folder, prepared)
    message = str(raised.value)
    assert re.fullmatch(
        rf"{folder}/\S+ cannot be read \({os.strerror(number)}\); check that its disk or network folder is there, and start the "
        r"same command again",
        message,
    )
    assert not (folder / "checkpoints_damaged").exists()


def test_a_bad_sector_may_be_in_one_file_alone(folder):
    split = images(folder)
    with not_answering(folder, errno.EIO):
        assert input_pipeline.damaged_images(split, INDICES) == {0: "Input/output error"}
        with pytest.raises(UserError, match="'probe 1' that a run has kept"):
            kept_arrays.read_kept(folder / "probe.npz", "probe 1")


def test_what_is_listed_is_not_taken_for_missing(folder, monkeypatch):
    def stale(*_, **__):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stale)
        with pytest.raises(UserError, match=r"^a.jpg cannot be read \(Stale file handle\)"):
            list_paths._exists("a.jpg")


@pytest.mark.parametrize("name", ["exists", "is_file", "is_dir"])
def test_a_run_that_cannot_be_seen_is_not_taken_for_missing(folder, monkeypatch, name):
    """Later versions of Python answer False for a disk that does not answer; a new run would be written over this one."""
    monkeypatch.setattr(pathlib.Path, name, lambda self, **_: False)
    assert checkpoint.saved_steps(folder / "checkpoints") == [1]
    with failing(folder / "checkpoints" / "1", errno.ESTALE), pytest.raises(OSError, match="Stale file handle"):
        checkpoint.saved_steps(folder / "checkpoints")  # not: there is no checkpoint
    with failing(folder, errno.ESTALE):
        for read in (checkpoint.saved_steps, metrics.read_metrics, wall_time.read_starts, diverged.read_kept_step):
            with pytest.raises((OSError, UserError), match="Stale file handle"):
                read(folder)
        with pytest.raises((OSError, UserError), match="Stale file handle"):
            workdir.claim(folder, {"seed": 0}, {"name": "digits"})


def test_whether_a_path_is_there(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = {
        path: (paths.exists(path), paths.is_folder(path), paths.is_file(path))
        for path in (tmp_path, *(tmp_path / name for name in ("file", "absent", "file/below", "loop", "a\0b")))
    }
    assert list(found.values()) == [
        (True, True, False),
        (True, False, True),
        *[(False, False, False)] * 4,
    ]
    with failing(tmp_path, errno.ESTALE), pytest.raises(OSError, match="Stale file handle"):
        paths.exists(tmp_path / "file")


def test_a_cache_is_done_without(tmp_path, capsys):
    path = tmp_path / "a.arrays"
    cache.keep(path, cache.MappedArrays(ARRAYS, {}))
    with not_answering(tmp_path):
        assert cache.read_kept_file(path) is None
    assert capsys.readouterr().err == f"{path} cannot be read (Stale file handle): the data are read again\n"
    assert cache.read_kept_file(path) is not None


# How many there are of another kind: of packages, recipes, lists and the system's files.
_ASKS = {"run/class_similarity.py": 3, "run/recipes.py": 2, "run/memory.py": 1}

# Files that catch errors of reading and yet need no `refuse_lost`.
_OTHERS = {
    "disk.py": "the function",
    "data/cache.py": "a cache is done without",
    "evaluation/choices.py": "the words of workdir.read_results",
    "paths.py": "the functions",
    "run/diverged.py": "writes only",
    "store/lock.py": "beats, and errors that pass",
    "store/workdir.py": "writes only",
}


def test_where_a_run_is_read_nothing_asks_python_whether_a_path_is_there():
    for wing in ("store", "run"):
        for path in (ROOT / "gensupcon_jax" / wing).glob("*.py"):
            asks = re.findall(r"\.(?:exists|is_dir|is_file)\(\)", path.read_text())
            assert len(asks) == _ASKS.get(f"{wing}/{path.name}", 0), path


def test_every_file_that_catches_errors_of_reading_asks_for_a_lost_disk():
    package = ROOT / "gensupcon_jax"
    texts = {str(path.relative_to(package)): path.read_text() for path in package.rglob("*.py")}
    catching = {name for name, text in texts.items() if re.search(r"except \(?.*\bfailures\(\)", text)}
    asking = {name for name, text in texts.items() if "refuse_lost(error" in text}
    assert catching - asking == set(_OTHERS) - {"disk.py", "paths.py"}


def test_rows_are_read_again_when_the_disk_answers(folder):
    assert metrics.read_metrics(folder) == [{"step": 1, **ROW}]
    assert disk.number_of(OSError(errno.ESTALE, "")) in disk.LOST
