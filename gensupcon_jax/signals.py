"""SIGINT and SIGTERM from a command's first instruction on: the process ends in one line, also from within compiled code.

Python runs a handler in the main thread only, and only between two of its own instructions: not while XLA compiles. What a
handler raises inside an import may pass through C++ that is being initialized, which ends the process by a fault. Therefore a
second thread, which the signal wakes through a pipe, asks the main thread until it is where an exception is safe, and ends the
process where it does not come there in time. Standard library only: commands install it before they import anything else.
"""

import contextlib
import itertools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, NoReturn

from gensupcon_jax.errors import StoppedBetween

STOPS = (signal.SIGINT, signal.SIGTERM)
AGAIN = "nothing is lost; the same command starts again"
RESUMES = "nothing is lost; the same command resumes"
INTERRUPTED = "interrupted; the same command resumes from the newest checkpoint, if there is one"
_ASK = signal.SIGURG  # of no meaning here: it asks the main thread again, and is not counted
_GRACE_SECONDS = 1.2  # for the main thread to come to where it can raise
_CLOSING_SECONDS = 1.5  # for it to close its files; a thread that it waits for may import or compute for long
_ASK_SECONDS = 0.05
_EVENT_LOOPS = ("asyncio", "nest_asyncio")
_CLEANING_SECONDS = 2.0  # for what is removed at the end, if its disk answers
_INSTANT_SECONDS = 0.5  # for the main thread to leave a context that nothing interrupts
_FLUSH_SECONDS = 0.5  # for standard output, which nobody may read


