"""All that writes, on a disk that is full, read-only, gone, or that does not answer: one line with the path and what to do."""

import contextlib
import errno
import io
import os
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from gensupcon_jax import disk, paths
from gensupcon_jax.data import cache
from gensupcon_jax.data.mapped_arrays import MappedArrays
from gensupcon_jax.disk import NotWritten
from gensupcon_jax.errors import UserError
from gensupcon_jax.inference import command_pass, embed_files
from gensupcon_jax.inference.embed_parts import OutputParts
from gensupcon_jax.inference.images import ImageFiles
from gensupcon_jax.prepare import fashion_mnist
from gensupcon_jax.report import page
from gensupcon_jax.store import checkpoint, kept_arrays, lock, metrics, wall_time, workdir
from gensupcon_jax.store.checkpoint import Checkpoints
from gensupcon_jax.store.tensorboard_writer import EventWriter
from gensupcon_jax.weights import files
from tests import ROOT
from tests.data.test_cache import as_nobody
from tests.encoded import write_folder
from tests.inference.test_embed_files import PLAIN
from tests.prepare.test_conversion import convert, written
from tests.prepare.test_smaller_copy import copy_of

ARRAYS = {"kernel": np.arange(6.0, dtype=np.float32)}
ROW = {"train/loss": 2.5}


def metrics_rows(folder):
    file = metrics.MetricsFile(folder, 0)
    file.write(1, ROW)
    file.close()


def held(folder):
    with lock.held(folder, "gensupcon train"):
        pass


def checkpoints(folder):
    saves = Checkpoints(folder / "checkpoints", keep=2)
    try:
        saves.save(1, {"params": ARRAYS}, {})
    finally:
        saves.close()


def events(folder):
    writer = EventWriter(folder / "tensorboard", [])
    writer.write(1, ROW)
    writer.close()


def fashion(folder):
    name = Path(__file__).name  # any file
    checksum = fashion_mnist._sha(Path(__file__).read_bytes())
    fashion_mnist.restore_files(Path(__file__).parent, folder / "files", {name: checksum}, {name: 0})


def damaged_list(folder):
    found = ImageFiles((), None, (), [("a.png", "truncated")])
    command_pass.list_damaged(found, folder / "out.npz")


# Everything that a command writes, into an existing folder. `test_every_file_that_writes_is_tried` finds what is missing.
WRITERS = {
    "config.json and dataset.json": lambda folder: workdir.claim(folder, {"seed": 0}, {"name": "digits"}),
    "run.lock": held,
    "damaged_images.txt": lambda folder: workdir.write_lines(folder / "damaged_images.txt", ["a.png"]),
    "metrics.jsonl": metrics_rows,
    "TensorBoard events": events,
    "checkpoints": checkpoints,
    "probe, neighbors, predictions": lambda folder: kept_arrays.write_kept(folder / "probe.npz", "probe 1", ARRAYS),
    "time.json": lambda folder: wall_time.write_starts(folder, []),
    "results.json": lambda folder: workdir.write_json(folder / "results.json", {"steps": 6}),
    "report, contact sheet, gallery, comparison": lambda folder: page.write_page(folder / "report.html", "<p>"),
    "tables, plan": lambda folder: paths.write_whole(folder / "suspicious.csv", b"image\n"),
    "embed: parts": lambda folder: OutputParts(folder / "out.npz.parts", "0f", 8).begin(),
    "embed: one part": lambda folder: OutputParts(folder, "0f", 8).write(0, ARRAYS),
    **{
        f"embed: {suffix}": lambda folder, suffix=suffix: embed_files.write_features(folder / f"out{suffix}", PLAIN)
        for suffix in (".npz", ".csv", ".parquet", ".npy")
    },
    "embed: damaged images": damaged_list,
    "export: weights": lambda folder: files.write_safetensors(folder / "out.safetensors", ARRAYS, {}),
    "export: functions, cards": lambda folder: files.write_new(folder / "new" / "out.stablehlo", b"program"),
    "prepare: Fashion-MNIST": fashion,
}
_MADE = (
    "run.lock", "config.json and dataset.json", "TensorBoard events", "checkpoints",
    "report, contact sheet, gallery, comparison", "embed: parts", "export: weights", "export: functions, cards",
    "prepare: Fashion-MNIST",
)  # fmt: skip
_IN_CPP = ("TensorBoard events", "checkpoints")  # by their libraries
_IN_PYTHON = [name for name in WRITERS if name not in _IN_CPP]


@contextlib.contextmanager
def files_of_at_most(num_bytes=0):
    """A limit of the kernel: a file may be made, but not grow beyond (EFBIG); also for libraries in C++."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)


@contextlib.contextmanager
def failing(folder, number):
    """A disk whose every access below the folder fails so, also to what exists."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((io, "open"), (os, "open"), (os, "mkdir"), (os, "replace"), (os, "rename"), (os, "stat")):
            patch.setattr(module, name, _failing_fn(getattr(module, name), str(folder), number))
        yield


