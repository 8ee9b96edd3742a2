"""Being asked to stop: SIGTERM and the first SIGINT are remembered until the step is done, the second SIGINT stops at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StopRequest:
    """Whether the run was asked to stop, and by which signal."""

    signal_name: str | None = None


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within it, signals only set `signal_name`; outside of the main thread, where Python allows no handlers, nothing changes."""
    request = StopRequest()

    def remember(number, frame):
        if request.signal_name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
