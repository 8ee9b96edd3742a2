"""A step that takes far too long ends the process, after every thread has said where it stands."""

import faulthandler
import sys
import threading
import time

from gensupcon_jax.cluster import processes

_GRACE_SECONDS = 10.0


class Watchdog:
    """`watch` starts the clock anew and says what is being done, `pause` stops it; seconds 0: it never ends anything."""

    def __init__(self, seconds: float):
        self._seconds, self._what, self._deadline = seconds, "", float("inf")
        self._closed = threading.Event()
        if seconds:
            threading.Thread(target=self._look, daemon=True).start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *exception: object) -> None:
        """Never look again."""
        self.pause()
        self._closed.set()

    def watch(self, what: str) -> None:
        """Give so many seconds from now on to what is named."""
        if self._seconds:
            self._what, self._deadline = what, time.monotonic() + self._seconds
            # A clock in C, for a hang that holds Python's lock: the thread below could not run.
            faulthandler.dump_traceback_later(self._seconds + _GRACE_SECONDS, exit=True, file=sys.__stderr__ or 2)

    def pause(self) -> None:
        """What comes now may take any time."""
        self._deadline = float("inf")
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        while not self._closed.wait(min(self._seconds / 4, 1.0)):
            if time.monotonic() > self._deadline:
                hangs = f"{self._what} has taken more than {self._seconds:g} seconds"
                print(f"{hangs}; where each thread stands:", file=sys.__stderr__, flush=True)
                faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
                message = f"error: {hangs}; start the same command again, it goes on from the newest checkpoint"
                processes.abort(message, reason=hangs)
