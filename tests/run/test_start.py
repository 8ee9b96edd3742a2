"""What other packages log on standard error during a run."""

from logging import ERROR, WARNING, LogRecord

import pytest

from gensupcon_jax.run.start import is_not_of_orbax_threads


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
