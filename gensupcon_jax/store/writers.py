"""Writers of metrics besides metrics.jsonl: a table of writers, and functions of the caller.

A writer is built from its settings, receives every row, and is closed at the end:

    from gensupcon_jax.store.writers import WRITERS

    WRITERS["printer"] = Printer  # Printer(settings), .write(step, values), .close()
    train_and_evaluate(config, "runs/mine", writers=("printer", lambda step, values: ...))
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path
from gensupcon_jax.store import tensorboard_writer
from gensupcon_jax.store.metrics import ADVICE, MetricsFile
from gensupcon_jax.store.wandb_writer import WandbWriter
from gensupcon_jax.store.workdir import TENSORBOARD

RowFn = Callable[[int, Mapping[str, Any]], None]


class WriterSettings(NamedTuple):
    """The arguments of a writer.  rows: {"step": ..., name: value} of earlier starts, oldest first."""

    workdir: Path
    config: Mapping[str, Any]
    rows: Sequence[dict[str, Any]]


class Writer(Protocol):
    """Receives every row, and is closed when training ends."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """The row of a step."""

    def close(self) -> None:
        """Flush all buffers."""


WRITERS: dict[str, Callable[[WriterSettings], Writer]] = {
    "tensorboard": lambda settings: tensorboard_writer.EventWriter(settings.workdir / TENSORBOARD, settings.rows),
    "wandb": lambda settings: WandbWriter(settings.workdir, settings.config),
}


def check_writers(chosen: Sequence[str | RowFn]) -> None:
    """UserError for a writer that is not in the table, or whose package is not installed."""
    for writer in chosen:
        if isinstance(writer, str) and writer not in WRITERS:
            raise UserError(f"writers has {writer!r}; allowed: {', '.join(WRITERS)}, or a function of step and values")
    if "wandb" in chosen and find_spec("wandb") is None:
        raise UserError("the writer wandb needs the package wandb; install it with: pip install wandb")


class MetricsWriter:
    """Writes every row to metrics.jsonl, to TensorBoard if it is installed, and to the chosen writers.

    chosen: names in the table, or functions of step and values.
    """

    def __init__(self, workdir: Path, start_step: int, config: Mapping[str, Any], chosen: Sequence[str | RowFn] = ()):
        self._file = MetricsFile(workdir, start_step)
        settings = WriterSettings(workdir, config, [_numbers(row) for row in self._file.kept])
        names = [name for name in chosen if isinstance(name, str)]
        names += ["tensorboard"] if tensorboard_writer.is_available() and "tensorboard" not in names else []
        self._writers = [WRITERS[name](settings) for name in names]
        self._row_fns = [writer for writer in chosen if not isinstance(writer, str)]

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One row; a value that is not finite is null in metrics.jsonl, which alone gets the sentences of advice."""
        self._file.write(step, values)
        values = _numbers(values)
        for writer in self._writers:
            writer.write(step, values)
        for row_fn in self._row_fns:
            row_fn(step, values)

    def flush(self) -> None:
        """Make all rows of metrics.jsonl durable; called before a checkpoint, since a restart resumes from there."""
        self._file.flush()

    def close(self) -> None:
        """Flush all buffers."""
        self._file.close()
        for writer in self._writers:
            writer.close()


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != ADVICE}