class Process:
    """A process that a command owns: what a stop says and with which status it ends, and how far it has come.

    sentence: follows the name of the signal.  status: None: 128 and the number of the signal, as that of a command without a
    result.  remember_fn: takes the place of ending at once, as long as there is something to save.
    save_fn: saves it in place of the main thread, which does something else that a signal ends; returns what is then said.
    cleanups: called before an end that the main thread does not
    reach.  tell_fn: called after them, to tell other processes.  num_unbroken, num_uninterrupted: depth of these contexts, below.
    """

    def __init__(self):
        self.sentence = AGAIN
        self.status: int | None = None
        self.remember_fn: Callable[[int, FrameType | None], None] | None = None
        self.save_fn: Callable[[], str] | None = None
        self.cleanups: list[Callable[[], Any]] = []
        self.is_over = self.is_remembered = False
        self.number = signal.SIGTERM.value  # the one that is said
        self.tell_fn: Callable[[], Any] | None = None
        self.ending_status: int | None = None  # with which the process ends, known to tell_fn
        self._unwinds_since: float | None = None
        self._first: tuple[int, float] | None = None  # the number of the first signal, and when it came
        self._insists = False  # another SIGINT came after it
        self._loses_steps = False  # it ended training before the step was saved
        self.num_unbroken = self.num_uninterrupted = 0
        self._num_signals = 0
        self._asked = signal.SIGTERM.value  # the signal that the main thread is to handle now
        self._hooks: tuple[Callable, Callable] | None = None  # of others, for lost exceptions
        self._deciding = threading.Lock()  # which thread saves
        self._is_saving_last = False  # a thread does, as the main thread has not come in time
        self._is_ending = False  # the thread below ends the process, and says its line

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The handler, in the main thread."""
        if self.is_over:
            return
        if self.remember_fn is not None and not (self.is_remembered and number == signal.SIGINT):
            if not self.is_remembered:
                self.remember_fn(number, frame)
            self.is_remembered = True
        elif self._unwinds_since is None and not self.num_uninterrupted and not _is_delicate(frame):
            self.unwinds(number)
            if self.remember_fn is not None:
                self._loses_steps = True
                self.remember_fn(number, frame)  # raises: the second SIGINT saves nothing more
            raise StoppedBetween(self.line(number))

    def handle_again(self, _: int, frame: FrameType | None) -> None:
        """The handler of what the thread below sends."""
        if self._insists or not self.is_remembered:  # else the signal itself has been handled meanwhile
            self.handle(self._asked, frame)

    def abandons(self, save_fn: Callable[[], str]) -> None:
        """Until `goes_on` the first signal raises at once, though there is something to save, which `save_fn` can do as well."""
        self.save_fn = save_fn
        self.remember_fn = None

    def goes_on(self, remember_fn: Callable[[int, FrameType | None], None]) -> None:
        """The main thread has what is to be saved in hand again, and a signal that has raised meanwhile is remembered."""
        with self._deciding:
            if not self._is_saving_last:
                self.save_fn = None
                self.is_remembered = self.is_remembered or self._unwinds_since is not None
                self.remember_fn = remember_fn
                self._unwinds_since = None
                if self._hooks is not None:
                    (sys.unraisablehook, threading.excepthook), self._hooks = self._hooks, None
                return
        _wait_forever()  # until the other thread has saved and ends the process

    def ends(self) -> None:
        """The calling thread ends the process, in a line of its own; does not return where the thread below does so already."""
        with self._deciding:
            self.is_over = not self._is_ending
        if not self.is_over:
            _wait_forever()

    def unwinds(self, number: int) -> None:
        """From now on an exception of ours closes what is open; what others raise meanwhile is of no interest."""
        self.number = number
        self._unwinds_since = time.monotonic()
        self._hooks = self._hooks or (sys.unraisablehook, threading.excepthook)
        sys.unraisablehook = self._lost_exception
        threading.excepthook = lambda _: None

    def _lost_exception(self, lost: Any) -> None:
        if isinstance(lost.exc_value, (StoppedBetween, KeyboardInterrupt)):
            self._unwinds_since = None  # it was raised where Python drops exceptions: ask again

    def line(self, number: int) -> str:
        """What is said about a stop by this signal."""
        return f"{signal.Signals(number).name}: {self.sentence}"

    def status_of(self, number: int) -> int:
        """The exit status after this signal."""
        return 128 + number if self.status is None else self.status

    def watch(self, pipe: int) -> None:
        """The thread that the signals wake."""
        while True:
            is_read, _, _ = select.select([pipe], [], [], _ASK_SECONDS if self._first else None)
            numbers = [number for number in os.read(pipe, 64) if number in STOPS] if is_read else []
            for number in numbers:
                self._receive(number)
            if self._first and not self.is_over and (numbers or not is_read):
                self._enforce()

    def _receive(self, number: int) -> None:
        self._num_signals += 1
        if self._first is None:
            self._first = number, time.monotonic()
        elif number == signal.SIGINT:
            self._insists = True
            self._first = self._first[0], max(self._first[1], time.monotonic())

    def _enforce(self) -> None:
        """End the process where the main thread does not."""
        assert self._first is not None
        if self._is_saving_last:
            if self._num_signals > 2:
                self._end(self._first[0])
            return
        if self.is_remembered and not self._insists:
            return  # it saves, and ends by itself
        number, since = self._first
        saves_first = self.remember_fn is not None and not self._insists
        if self._unwinds_since is not None:
            is_late = time.monotonic() > self._unwinds_since + _CLOSING_SECONDS and not self.num_unbroken
            if is_late or self._num_signals > 2:
                self._save_and_end(number)
        elif (
            time.monotonic() > since + _GRACE_SECONDS
            and not saves_first
            and (not self.num_unbroken or self._num_signals > 2)
        ):
            self._save_and_end(number)
        else:
            self._asked = signal.SIGINT.value if self._insists else number
            signal.pthread_kill(
                threading.main_thread().ident or 0, _ASK
            )  # also ends a call that waits, such as a sleep

    def _save_and_end(self, number: int) -> None:
        """End the process, where there is something to save after another thread has done it."""
        with self._deciding:
            save_fn = self.save_fn
            if save_fn is None and self.remember_fn is not None and not self._insists:
                return  # the main thread has come meanwhile, and saves
            self._is_saving_last = save_fn is not None
        if save_fn is None or self._num_signals > 2:
            self._end(number)
        threading.Thread(target=self._save_last, args=(number, save_fn), daemon=True, name="last save").start()

    def _save_last(self, number: int, save_fn: Callable[[], str]) -> None:
        try:
            self.sentence = save_fn()
            status, line = self.status_of(number), self.line(number)
        except Exception as error:  # of the disk: what was not saved is said in place of the signal
            status, line = 1, f"error: {error}"
        self._end_with(status, line)

    def _end(self, number: int) -> NoReturn:
        status, line = self.status_of(number), self.line(number)
        if self._loses_steps or self._is_saving_last or self.remember_fn is not None:
            status, line = 1, INTERRUPTED
        self._end_with(status, line)

    def _end_with(self, status: int, line: str) -> NoReturn:
        with self._deciding:
            is_another = self.is_over or self._is_ending
            self._is_ending = not self.is_over
        if is_another:
            _wait_forever()  # the main thread has come meanwhile, or the one that saves
        self.end_with(status, line)

    def end_with(self, status: int, line: str) -> NoReturn:
        """Remove what must not be left, tell other processes, and end this one."""
        self.ending_status = status
        self.clean_up()
        if self.tell_fn is not None:
            self.tell_fn()
        end_process(status, line)

    def clean_up(self) -> None:
        """Call the cleanups, before an end that the main thread does not reach; a disk that does not answer is not waited for."""
        _do_within(_CLEANING_SECONDS, self._call_cleanups)

    def _call_cleanups(self) -> None:
        end = time.monotonic() + _INSTANT_SECONDS
        while self.num_uninterrupted and time.monotonic() < end:
            time.sleep(0.01)  # what the main thread makes now is about to get its cleanup
        for cleanup in reversed(self.cleanups):
            with contextlib.suppress(Exception):  # the process ends in any case, and says in one line why
                cleanup()


def _wait_forever() -> NoReturn:
    while True:
        time.sleep(1)


def _do_within(seconds: float, work_fn: Callable[[], None]) -> None:
    """Call the function in a thread, and do not wait for it for longer."""
    thread = threading.Thread(target=work_fn, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system has no more threads, or Python takes itself down
        work_fn()
    else:
        thread.join(seconds)


_process: Process | None = None


def owner() -> Process | None:
    """The process, where a command owns it; None in a notebook or in a program of others, whose handlers stay."""
    return _process


def that_are_not_ignored() -> list[int]:
    """SIGINT and SIGTERM, without one that the parent has this process ignore: a shell does so for `command &` in a script."""
    return [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]


def own_process(training: Sequence[str] | None = None) -> None:
    """Take over SIGINT and SIGTERM for a command; called in the main thread, before anything else is imported.

    training: the arguments where the command trains, which promises more at a stop than others do.
    """
    global _process
    if _process is not None or threading.current_thread() is not threading.main_thread():
        return
    _process = Process()
    if training is not None:
        promise(RESUMES, stopped_status(training))
    pipe, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    sys.excepthook = _uncaught  # while the command itself is imported, nothing handles the exception yet
    for number in that_are_not_ignored():
        signal.signal(number, _process.handle)
    signal.signal(_ASK, _process.handle_again)
    threading.Thread(target=_process.watch, args=(pipe,), daemon=True, name="signals").start()


def promise(sentence: str, status: int | None = None) -> None:
    """What a stop says from now on, and with which status it ends; without effect where no command owns the process."""
    if _process is not None:
        _process.sentence, _process.status = sentence, status


def stopped_status(arguments: Sequence[str]) -> int:
    """The status of --stopped_status, before the arguments are parsed, which takes a moment; 0 where it is not there."""
    status = 0
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, is_joined, value = argument.partition("=")
        if flag.startswith("-") and flag.lstrip("-").replace("-", "_") == "stopped_status":
            value = value if is_joined else following
            status = int(value) if value.isascii() and value.isdecimal() and len(value) < 4 else 0
    return status


def has_saved(sentence: str) -> None:
    """What a stop says from now on, with the same status: what it was asked to save is saved."""
    if _process is not None:
        _process.sentence = sentence


def finished() -> None:
    """How the process ends is certain: signals change nothing any more, also while Python takes itself down.

    Does not return where a signal has just ended the process.
    """
    if _process is not None:
        with uninterrupted():
            _process.ends()
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def cleanup(cleanup_fn: Callable[[], Any]) -> Iterator[None]:
    """A context in which the function is also called before an end that the main thread does not reach."""
    process = _process  # a child, or a process that was released, has none when the context ends
    if process is None:
        yield
        return
    process.cleanups.append(cleanup_fn)
    try:
        yield
    finally:
        process.cleanups.remove(cleanup_fn)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """A context whose end is waited for, until a third signal: a checkpoint is being written."""
    process = _process or Process()
    process.num_unbroken += 1
    try:
        yield
    finally:
        process.num_unbroken -= 1


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A context of an instant in which no exception of a signal is raised."""
    process = _process or Process()
    process.num_uninterrupted += 1
    try:
        yield
    finally:
        process.num_uninterrupted -= 1


