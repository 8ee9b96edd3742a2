"""The watchdog: ends the process if a step takes too long, after printing the stacks of all threads."""

import faulthandler
import sys
import threading
import time

from gensupcon_jax.cluster import processes

_GRACE_SECONDS = 10.0


class Watchdog:
    """`watch` restarts the timer with a description of the work, `pause` stops it; seconds 0: disabled."""

    def __init__(self, seconds: float):
        self._seconds, self._what, self._deadline = seconds, "", float("inf")
        self._closed = threading.Event()
        if seconds:
            threading.Thread(target=self._monitor, daemon=True).start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the timer and its thread."""
        self.pause()
        self._closed.set()

    def watch(self, what: str) -> None:
        """Restart the timer for the work that `what` describes."""
        if self._seconds:
            self._what, self._deadline = what, time.monotonic() + self._seconds
            # A timer in C, for a hang that holds the GIL, where the thread below could not run.
            faulthandler.dump_traceback_later(self._seconds + _GRACE_SECONDS, exit=True, file=sys.__stderr__ or 2)

    def pause(self) -> None:
        """Stop the timer: the next work may take any time."""
        self._deadline = float("inf")
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()

    def _monitor(self) -> None:
        while not self._closed.wait(min(self._seconds / 4, 1.0)):
            if time.monotonic() > self._deadline:
                hangs = f"{self._what} has taken more than {self._seconds:g} seconds"
                print(f"{hangs}; stacks of all threads:", file=sys.__stderr__, flush=True)
                faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
                message = f"error: {hangs}; start the same command again; it resumes from the newest checkpoint"
                processes.abort(message, reason=hangs)
