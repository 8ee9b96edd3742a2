"""The progress of a run: a bar in a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Images per second, loss, last k-NN accuracy and time left, on standard error, if it is shown."""

    def __init__(self, *, start_step: int, end_step: int, batch_size: int, is_shown: bool = True):
        self._is_shown = is_shown
        self._batch_size, self._end_step = batch_size, end_step
        self._notes: dict[str, str] = {}
        self._started, self._start_step, self._last_line = None, start_step, 0.0
        self._bar = tqdm(
            total=end_step * batch_size,
            initial=start_step * batch_size,
            unit=" images",
            unit_scale=True,
            disable=not (is_shown and sys.stderr.isatty()),
            dynamic_ncols=True,
            desc="training",
        )

    def advance(self) -> None:
        """Count one more step."""
        self._bar.update(self._batch_size)
        if self._started is None:  # the first step is mostly compilation, so the time left is estimated without it
            self._started, self._start_step = time.monotonic(), self._start_step + 1

    def show(self, step: int, *, force: bool = False, **notes: str) -> None:
        """Put notes such as loss="3.21" next to the bar, or print them as a line, at most one every few seconds."""
        self._notes |= notes
        if not self._bar.disable:
            self._bar.set_postfix(self._notes, refresh=False)
        elif force or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            parts = [f"step {step}/{self._end_step}", *self._rate(step)]
            self.say("  ".join(parts + [f"{name} {note}" for name, note in self._notes.items()]))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._is_shown:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _rate(self, step: int) -> tuple[str, ...]:
        done = step - self._start_step
        if done <= 0 or self._started is None:
            return ()
        steps_per_second = done / max(time.monotonic() - self._started, 1e-9)
        left = tqdm.format_interval((self._end_step - step) / steps_per_second)
        return f"{steps_per_second * self._batch_size:.0f} images/s", f"{left} left"
