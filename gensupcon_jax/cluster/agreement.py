"""The step after which several processes stop: any of them asks for it, process 0 chooses it, and none has passed it."""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

MESSAGE = "stop"  # the field of messages that are for `Agreement.receive`


class Agreement:
    """One process's part: it counts its steps, and holds still from when process 0 asks for the count until it has chosen.

    peers: process 0 for the others, all others for process 0.  send_fn: sends a message of JSON to one of them.
    """

    def __init__(self, peers: Iterable[int], send_fn: Callable[[int, dict[str, Any]], None]):
        self._peers, self._send_fn = tuple(peers), send_fn
        self._is_first = 0 not in self._peers
        self._asked = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._num_steps = 0
        self._name: str | None = None  # of the signal
        self._last: int | None = None
        self._counts: dict[int, int] = {}
        threading.Thread(target=self._pass_on, daemon=True, name="stop").start()

    def ask(self, name: str) -> None:
        """Let all stop after one of the next steps; also from a signal handler, which must not wait for a lock."""
        self._asked.put(name)

    def reached(self) -> str | None:
        """The name of the signal for which all stop after this step, else None; every process calls it once per step."""
        with self._changed:
            while self._name is not None and self._last is None:
                self._changed.wait(1.0)  # with a timeout, as an endless wait would block signal handlers
            self._num_steps += 1
            return self._name if self._num_steps == self._last else None

    def receive(self, peer: int, word: str, value: Any) -> None:
        """A message of another process, in the thread that reads them."""
        if word == "ask":
            self._count_all(value)
        elif word == "count":
            with self._changed:
                self._name, count = value, self._num_steps
            self._send(0, "counted", count)
        elif word == "counted":
            self._counted(peer, value)
        else:
            self._choose(value)

    def _pass_on(self) -> None:
        while True:
            name = self._asked.get()
            if self._is_first:
                self._count_all(name)
            else:
                self._send(0, "ask", name)

    def _count_all(self, name: str) -> None:
        with self._changed:
            if self._name is not None:
                return  # another process has asked before
            self._name, self._counts = name, {0: self._num_steps}
        for peer in self._peers:
            self._send(peer, "count", name)

    def _counted(self, peer: int, count: int) -> None:
        self._counts[peer] = count
        if len(self._counts) > len(self._peers):
            last = max(self._counts.values()) + 1
            for other in self._peers:
                self._send(other, "last", last)
            self._choose(last)

    def _choose(self, last: int) -> None:
        with self._changed:
            self._last = last
            self._changed.notify_all()

    def _send(self, peer: int, word: str, value: Any) -> None:
        self._send_fn(peer, {MESSAGE: [word, value]})
