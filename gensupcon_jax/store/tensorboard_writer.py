"""TensorBoard event files of a run, written by clu with TensorFlow; omitted if it is not installed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.errors import UserError
from gensupcon_jax.extras import INSTALL_TENSORFLOW, missing_of_tensorflow
from gensupcon_jax.paths import Path
from gensupcon_jax.text import reason

LEFT_OUT = (
    f"TensorBoard events are left out, since the extra `tensorflow` is not installed ({INSTALL_TENSORFLOW}); "
    "metrics.jsonl has every row"
)


def is_available() -> bool:
    """Whether the packages that write events are installed."""
    return not missing_of_tensorflow()


class EventWriter:
    """Writes rows as TensorBoard events; a run that resumes rewrites its event file with the rows that it keeps.

    folder: of the event files.  rows: {"step": ..., name: value}, oldest first; values of None are omitted.
    Every method raises UserError if the files cannot be written.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]]):
        # Imported here, as it imports TensorFlow: 4 s and 600 MiB.
        from clu.metric_writers import SummaryWriter

        self._folder = folder
        # Rewritten: a kill loses buffered rows, and readers would show later steps twice.
        earlier = list(folder.glob("events.out.tfevents.*"))
        with self._writing():
            self._writer = SummaryWriter(str(folder))
        for row in rows:
            self.write(row["step"], {name: value for name, value in row.items() if name != "step"})
        with self._writing():
            self._writer.flush()
            for path in earlier:
                path.unlink()

    def write(self, step: int, values: dict[str, float | int | None]) -> None:
        """One row."""
        with self._writing():
            self._writer.write_scalars(step, {name: value for name, value in values.items() if value is not None})

    def close(self) -> None:
        """Flush all buffers."""
        with self._writing():
            self._writer.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except paths.failures() as error:
            raise UserError(
                f"TensorBoard events cannot be written to {self._folder} ({reason(error)}); free some space and start "
                "the same command again: it resumes from the newest checkpoint"
            ) from error