def _failing_fn(function, folder, number):
    def call(path, *arguments, **settings):
        if not isinstance(path, int) and os.fspath(path).startswith(folder):
            raise OSError(number, os.strerror(number), os.fspath(path))
        return function(path, *arguments, **settings)

    return call


def message_of(write, folder):
    with pytest.raises(UserError) as raised:
        write(folder)
    message = str(raised.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_with_the_path_the_free_space_and_what_to_do(tmp_path, name, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    with files_of_at_most():
        message = message_of(WRITERS[name], folder)
    assert re.search(r"\(File too large; [\d.]+ \w+ of [\d.]+ \w+ are free\)", message)
    assert "raise the limit of the size of a file (ulimit -f)" in message
    if name == "checkpoints":  # orbax's threads still remove what they had begun: test_disk.py starts the run again
        assert checkpoint.saved_steps(folder / "checkpoints") == []
        return
    left = {path.name for path in folder.rglob("*") if path.is_file() and path.stat().st_size}
    assert left == set()  # nothing that a later start could take for whole
    WRITERS[name](folder)  # the same again, with space


@pytest.mark.parametrize("name", _IN_PYTHON)
@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "are free); free some space and start the same command again"),
        (errno.EDQUOT, "ask for a larger quota, and start the same command again"),
        (errno.EROFS, "(Read-only file system); "),
        (errno.ESTALE, "(Stale file handle); check that its disk or network folder is there, and start the same command again"),
        (errno.EIO, "(Input/output error); check that its disk or network folder is there, and start the same command again"),
    ],
)  # fmt: skip
def test_every_error_of_a_disk_is_one_line(tmp_path, name, number, remedy):
    folder = tmp_path / "run"
    folder.mkdir()
    with failing(folder, number), contextlib.suppress(OSError):
        assert remedy in message_of(WRITERS[name], folder)
        return
    # Where the first access is a look at what is there, the command's last resort explains it.
    with failing(folder, number), pytest.raises(OSError) as raised:
        WRITERS[name](folder)
    line = disk.line_of(raised.value)
    assert line.startswith(f"{folder}")
    assert remedy.split("); ")[-1] in line


