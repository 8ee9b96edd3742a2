"""When training steps end, seen by a thread that waits for their outputs, so that the loop itself waits for none."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax

from gensupcon_jax.cluster import processes
from gensupcon_jax.run.account import Account


class _Sent(NamedTuple):
    """A step that was sent to the devices: its outputs, when that began, and whether its time is that of other steps."""

    outputs: Any
    sent: float
    floor: float
    is_timed: bool


class StepClock:
    """Times of steps from the end of one to the end of the next, without evaluations and saves between them.

    idle_seconds: while the devices of this process had no step, since this start; without the first step, which is compiled.
    As a context: leaving it waits until all ends are seen, but not after an error.
    """

    def __init__(self, account: Account):
        self.idle_seconds = self._said_seconds = 0.0
        self._account = account
        self._floor = self._ended = float("-inf")
        self._num_sent = self._num_ended = 0
        self._queue: queue.SimpleQueue[_Sent | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="step clock")
        self._thread.start()

    def __enter__(self) -> "StepClock":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._queue.put(None)
        if kind is None:
            self._thread.join()

    def waiting(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; time that the loop waits for one is input wait, but for the part in which a step still runs."""
        iterator = iter(batches)
        while True:
            with self._account.phase("input_wait"):
                started = time.monotonic()
                batch = next(iterator, self)  # itself: no batch
                ended = time.monotonic()
                is_busy = self._num_ended < self._num_sent
                overlap = ended - started if is_busy else min(max(0.0, self._ended - started), ended - started)
                self._account.move("input_wait", "step", overlap)
            if batch is self:
                return
            yield batch

    def sent(self, outputs: Any, began: float, *, is_timed: bool) -> None:
        """A step was sent to the devices; began: when that began.  is_timed: False: it was compiled then."""
        self._num_sent += 1
        self._queue.put(_Sent(outputs, began, self._floor, is_timed))

    @contextlib.contextmanager
    def paused(self, phase: str) -> Iterator[None]:
        """The time inside this context belongs to this phase, and not to the next step."""
        with self._account.phase(phase):
            yield
        self._floor = time.monotonic()

    def slowest_process(self) -> tuple[int, float] | None:
        """(process, seconds without a step) of the one whose devices had none for the longest since the last call.

        The devices of the others wait for it within their steps. None for a single process; a collective call.
        """
        seconds, self._said_seconds = self.idle_seconds - self._said_seconds, self.idle_seconds
        of_all = processes.group().gather(seconds)
        if len(of_all) == 1:
            return None
        self._account.add_idle_seconds(of_all)
        slowest = max(range(len(of_all)), key=of_all.__getitem__)
        return slowest, of_all[slowest]

    def _watch(self) -> None:
        while (step := self._queue.get()) is not None:
            try:
                jax.block_until_ready(step.outputs)
            except Exception:
                return  # the loop, which waits for them too, raises it
            now, since = time.monotonic(), max(self._ended, step.floor)
            if step.is_timed and since > float("-inf"):
                self._account.add_step_seconds(now - since)
                self.idle_seconds += max(0.0, step.sent - since)
            self._ended = now
            self._num_ended += 1
