"""What takes longer than two seconds says so, where nothing can be counted: imports and compilation."""

import contextlib
import threading
from collections.abc import Callable, Iterator

_SECONDS = 2.0


@contextlib.contextmanager
def said_if_slow(text: str, say_fn: Callable[[str], None], seconds: float = _SECONDS) -> Iterator[None]:
    """A context that says the text if it takes longer than this; from another thread, as the block may hold its own in C++."""
    timer = threading.Timer(seconds, say_fn, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
