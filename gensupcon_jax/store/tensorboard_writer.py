"""A run's TensorBoard event files, which clu writes with TensorFlow; an installation without it leaves them out."""

from collections.abc import Sequence
from typing import Any

from gensupcon_jax.extras import INSTALL_TENSORFLOW, missing_of_tensorflow
from gensupcon_jax.paths import Path

LEFT_OUT = (
    f"TensorBoard events are left out, since the extra `tensorflow` is not installed ({INSTALL_TENSORFLOW}); "
    "metrics.jsonl has every row"
)


def is_available() -> bool:
    """Whether what writes events is installed."""
    return not missing_of_tensorflow()


class EventWriter:
    """Writes rows as TensorBoard events; a run that resumes starts its event file anew with the rows that it keeps.

    folder: of the event files.  rows: {"step": ..., name: value}, oldest first; a value of None is left out.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]]):
        # Imported here: it brings TensorFlow along, 4 seconds and 600 MiB.
        from clu.metric_writers import SummaryWriter

        # Written anew: a kill loses what was buffered there, and readers show what came after the step twice.
        earlier = list(folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(folder))
        for row in rows:
            self.write(row["step"], {name: value for name, value in row.items() if name != "step"})
        self._writer.flush()
        for path in earlier:
            path.unlink()

    def write(self, step: int, values: dict[str, float | int | None]) -> None:
        """One row."""
        self._writer.write_scalars(step, {name: value for name, value in values.items() if value is not None})

    def close(self) -> None:
        """Write out what is buffered."""
        self._writer.close()