def stopped(error: StoppedBetween) -> NoReturn:
    """End the process after the exception of `Process.handle` has closed all files."""
    assert _process is not None
    finished()
    # It cleans up: an exception in the middle of the end of a context leaves what it would have removed.
    _process.end_with(_process.status_of(_process.number), str(error))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, StoppedBetween) and _process is not None:
        stopped(error)
    sys.__excepthook__(kind, error, trace)


def end_process(status: int, line: str) -> NoReturn:
    """End the process in one line on standard error.

    Hard: every file of ours is closed. Python's own end would wait for the threads of a download or of a decoder, and would
    take down C++ libraries while their threads still run, which is a fault from time to time.
    """
    _do_within(_FLUSH_SECONDS, _flush)  # standard output may be a pipe that is full
    # Not through sys.stderr, whose lock the main thread may hold. A progress bar on a terminal has no end of line.
    with contextlib.suppress(OSError):
        os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}\n".encode(errors="backslashreplace"))
    os._exit(status)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _is_delicate(frame: FrameType | None) -> bool:
    """Whether it imports; or runs an event loop, which takes what is raised for a fault of its callback, and logs a traceback."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_filename.startswith("<frozen importlib") or name.partition(".")[0] in _EVENT_LOOPS:
            return True
        frame = frame.f_back
    return False


def _before_fork() -> None:
    # A signal for the child must not come to it while it still has our handler and our pipe: the parent would end.
    if _process is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def _after_fork_in_parent() -> None:
    if _process is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _after_fork_in_child() -> None:
    """The thread does not exist here: the handlers are those of a new process."""
    global _process
    if _process is not None:
        _process = None
        signal.set_wakeup_fd(-1)
        handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number in that_are_not_ignored():
            signal.signal(number, handlers[signal.Signals(number)])
        signal.signal(_ASK, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
