"""Stop requests: SIGTERM and the first SIGINT take effect after the current step, the second SIGINT at once."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from gensupcon_jax import signals
from gensupcon_jax.cluster import processes
from gensupcon_jax.errors import StoppedBetween

Value = TypeVar("Value")


class StopRequest:
    """Whether a signal requested a stop, and which one.

    Several processes stop after the same step, whichever of them received it: one that stopped at its own signal, before the
    others know of it, would wait for them in its save forever.
    """

    signal_name: str | None = None
    _is_deferred = _is_abandonable = False
    _is_told = False  # another process received it

    def is_due(self) -> bool:
        """Whether to stop after this step; every process calls it once per step."""
        group = processes.group()
        if group.num_processes == 1:
            return self.signal_name is not None
        name = group.stop.reached()
        self._learn(name)
        return name is not None

    def is_due_for_any(self) -> bool:
        """Whether one of the processes has received a signal, now that there are no more steps; a collective call."""
        names = [name for name in processes.group().gather(self.signal_name) if name]
        self._learn(names[0] if names else None)
        return bool(names)

    def _learn(self, name: str | None) -> None:
        if name is not None and self.signal_name is None:
            self.signal_name, self._is_told = name, True

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """A context in which a signal is only recorded; outside of it, where nothing is unsaved, it ends the run at once."""
        self._defer(True)
        try:
            yield
        finally:
            self._defer(False)
        if self.signal_name is not None:  # it came after the last look, and everything has been saved
            raise StoppedBetween(f"{self.signal_name}: {signals.RESUMES}")

    def abandonable(self, work_fn: Callable[[], Value], save_fn: Callable[[], str]) -> Value | None:
        """The value of a function that changes nothing; None where a signal ended it, or came before it.

        Of a single process, while signals are deferred; of several the function is finished, so that all of them do the same.
        save_fn: called in place of all that follows, in another thread, where the function computes in C for too long; saves
        what there is to save, and returns the sentence that says so.
        """
        is_main = threading.current_thread() is threading.main_thread()
        if processes.group().num_processes > 1 or not self._is_deferred or not is_main:
            return work_fn()
        try:
            try:
                self._abandons(save_fn)
                return work_fn() if self.signal_name is None else None
            finally:
                self._goes_on()
        except StoppedBetween:
            self._goes_on()
            return None

    def _abandons(self, save_fn: Callable[[], str]) -> None:
        owner = signals.owner()
        if owner is not None:
            owner.abandons(save_fn)
        else:
            self._is_abandonable = True

    def _goes_on(self) -> None:
        owner = signals.owner()
        self._is_abandonable = False
        if owner is not None:
            owner.goes_on(self.remember)
            if owner.is_remembered and self.signal_name is None:
                self.signal_name = signal.Signals(owner.number).name

    def _defer(self, is_deferred: bool) -> None:
        self._is_deferred = is_deferred
        owner = signals.owner()
        if owner is not None and threading.current_thread() is threading.main_thread():
            owner.remember_fn = self.remember if is_deferred else None

    def remember(self, number: int, frame: object) -> None:
        """The handler of both signals."""
        if self.signal_name is not None and number == signal.SIGINT and not self._is_told:
            raise KeyboardInterrupt
        self._is_told = False
        self.signal_name = signal.Signals(number).name
        if self._is_abandonable or not self._is_deferred:
            self._is_abandonable = False
            raise StoppedBetween(f"{self.signal_name}: {signals.RESUMES}")
        if processes.group().num_processes > 1:
            processes.group().stop.ask(self.signal_name)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """A context in which signals become stop requests; without effect outside of the main thread, as in Python.

    Where a command owns the process, its handlers stay: they ask the request only while it defers.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread() or signals.owner() is not None:
        yield request
        return
    previous = {number: signal.signal(number, request.remember) for number in signals.that_are_not_ignored()}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
