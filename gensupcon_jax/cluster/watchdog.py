"""The watchdog: ends the process if a part of its work takes too long, after printing the stacks of all threads."""

import faulthandler
import sys
import threading
import time
from typing import NamedTuple

from gensupcon_jax.cluster import processes

_GRACE_SECONDS = 10.0
_LONGEST_SECONDS = 1e9  # 30 years; the timer in C refuses some larger numbers, and the thread takes any
_PAUSED = ("", 0.0, float("inf"))


class Limits(NamedTuple):
    """The seconds that each kind of work may take, 0: any time.

    evaluation: one during training, or all of the final one.  saving: what training waits for at
    a save, at the last one, and while the newest checkpoint is read.
    """

    step: float = 0.0
    evaluation: float = 0.0
    saving: float = 0.0
    report: float = 0.0


class Watchdog:
    """`watch` restarts the timer with the kind of the work and its description, `pause` stops it."""

    def __init__(self, limits: Limits):
        self._limits, self._watched = limits, _PAUSED
        self._closed = threading.Event()
        used = [seconds for seconds in limits if seconds]
        if used:
            self._interval = min(min(used) / 4, 1.0)
            threading.Thread(target=self._monitor, daemon=True, name="watchdog").start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the timer and its thread."""
        self.pause()
        self._closed.set()

    def watch(self, kind: str, what: str) -> None:
        """Restart the timer for the work that `what` describes, of one of the kinds in `Limits`."""
        seconds = getattr(self._limits, kind)
        if not seconds:
            self.pause()
            return
        self._watched = (what, seconds, time.monotonic() + seconds)
        # A timer in C, for a hang that holds the GIL, where the thread below could not run.
        longest = min(seconds + _GRACE_SECONDS, _LONGEST_SECONDS)
        faulthandler.dump_traceback_later(longest, exit=True, file=sys.__stderr__ or 2)

    def pause(self) -> None:
        """Stop the timer: the next work may take any time."""
        self._watched = _PAUSED
        if any(self._limits):
            faulthandler.cancel_dump_traceback_later()

    def _monitor(self) -> None:
        while not self._closed.wait(self._interval):
            what, seconds, deadline = self._watched
            if time.monotonic() > deadline:
                hangs = f"{what} has taken more than {seconds:g} seconds"
                print(f"{hangs}; stacks of all threads:", file=sys.__stderr__, flush=True)
                faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
                message = f"error: {hangs}; start the same command again; it resumes from the newest checkpoint"
                processes.abort(message, reason=hangs)
