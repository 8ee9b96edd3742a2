"""Where the wall time of a run goes: each moment of a start belongs to one phase, and the sums are kept in time.json."""

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path as LocalPath
from typing import Any

import jax

from gensupcon_jax import paths
from gensupcon_jax.cluster import processes
from gensupcon_jax.paths import Path
from gensupcon_jax.phases import PHASES
from gensupcon_jax.store.wall_time import read_starts, step_bin, summed, write_starts

_COMPILING = "/jax/core/compile/"  # the beginning of jax's events for tracing, lowering and compiling or loading
_WRITE_SECONDS, _WRITE_SECONDS_REMOTE = 1.0, 60.0
_MOST_MISSED = 3  # times that the thread could not write: the loop then does, and its error ends the run


def process_began() -> float:
    """When this process started, on the clock of `time.monotonic`; now, where the system does not say."""
    now = time.monotonic()
    try:
        fields = LocalPath("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[19])  # since the machine started
        return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):  # not Linux
        return now


class Account:
    """The wall time of this start by phases; as a context, time of compilation is taken out of the phase that contains it, and a
    thread writes the account into the workdir once a second, so that a kill loses no more of it.

    began: on the clock of `time.monotonic`: until the context is entered everything is "import"; None: now.

        with Account(process_began()) as account, account.phase("data"):
            ...
        account.total()["seconds"]["data"]
    """

    def __init__(self, began: float | None = None):
        self._thread = threading.get_ident()
        now = time.monotonic()
        self._began = self._since = now if began is None else began
        self._phase = "other" if began is None else "import"
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._compiled: list[tuple[float, float, str]] = []  # begin, seconds, phase that contains it
        self._folder: Path | None = None
        self._earlier: list[dict[str, Any]] = []
        self._written = 0.0
        self._date = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=now - self._began)
        self._first_step: int | None = None
        self._last_step: int | None = None
        self._bins: dict[int, int] = {}
        self._slowest = 0.0
        self._idle_seconds: list[float] = []  # of each process, where there are several
        self._lock = threading.RLock()  # of all above; a signal's handler may come in between
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write_again, daemon=True, name="account")

    def __enter__(self) -> "Account":
        self._enter("other")
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self._writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)
        self._closed.set()
        self._writer.join()  # it would write an older account after the last one
        # After an error the disk may be the cause: the error that ended the run is the one to show.
        with contextlib.suppress(Exception) if kind is not None else contextlib.nullcontext():
            self.write()

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time inside this context belongs to this phase, but for that of phases within; profiles show it by its name."""
        before = self._enter(name)
        try:
            with jax.profiler.TraceAnnotation(name):
                yield
        finally:
            self._enter(before)

    def move(self, source: str, target: str, seconds: float) -> None:
        """So many seconds of one phase belong to another one."""
        with self._lock:
            self._seconds[source] -= seconds
            self._seconds[target] += seconds

    def keep_in(self, folder: Path) -> None:
        """From now on the account is kept in this workdir, after those of earlier starts; by process 0 only."""
        if processes.is_first():
            self._folder, self._earlier = folder, read_starts(folder)
            self.write()

    def begin_training(self, step: int) -> None:
        """Training begins after this step: later ones of earlier starts are lost."""
        self._first_step = self._last_step = step

    def add_step_seconds(self, seconds: float) -> None:
        """The time from the end of a step to that of the next."""
        number = step_bin(seconds)
        with self._lock:
            self._bins[number] = self._bins.get(number, 0) + 1
            self._slowest = max(self._slowest, seconds)

    def add_idle_seconds(self, of_processes: Sequence[float]) -> None:
        """Seconds for which the devices of each process had no step."""
        before = self._idle_seconds or [0.0] * len(of_processes)
        self._idle_seconds = [old + new for old, new in zip(before, of_processes, strict=True)]

    def reach(self, step: int) -> None:
        """This step is done; NotWritten where the account cannot be written any more."""
        self._last_step = step
        if self._folder is not None and time.monotonic() - self._written > _MOST_MISSED * self._pause():
            self.write()

    def write(self) -> None:
        """Write the account into the workdir."""
        if self._folder is not None:
            write_starts(self._folder, [*self._earlier, self._start()])
            self._written = time.monotonic()

    def _pause(self) -> float:
        is_remote = self._folder is not None and paths.is_remote(self._folder)
        return _WRITE_SECONDS_REMOTE if is_remote else _WRITE_SECONDS

    def _write_again(self) -> None:
        while not self._closed.wait(self._pause()):
            with contextlib.suppress(*paths.failures()):  # `reach` raises what lasts
                self.write()

    def total(self) -> dict[str, Any]:
        """The account of all starts until now, see `wall_time.summed`.

        With several processes also the "idle_seconds" of each in this start, without a step, and the "slowest_process".
        """
        idle = self._idle_seconds
        of_processes = {"idle_seconds": idle, "slowest_process": idle.index(max(idle))} if idle else {}
        return summed([*self._earlier, self._start()]) | of_processes

    def _start(self) -> dict[str, Any]:
        with self._lock:
            self._enter(self._phase)
            return {
                "began": self._date.isoformat(timespec="seconds"),
                "seconds": dict(self._seconds),
                "first_step": self._first_step,
                "last_step": self._last_step,
                "step_bins": {str(number): count for number, count in self._bins.items()},
                "slowest_step": self._slowest,
            }

    def _enter(self, phase: str) -> str:
        """Begin a phase; returns the one before."""
        with self._lock:
            now = time.monotonic()
            self._seconds[self._phase] += now - self._since
            before, self._phase, self._since = self._phase, phase, now
            return before

    def _heard(self, event: str, duration_secs: float, **details: str | int) -> None:
        """jax says at its end how long a part of a compilation took; a part may contain others, said before."""
        if not event.startswith(_COMPILING) or threading.get_ident() != self._thread:
            return
        now = time.monotonic()
        seconds = min(max(duration_secs, 0.0), now - self._began)  # by a clock that may be set
        while self._compiled and self._compiled[-1][0] >= now - seconds:
            inner, phase = self._compiled.pop()[1:]
            self.move("compile", phase, inner)
        self._compiled.append((now - seconds, seconds, self._phase))
        self.move(self._phase, "compile", seconds)
