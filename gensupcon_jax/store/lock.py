"""One run per workdir: a lock of the kernel, and a beat in the same file for hosts whose kernels do not see each other."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from gensupcon_jax import paths, signals
from gensupcon_jax.cluster import processes
from gensupcon_jax.errors import UserError
from gensupcon_jax.json_files import parsed
from gensupcon_jax.paths import Path
from gensupcon_jax.store import workdir
from gensupcon_jax.text import one_line, reason, visible

LOCK = "run.lock"
BEAT_SECONDS = 5.0
STILL_SECONDS = 30.0  # a beat that stands still for so long is that of a process that has ended
_SETTLE_SECONDS = (
    2.0  # without a lock of the kernel: of two that start together, the one that writes last is the holder
)
_WITHOUT_LOCKS = {
    errno.ENOLCK,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.ENOTSUP,
    errno.EINVAL,
}  # what the file system says
_LONGEST_COMMAND = 200  # that a message shows


class Holder(NamedTuple):
    """The process that trains in a workdir.  since: by its own clock.  token: of this start alone.  beat: counts up."""

    host: str
    process_id: int
    since: str
    command: str
    token: str
    beat: int = 0

    def content(self) -> bytes:
        """The content of the file."""
        return json.dumps(self._asdict()).encode()


@contextlib.contextmanager
def held(folder: Path, command: str = "") -> Iterator[None]:
    """A context in which this process alone trains in the folder, which is made if need be.

    Raises UserError, and changes nothing, while another process does: its host, number, start and command are named. The kernel
    releases the lock of a process that ends, however it ends. Where the file system has no locks (object storage, some shared
    folders), or where the file is of another host, whose locks may not hold here, the file is watched: the holder changes it
    every BEAT_SECONDS, so one that stands still for STILL_SECONDS is left over. Clocks are not compared.
    Of several processes of one run the first one, which writes, holds the lock.
    """
    if not processes.is_first():
        yield
        return
    made = [each for each in (folder, *folder.parents) if not paths.exists(each)]
    with contextlib.ExitStack() as held:
        try:
            with signals.uninterrupted():  # until its file is removed in any case
                folder.mkdir(parents=True, exist_ok=True)
                if not paths.is_remote(folder):
                    held.callback(_remove_if_empty, made)
                lock, settle_seconds = _acquire(folder, _this_process(command))
                # Until it is released, as another thread may end the process first.
                held.enter_context(signals.cleanup(lock.release))
                held.callback(lock.release)
            lock.start(settle_seconds)
        except paths.failures() as error:
            raise workdir.cannot_be_written(folder, error) from error
        yield


class _KernelLock:
    """A file that this process has locked, by a descriptor that its children do not keep."""

    def __init__(self, path: Any, descriptor: int):
        self._path, self._descriptor = path, descriptor
        _DESCRIPTORS.add(descriptor)

    def write(self, content: bytes) -> None:
        """Replace the content."""
        os.pwrite(self._descriptor, content, 0)  # in place: the lock is that of this file, not that of its name
        os.ftruncate(self._descriptor, len(content))

    def renew(self) -> None:
        """Lock the file of this name where somebody removed the one that was locked."""
        if not _is_at(self._descriptor, self._path):
            descriptor = _locked(self._path)
            if descriptor is not None:
                self.close()
                self._descriptor = descriptor
                _DESCRIPTORS.add(descriptor)

    def remove(self) -> None:
        """Remove the file while it is locked: who waits for its lock finds that it has no name any more."""
        if _is_at(self._descriptor, self._path):
            self._path.unlink()

    def close(self) -> None:
        """Unlock the file."""
        _DESCRIPTORS.discard(self._descriptor)
        os.close(self._descriptor)


class _PlainFile:
    """A file without a lock."""

    def __init__(self, path: Path):
        self._path = path

    def write(self, content: bytes) -> None:
        """Replace the content."""
        paths.write_whole(self._path, content)

    def renew(self) -> None:
        """Nothing to do, as each write makes it."""

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing to do, as it is not kept open."""


