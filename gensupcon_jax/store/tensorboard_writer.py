"""TensorBoard event files of a run, written without importing TensorFlow; omitted if TensorBoard is not installed."""

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gensupcon_jax import paths
from gensupcon_jax.disk import writing
from gensupcon_jax.extras import INSTALL_TENSORFLOW, missing_of_tensorflow
from gensupcon_jax.paths import Path

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
        self._folder = folder
        # Rewritten: readers would show the steps twice that a kill has undone.
        earlier = list(folder.glob("events.out.tfevents.*"))
        with self._writing():
            self._writer = _clu_writer(folder) if paths.is_remote(folder) else _LocalWriter(folder)
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

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self._folder, what=f"the TensorBoard events in {self._folder}")


def _clu_writer(folder: Path) -> Any:
    """clu's SummaryWriter, which reaches object storage with TensorFlow: 3 s of imports and 600 MiB."""
    from clu.metric_writers import SummaryWriter

    return SummaryWriter(str(folder))


class _LocalWriter:
    """Scalars in an event file, by TensorBoard's own parts that do not import TensorFlow; each row can be read at once."""

    _numbers = itertools.count()

    def __init__(self, folder: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        messages: tuple[Any, Any] = event_pb2, summary_pb2  # protobuf makes their classes when they are imported
        self._event, self._summary, self._scalar_pb = messages[0].Event, messages[1].Summary, scalar_pb
        folder.mkdir(parents=True, exist_ok=True)
        # Readers order the files of a folder by the time in the name.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.{next(self._numbers)}"
        self._records = RecordWriter((folder / name).open("xb"))
        self._write(file_version="brain.Event:2")

    def write_scalars(self, step: int, values: Mapping[str, float | int]) -> None:
        """One row."""
        scalars = [self._scalar_pb(name, float(value)).value[0] for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))
        self.flush()

    def flush(self) -> None:
        """Write out what is buffered."""
        self._records.flush()

    def close(self) -> None:
        """Write out what is buffered, and close the file."""
        self._records.close()

    def _write(self, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
