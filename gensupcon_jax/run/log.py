"""The log of a run: rows of metrics, a progress bar or lines on standard error, and advice."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from gensupcon_jax.cluster import processes
from gensupcon_jax.paths import Path
from gensupcon_jax.run.advice import Advisor
from gensupcon_jax.run.estimate import Estimator
from gensupcon_jax.run.memory import memory_in_use
from gensupcon_jax.run.progress import Progress
from gensupcon_jax.run.run import Run
from gensupcon_jax.store.metrics import ADVICE, read_metrics
from gensupcon_jax.store.writers import MetricsWriter


class StepTimer:
    """The speed of the steps since the last row, and the time of training over all starts of the run.

    earlier_seconds: of training before this start.  lap_seconds: between the last two rows.  stall_seconds: time that training
    waited for saving since the last row.
    """

    def __init__(self, start_step: int, earlier_seconds: float):
        self.stall_seconds = self.lap_seconds = 0.0
        self._earlier_seconds = earlier_seconds
        self._started = self._since = time.monotonic()
        self._step, self._waited_seconds = start_step, 0.0

    def lap(self, step: int, batch_size: int, waited_seconds: float) -> dict[str, float]:
        """The timings of the steps up to this one; waited_seconds: time spent waiting for images since the start."""
        now = time.monotonic()
        seconds = self.lap_seconds = now - self._since
        numbers = {
            "train/input_wait": min(1.0, (waited_seconds - self._waited_seconds) / seconds),
            "train/images_per_second": (step - self._step) * batch_size / seconds,
            "train/seconds": self._earlier_seconds + now - self._started,
            "train/stall_seconds": self.stall_seconds,
        }
        self._step, self._since, self._waited_seconds, self.stall_seconds = step, now, waited_seconds, 0.0
        return numbers

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside this context is not counted."""
        started = time.monotonic()
        yield
        self._since += time.monotonic() - started


class TrainingLog:
    """Collects the values of a step, writes them as one row, and shows some of them; on process 0 only.

    row: of the step, as far as it is known; given for the step at which a run resumes, where it is to be completed.
    """

    def __init__(self, run: Run, advisor: Advisor, start_step: int, row: dict[str, Any] | None = None):
        self._run, self._advisor = run, advisor
        self.row: dict[str, Any] = dict(row or {})
        self._notes: dict[str, str] = {}
        last_row = start_step if row is None else start_step - 1
        self._writer = _writer(run, last_row) if processes.is_first() else None
        self._progress = Progress(
            start_step=start_step,
            end_step=run.lengths.total_steps,
            batch_size=run.config.batch_size,
            is_shown=processes.is_first(),
        )
        for earlier in [*read_metrics(run.folder), {"step": start_step} | self.row]:
            advisor.sentences(earlier["step"], earlier)  # reported by an earlier start
        seconds = self.row.get("train/seconds") or trained_seconds(run.folder, start_step)
        self.timer = StepTimer(start_step, seconds)
        self._estimator = Estimator(run.amounts_left, start_step)

    def say(self, text: str) -> None:
        """Print a line."""
        self._progress.say(text)

    def note(self, sentence: str) -> None:
        """Print a sentence, and keep it in the row of this step, where the report finds it."""
        self._progress.say(sentence)
        self.row.setdefault(ADVICE, []).append(sentence)

    def advance(self) -> None:
        """Count one more step."""
        self._progress.advance()

    def add_training(
        self, step: int, metrics: dict[str, float], waited_seconds: float, slowest: tuple[int, float] | None = None
    ) -> None:
        """Add the metrics of a step, its learning rate and speed, and print advice on them.

        slowest: of several processes, the one whose devices had no step for the most seconds since the last row.
        """
        row = {f"train/{name}": value for name, value in metrics.items()}
        if slowest is not None:
            row |= {"train/slowest_process": slowest[0], "train/slowest_process_seconds": slowest[1]}
            self._notes["slowest"] = f"process {slowest[0]}, late by {slowest[1]:.2f} s"
        row |= self.timer.lap(step, self._run.config.batch_size, waited_seconds) | memory_in_use()
        estimate = self._estimator.sentence(step, self.timer.lap_seconds)
        if estimate is not None:
            self.say(estimate)
        row |= {
            "train/learning_rate": float(np.asarray(self._run.parts.schedule(step - 1))),
            "train/epoch": step / self._run.lengths.per_epoch,
        }
        self._notes["loss"] = f"{row['train/loss']:.4f}"
        if "train/contrastive_accuracy" in row:
            self._notes["accuracy"] = f"{100 * row['train/contrastive_accuracy']:.0f} %"
        self.row |= row
        for sentence in self._advisor.sentences(step, row):
            self.note(sentence)

    def add_validation(self, row: dict[str, Any], notes: dict[str, str]) -> None:
        """Add the scores on the validation split."""
        self.row |= row
        self._notes |= notes

    def write(self, step: int, *, force: bool) -> None:
        """Write the row of this step; force: also show it, however recent the last line is."""
        if self._writer:
            self._writer.write(step, self.row)
        self._progress.show(step, force=force, **self._notes)
        self.row, self._notes = {}, {}

    def flush(self) -> None:
        """Make sure that all rows so far are on disk."""
        if self._writer:
            self._writer.flush()

    def close_progress(self) -> None:
        """Leave the bar as it is."""
        self._progress.close()

    def close(self) -> None:
        """Write out what is buffered."""
        if self._writer:
            self._writer.close()
        self._progress.close()


def _writer(run: Run, start_step: int) -> MetricsWriter:
    return MetricsWriter(run.folder, start_step, run.config.to_dict(), run.writers)


def trained_seconds(folder: Path, step: int) -> float:
    """The duration of the steps up to this one, over all starts of the run."""
    seconds = [row["train/seconds"] for row in read_metrics(folder) if row["step"] <= step and "train/seconds" in row]
    return seconds[-1] if seconds else 0.0