def test_a_read_only_folder_is_one_line(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for each in (tmp_path, *list(tmp_path.parents)[:3]):
        each.chmod(0o755)  # pytest's folders are of their owner alone
    with as_nobody(folder):
        for name in _IN_PYTHON:
            assert "(Permission denied" in message_of(WRITERS[name], folder), name
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", _IN_PYTHON)
def test_a_folder_that_has_vanished_is_one_line_or_made_again(tmp_path, name):
    """A command makes the folder of its output; nothing makes that of a run anew, whose other files would be missing."""
    folder = tmp_path / "run"
    if name in _MADE:
        WRITERS[name](folder)
        return
    message = message_of(WRITERS[name], folder)
    assert "No such file or directory); check that its disk or network folder is there" in message
    assert not folder.exists()


def test_a_run_whose_folder_vanishes_says_so_before_it_saves_anew(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    file = metrics.MetricsFile(folder, 0)
    file.write(1, ROW)
    file.flush()
    (folder / "metrics.jsonl").unlink()
    folder.rmdir()
    file.write(2, ROW)  # the system keeps the open file
    with pytest.raises(NotWritten) as raised:
        file.flush()
    assert str(raised.value) == (
        f"{folder}/metrics.jsonl cannot be written (No such file or directory); check that its disk or network folder is "
        "there, and start the same command again"
    )
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("of another run")
    with pytest.raises(NotWritten, match=r"\(another file has taken its place\)"):
        file.flush()


def test_a_checkpoint_on_a_disk_that_does_not_answer_is_not_taken_for_damaged(tmp_path):
    checkpoints(tmp_path)
    folder = tmp_path / "checkpoints"
    with failing(folder / "1" / "record", errno.ESTALE), pytest.raises(UserError) as raised:
        checkpoint.read_newest(folder, ("params",))
    assert "cannot be read (Stale file handle); check that its disk or network folder is there" in str(raised.value)
    assert checkpoint.read_newest(folder, ("params",)).step == 1


# Copies and conversions of data sets: some files are done when the disk fills up, and the same command goes on from there.


def test_a_copy_on_a_full_disk_is_one_line_and_goes_on_later(tmp_path, capsys):
    photos = write_folder(tmp_path / "Trees", splits={"train": 3, "test": 2}, sizes=((40, 48),))
    for num_bytes in (0, 1500):  # not even its description; not the images
        with files_of_at_most(num_bytes):
            message = message_of(lambda folder: copy_of(photos, folder), tmp_path / "data")
        assert "(File too large; " in message
    assert copy_of(photos, tmp_path / "data").num_images == {"train": 12, "test": 8}


def test_a_conversion_on_a_full_disk_is_one_line_and_goes_on_later(tmp_path, capsys):
    builder = written(tmp_path, "tfrecord")
    with files_of_at_most():
        message = message_of(lambda folder: convert(builder, "leaves", "array_record"), tmp_path)
    assert "(File too large; " in message
    convert(builder, "leaves", "array_record")


# Caches: done without.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EIO])
def test_a_cache_that_cannot_be_written_is_said_and_done_without(tmp_path, capsys, number):
    with failing(tmp_path, number):
        cache.keep(tmp_path / "cache" / "digits.arrays", MappedArrays(ARRAYS, {}))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"the cache {tmp_path / 'cache'} cannot be written ({os.strerror(number)}")
    assert line.endswith("): this run does without it, and the next start reads the data again")


# The words.


def test_errors_of_libraries_are_read_by_their_text(tmp_path):
    with pytest.raises(NotWritten, match=r"x cannot be written \(Disk quota exceeded; "), disk.writing(tmp_path / "x"):
        raise RuntimeError("RESOURCE_EXHAUSTED: Error writing: Disk quota exceeded [tensorstore_spec=...]")
    with pytest.raises(RuntimeError, match="CUDA"), disk.writing(tmp_path / "x"):
        raise RuntimeError("RESOURCE_EXHAUSTED: CUDA out of memory")


def test_a_disk_that_has_space_but_no_more_files_is_told_apart(tmp_path, monkeypatch):
    found = os.statvfs(tmp_path)
    full = os.statvfs_result((*found[:5], 4096, 0, 0, *found[8:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    why = disk.reason_at(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    assert re.fullmatch(r"No space left on device; .* are free, but none of 4096 inodes, one for each file", why)


def test_an_error_of_another_place_passes(tmp_path):
    with pytest.raises(FileNotFoundError), disk.writing(tmp_path / "out" / "x"):
        (tmp_path / "photos" / "a.png").read_bytes()
    with pytest.raises(ConnectionRefusedError), disk.writing(tmp_path / "x"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def test_an_error_that_nobody_explained_is_a_line_where_it_names_a_disk():
    assert disk.line_of(OSError(errno.EIO, "Input/output error", "/photos/a.png")) == (
        "/photos/a.png: Input/output error; check that its disk or network folder is there, and start the same command again"
    )
    assert disk.line_of(FileNotFoundError(errno.ENOENT, "No such file", "a.py")) is None  # a mistake of the program
    assert disk.line_of(OSError(errno.ENOSPC, "No space left on device")) is None
    assert disk.line_of(ValueError("No space left on device")) is None


_CALLS = (
    r"\.(?:write_bytes|write_text|touch|mkdir|rmdir|rename|unlink)\(|unfinished\.replace\(|os\.open\("
    r"|\bopen\(.*[\"'](?:[wax]b?|xb)[\"']"
)
# Each file of the package with such a call, and what tries it: one of WRITERS, or a test.
_NEED_NO_TEST = ("removes only", "/dev/null", "an example in a docstring")
_TRIED = {
    "cluster/relay.py": "removes only",
    "command_line.py": "/dev/null",
    "data/cache.py": "store/test_writing.py::test_a_cache_that_cannot_be_written_is_said_and_done_without",
    "data/mapped_arrays.py": "store/test_writing.py::test_a_cache_that_cannot_be_written_is_said_and_done_without",
    "disk.py": "an example in a docstring",
    "inference/command_flags.py": "inference/test_commands.py::test_every_mistake_is_one_line",
    "inference/command_pass.py": "embed: damaged images",
    "inference/embed_files.py": "embed: .npz",
    "inference/embed_parts.py": "embed: parts",
    "paths.py": "tables, plan",
    "prepare/conversion.py": "store/test_writing.py::test_a_conversion_on_a_full_disk_is_one_line_and_goes_on_later",
    "prepare/smaller_copy.py": "store/test_writing.py::test_a_copy_on_a_full_disk_is_one_line_and_goes_on_later",
    "run/compiled.py": "removes only",
    "run/diverged.py": "run/test_replay.py::test_a_full_disk_loses_neither_the_message_nor_the_checkpoint",
    "store/checkpoint.py": "checkpoints",
    "store/lock.py": "run.lock",
    "store/metrics.py": "metrics.jsonl",
    "store/tensorboard_writer.py": "TensorBoard events",
    "store/workdir.py": "config.json and dataset.json",
    "weights/files.py": "export: weights",
}


def test_every_file_that_writes_is_tried():
    folder = ROOT / "gensupcon_jax"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py") if re.search(_CALLS, path.read_text())}
    assert found == set(_TRIED)
    for tried in set(_TRIED.values()) - {*WRITERS, *_NEED_NO_TEST}:
        name, _, test = tried.partition("::")
        assert f"\ndef {test}(" in (ROOT / "tests" / name).read_text(), tried
