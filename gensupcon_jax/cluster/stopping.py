"""Being asked to stop: SIGTERM and the first SIGINT are remembered until the step is done, the second SIGINT stops at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from jax.experimental import multihost_utils

from gensupcon_jax.cluster import processes
from gensupcon_jax.errors import RunStopped


class StopRequest:
    """Whether the run was asked to stop, and by which signal.

    On several processes jax listens for SIGTERM and lets all stop after the same step, whichever of them was asked.
    """

    signal_name: str | None = None
    _is_deferred = False
    _num_asked = 0

    def is_due(self) -> bool:
        """Whether to stop after this step; every process asks once a step."""
        self._num_asked += 1
        # jax lets all stop at the count after the last one asked for, 0 before the first: of a run that goes on, with a signal
        # during compilation, the number of the step would already be past it, and the signal lost.
        if processes.group().num_processes > 1 and multihost_utils.reached_preemption_sync_point(self._num_asked):
            self.signal_name = "SIGTERM"
        return self.signal_name is not None

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal is only remembered; outside, where nothing is unsaved, it ends the run at once."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
            if processes.group().num_processes > 1 and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, self.remember)  # there are no more steps for jax to agree on

    def remember(self, number: int, frame: object) -> None:
        """The handler of both signals."""
        if self.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
        if not self._is_deferred:
            raise RunStopped(f"{self.signal_name}: nothing is lost; the same command goes on")
        if processes.group().num_processes > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # jax tells the others


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within it, signals are a StopRequest's; outside of the main thread, where Python allows no handlers, nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # jax has its own handler of SIGTERM where there are several processes; Python's would take its place for good.
    numbers = (signal.SIGINT,) if processes.group().num_processes > 1 else (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, request.remember) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
