"""What a run says on standard error beside its own sentences."""

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
def test_a_traceback_of_orbaxs_threads_is_not_shown_and_all_else_is(path, level, error, is_shown):
    assert is_not_of_orbax_threads(record(path, level, error)) == is_shown