class _Lock:
    """The lock of this process, with the thread that writes its beats."""

    def __init__(self, folder: Path, file: _KernelLock | _PlainFile, holder: Holder):
        self._folder, self._path, self._file, self._holder = folder, folder / LOCK, file, holder
        self._ended = threading.Event()
        self._process_id = os.getpid()
        self._releasing, self._is_released = threading.Lock(), False
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lock")

    def start(self, settle_seconds: float) -> None:
        """Write who holds the folder, and begin to write beats; UserError if another wrote itself in within these seconds."""
        self._file.write(self._holder.content())
        if settle_seconds:
            time.sleep(settle_seconds)
            found = _read(self._path)
            if _token_of(found) != self._holder.token:
                raise _in_use(self._folder, found)
        self._thread.start()

    def release(self) -> None:
        """Give the folder back, once; a file that cannot be removed is that of a process that has ended."""
        if os.getpid() != self._process_id:
            return  # a child has no part in it
        # The main thread may do so: a signal does not break it off, and a thread that ends the process does not overtake it.
        with signals.uninterrupted(), self._releasing:
            if not self._is_released:
                self._is_released = True
                self._release()

    def _release(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        with contextlib.suppress(*paths.failures()):
            if _token_of(_read(self._path)) in (self._holder.token, None):
                self._file.remove()
        self._file.close()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # A full disk or a lost folder ends the run at its next save, with a line about it; the lock can wait for that.
            with contextlib.suppress(*paths.failures()):
                self._beat_once()

    def _beat_once(self) -> None:
        found = _read(self._path)
        if _token_of(found) not in (self._holder.token, None):
            self._ended.set()
            processes.abort(f"error: {_lost(self._folder, found)}", reason="another process took over its workdir")
            return
        self._file.renew()
        self._holder = self._holder._replace(beat=self._holder.beat + 1)
        self._file.write(self._holder.content())


def _acquire(folder: Path, holder: Holder) -> tuple[_Lock, float]:
    """The lock, and the seconds that it takes to know that no other process has taken it at the same time."""
    path = folder / LOCK
    while True:
        try:
            descriptor = None if paths.is_remote(path) else _locked(path)
        except PermissionError as error:
            if not paths.exists(path):
                raise  # the folder itself may not be written
            raise UserError(
                f"{path} cannot be opened ({reason(error)}); where no run of another user trains in {folder}, remove it"
            ) from error
        except BlockingIOError:
            raise _in_use(folder, _read_when_written(path)) from None
        found = _read(path)
        is_known_to_have_ended = descriptor is not None and _host_of(found) == host_name()
        try:
            if found and not is_known_to_have_ended:
                _watch(folder, found)
            if descriptor is None or _is_at(descriptor, path):  # else it was removed meanwhile
                break
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise
        os.close(descriptor)
    file = _PlainFile(path) if descriptor is None else _KernelLock(path, descriptor)
    return _Lock(folder, file, holder), _SETTLE_SECONDS if descriptor is None else 0.0


def _watch(folder: Path, found: bytes) -> None:
    """Return when the file has stood still for STILL_SECONDS, or is gone; UserError when it changes."""
    print(
        f"{_sentence(folder, found)}; waiting up to {STILL_SECONDS:g} seconds to see whether it still does",
        file=sys.stderr,
        flush=True,
    )
    end = time.monotonic() + STILL_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, STILL_SECONDS / 10))
        now = _read(folder / LOCK)
        if not now:
            return
        if now != found:
            raise _in_use(folder, now)


def _locked(path: Any) -> int | None:
    """The descriptor of the file, made if need be, with its lock; None without locks; BlockingIOError if another has it."""
    while True:
        if path.is_symlink() or (
            paths.exists(path) and not paths.is_file(path)
        ):  # to write into what a link names would destroy it
            raise UserError(
                f"{path} is not a file of a run; remove it: a run writes there that it trains in {path.parent}"
            )
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _flock(descriptor)
            if _is_at(descriptor, path):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _WITHOUT_LOCKS:
                return None
            raise
        os.close(descriptor)  # its last holder removed it before this process had the lock


def _flock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: Any) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


_DESCRIPTORS: set[int] = set()  # of the locks of this process


def _close_in_child() -> None:
    # A child that outlives its killed parent would keep the lock, as it has the same open file.
    while _DESCRIPTORS:
        os.close(_DESCRIPTORS.pop())


os.register_at_fork(after_in_child=_close_in_child)


def host_name() -> str:
    """The name of this machine."""
    return socket.gethostname()


def _this_process(command: str) -> Holder:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Holder(host_name(), os.getpid(), now, command or shlex.join(sys.argv), secrets.token_hex(8))


def _read(path: Path) -> bytes:
    """The content; empty without a file. Opened anew each time, as only then a shared folder looks for changes."""
    try:
        return path.read_bytes()
    except paths.failures():
        if paths.exists(path):
            raise
        return b""


def _read_when_written(path: Path) -> bytes:
    """The content of a file that another process has locked, and writes in an instant."""
    for _ in range(20):
        content = _read(path)
        if _parsed(content) is not None:
            return content
        time.sleep(0.05)
    return b""


def _parsed(content: bytes) -> Holder | None:
    try:
        holder = Holder(**parsed(content))
    except (ValueError, TypeError):  # empty, or half written
        return None
    are_right = (type(value) is Holder.__annotations__[name] for name, value in holder._asdict().items())
    return holder if all(are_right) else None


def _token_of(content: bytes) -> str | None:
    holder = _parsed(content)
    return None if holder is None else holder.token


def _host_of(content: bytes) -> str | None:
    holder = _parsed(content)
    return None if holder is None else holder.host


def _sentence(folder: Path, content: bytes) -> str:
    """Who trains in the folder."""
    holder = _parsed(content)
    if holder is None:
        return f"workdir {folder} is in use by another process"
    command = visible(one_line(holder.command))
    shown = command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]}..."
    return visible(
        f"workdir {folder} is in use: process {holder.process_id} on {holder.host} trains in it since {holder.since} ({shown})"
    )


def _in_use(folder: Path, content: bytes) -> UserError:
    return UserError(
        f"{_sentence(folder, content)}; wait until it ends, or stop it, or choose another --workdir; nothing was changed"
    )


def _lost(folder: Path, content: bytes) -> str:
    return (
        f"{_sentence(folder, content)}, and this process must not: it stood still for more than {STILL_SECONDS:g} seconds and "
        "was taken for ended; it stops now, without saving"
    )


def _remove_if_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # the run has put something there
            folder.rmdir()
