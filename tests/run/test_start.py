"""A training process from its start to its end: what others log on standard error, and how errors of disks end it."""

import errno
import shutil
from logging import ERROR, WARNING, LogRecord

import pytest

from gensupcon_jax import __main__
from gensupcon_jax.disk import NotWritten
from gensupcon_jax.run import start
from gensupcon_jax.run.start import is_not_of_orbax_threads
from gensupcon_jax.run.train import train_and_evaluate
from tests.running import told
from tests.tiny import tiny_config, tiny_dataset


def record(path, level=ERROR, error=None):
    found = (type(error), error, None) if error else None
    return LogRecord("absl", level, path, 387, "it raised an exception: %s", (error,), found)


@pytest.mark.parametrize(
    ("path", "level", "error", "is_shown"),
    [
        ("/venv/orbax/checkpoint/_src/futures/future.py", ERROR, OSError("No space left on device"), False),
        ("/venv/orbax/checkpoint/checkpoint_manager.py", WARNING, None, True),
        ("/venv/tensorflow_datasets/core/download.py", ERROR, OSError("No space left on device"), True),
    ],
)
def test_only_tracebacks_of_orbax_threads_are_hidden(path, level, error, is_shown):
    assert is_not_of_orbax_threads(record(path, level, error)) == is_shown


def test_an_error_of_a_disk_that_nobody_explained_is_one_line(monkeypatch, capfd, tmp_path):
    def stale(*_):
        raise OSError(errno.ESTALE, "Stale file handle", str(tmp_path / "photos"))

    monkeypatch.setattr(start, "_train", stale)
    assert told(capfd, "train", "digits", "--workdir", tmp_path / "run") == (
        1,
        "",
        f"error: {tmp_path}/photos: Stale file handle; check that its disk or network folder is there, and start the same "
        "command again\n",
    )


def test_another_error_keeps_its_traceback(monkeypatch, capfd, tmp_path):
    def wrong(*_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "template.html")

    monkeypatch.setattr(start, "_train", wrong)
    with pytest.raises(SystemExit) as done:
        __main__.main(["train", "digits", "--workdir", str(tmp_path / "run")])
    assert "template.html" in str(done.value)


def test_a_workdir_that_vanishes_ends_the_run_in_one_line_and_is_not_made_anew(tmp_path):
    folder = tmp_path / "run"
    config = tiny_config(steps=4, **{"log_steps": 1, "evaluate.every_epochs": 0, "checkpoint.every_epochs": 100.0})

    def remove(step, values):
        if step == 2:
            shutil.rmtree(folder)

    with pytest.raises(NotWritten) as raised:
        train_and_evaluate(config, folder, tiny_dataset(), writers=(remove,))
    assert str(raised.value) == (
        f"{folder}/metrics.jsonl cannot be written (No such file or directory); check that its disk or network folder is "
        "there, and start the same command again"
    )
    assert not folder.exists()
