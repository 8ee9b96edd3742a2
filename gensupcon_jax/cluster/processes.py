"""Several processes as one run: they join, share small values, and if one is lost, the others stop and report it.

In addition to jax's service, every process keeps one TCP connection to process 0, on the coordinator's port. For a lost process
jax alone reports only a broken connection, aborts from C++, or waits forever if a process raises or leaves early.
"""

import contextlib
import faulthandler
import json
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import jax

from gensupcon_jax import signals, text
from gensupcon_jax.cluster.agreement import MESSAGE, Agreement
from gensupcon_jax.cluster.detection import Member
from gensupcon_jax.cluster.meeting import meet
from gensupcon_jax.cluster.relay import Relay
from gensupcon_jax.errors import RunStopped, StoppedBetween, UserError

LOST = 75  # exit status (EX_TEMPFAIL): another process was lost; restarting all of them resumes the run
_BEAT_SECONDS = 2.0
_SILENCE_SECONDS = 40.0  # without a heartbeat: frozen, or its machine is lost
_EARLY_SECONDS = 30.0  # how long one process may have finished before the others
_NOTICE_SECONDS = 50.0  # after this time a warning names the missing processes
_TRY_SECONDS = 10.0  # per connection attempt, so that an address that drops packets does not use up all of the time
_TELLING_SECONDS = 2.0  # of a process that a signal ends
STOPPED, INTERRUPTED = "it was asked to stop", "it was interrupted"  # reasons
_BLAME_SECONDS = 5.0  # how long a broken collective waits until the lost process is known


class Alone:
    """The group of a single process."""

    process_id, num_processes = 0, 1

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order."""
        return [value]

    def finish(self) -> None:
        """Return at once."""

    def wait_if_ending(self) -> None:
        """Return at once."""


_group: Any = Alone()


def group() -> Any:
    """The processes of this run: the Group after `join`, else Alone; UserError if jax has more processes."""
    if jax.process_count() != _group.num_processes:
        raise UserError(
            f"jax has {jax.process_count()} processes, gensupcon_jax {_group.num_processes}; "
            "call gensupcon_jax.cluster.processes.join instead of jax.distributed.initialize"
        )
    return _group


def is_first() -> bool:
    """Whether this process writes logs and files."""
    return _group.process_id == 0


def share(value: Any) -> Any:
    """The JSON value of process 0 on every process; a collective call."""
    return group().gather(value if is_first() else None)[0]


def join(member: Member, *, timeout: float = 50.0) -> None:
    """Connect to the other processes and start jax's service; must precede any other use of jax.

    timeout: seconds to wait for all processes.  Raises UserError that names the coordinator, or the missing processes.
    """
    global _group
    host, port = _host_and_port(member.coordinator_address)
    if not 0 <= member.process_id < member.num_processes:
        raise UserError(
            f"--process_id is {member.process_id}; allowed: 0 to {member.num_processes - 1}, each process its own "
            f"(--num_processes is {member.num_processes})"
        )
    if member.num_processes == 1:
        return
    deadline = time.monotonic() + timeout
    connect = _meet_as_first if member.process_id == 0 else _meet_as_other
    connections: dict[int, _Connection] = {}
    with _telling_of_a_stop(connections):
        connect(connections, member, host, port, deadline, timeout)
        # The connected sockets stay open on the coordinator's port; from now on jax's service listens there.
        with signals.uninterrupted():  # the others hear of a signal from here or from the group
            _group = Group(member, connections)
    owner = signals.owner()
    if owner is not None:
        owner.tell_fn = tell_of_end
    _start_jax(member, host, port)


def _start_jax(member: Member, host: str, port: int) -> None:
    # jax would take over SIGTERM, and agree on a step by its own count, which orbax moves on as well.
    jax.config.update("jax_enable_preemption_service", False)
    with contextlib.ExitStack() as connecting:
        address = member.coordinator_address
        if member.process_id:
            relay = Relay(host, port)
            connecting.enter_context(signals.cleanup(relay.hide))
            connecting.callback(relay.hide)
            address = relay.address
        jax.distributed.initialize(
            address,
            member.num_processes,
            member.process_id,
            local_device_ids=member.local_device_ids,
            initialization_timeout=60,
            shutdown_timeout_seconds=60,
        )
    meet(lambda: _group.gather(None))


def is_waited_for() -> bool:
    """Whether other processes still depend on this one."""
    return isinstance(_group, Group) and not _group.is_done


def finish() -> None:
    """Wait until every process has reached the end of the run."""
    _group.finish()


def leave(status: int, message: str, *, reason: str, at_once: bool = False) -> NoReturn:
    """End this process with a message on standard error; the others receive the reason, one line, and stop.

    status: 0 after a stop request, 1 for a user error (a restart does not help), else LOST; the others exit with it too.
    at_once: without waiting for threads, such as those of a download.
    """
    signals.finished()
    if isinstance(_group, Group):
        _group.leave(status, message, {"reason": reason, "status": status})
    _say(message)
    if at_once:
        _exit(status)
    sys.exit(status)


def exit_finished() -> None:
    """End this process of several, whose files are closed, with status 0; return where it is the only one.

    At its exit jax waits for the other processes, and aborts after a minute where one of them has ended by a signal.
    """
    signals.finished()
    if isinstance(_group, Group):
        _group.wait_if_ending()
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:  # it goes to a disk that is full
            _say(f"error: standard output: {text.reason(error)}")
            _exit(1)
        _exit(0)


def tell_of_end() -> None:
    """Tell the others that a signal ends this process, where the main thread does not come to do it."""
    owner = signals.owner()
    _group.wait_if_ending()
    if is_waited_for() and owner is not None:
        stopped = owner.ending_status not in (1, None)
        _group.tell({"reason": STOPPED if stopped else INTERRUPTED, "status": owner.ending_status})


def leave_after_crash(error: BaseException) -> NoReturn:
    """End this process after an unexpected exception; if a lost process is its cause, that one is reported."""
    if isinstance(_group, Alone):
        raise error
    signals.finished()  # this end, and not that of a signal while it waits
    wait_for_blame()
    trace = "".join(traceback.format_exception(error)).rstrip()
    leave(LOST, trace, reason=f"it raised {type(error).__name__}: {text.reason(error)}")


def wait_for_blame() -> None:
    """Call it before an error is reported that a lost process may have caused: this process then ends here, and names it."""
    if isinstance(_group, Group):
        time.sleep(_BLAME_SECONDS)  # the reading threads end the process


def abort(message: str, *, reason: str) -> NoReturn:
    """End this hanging process at once, from any thread; the others also print the stacks of their threads."""
    signals.finished()
    if isinstance(_group, Group):
        _group.leave(LOST, message, {"reason": reason, "status": LOST, "is_hanging": True})
    _say(message)
    _exit(LOST)


def _say(message: str) -> None:
    before = "\n" if getattr(sys.stderr, "is_within_line", False) else ""
    # Where nobody reads it, the others are told all the same, and this process ends.
    with contextlib.suppress(OSError, ValueError):
        print(f"{before}{message}\n", file=sys.stderr, end="", flush=True)


class Group:
    """The connections of one process: to process 0, or from process 0 to all others, each read by a thread."""

    def __init__(self, member: Member, connections: dict[int, "_Connection"]):
        self.process_id, self.num_processes = member.process_id, member.num_processes
        self._connections = connections
        self._values = {peer: queue.SimpleQueue() for peer in connections}
        self._finished: dict[int, float] = {}
        self._is_done = threading.Event()
        self._exit_lock = threading.Lock()
        self._is_ending = False  # a thread has said why, and ends this process
        self.stop = Agreement(connections, self._send)
        for peer in connections:
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Whether every process has finished."""
        return self._is_done.is_set()

    def gather(self, value: Any) -> list[Any]:
        """The JSON values of all processes, in order; a collective call."""
        if self.process_id:
            self._send(0, {"value": value})
            return self._receive(0)
        values = [value, *(self._receive(peer) for peer in sorted(self._connections))]
        for peer in self._connections:
            self._send(peer, {"value": values})
        return values

    def finish(self) -> None:
        """Wait until every process has finished, then stop monitoring them."""
        self.wait_if_ending()
        if self.is_done:
            return
        self._broadcast({"finished": True})
        while not self.is_done:
            time.sleep(0.02)
            if not self.process_id and len(self._finished) == len(self._connections):
                self._is_done.set()
                self._broadcast({"all_finished": True})

    def wait_if_ending(self) -> None:
        """Return, but not where another thread has said why this process ends, and ends it."""
        while self._is_ending:
            time.sleep(1.0)

    def leave(self, status: int, message: str, why: dict) -> NoReturn:
        """Print, notify the others unless all have finished, and exit without waiting for them as jax does at exit."""
        with self._exit_lock:  # for good: one line is said, of this end
            is_waited_for = not self.is_done
            self._is_ending = True
            self._is_done.set()
            _say(message)
            if is_waited_for:
                self._broadcast({"left": why})
            _exit(status)

    def tell(self, why: dict) -> None:
        """Notify the others of the end of this process, which follows."""
        self._exit_lock.acquire()  # for good: one line is said, of this end
        self._is_done.set()
        telling = threading.Thread(target=self._broadcast, args=({"left": why},), daemon=True)
        telling.start()
        telling.join(_TELLING_SECONDS)  # one that does not read is not waited for

    def _send(self, peer: int, message: dict) -> None:
        try:
            self._connections[peer].send(message)
        except OSError:
            time.sleep(_BLAME_SECONDS)  # the reading thread reports what happened, and ends the process
            self._lost(peer, "its connection broke")

    def _receive(self, peer: int) -> Any:
        while True:  # with a timeout, as an endless wait would block signal handlers
            with contextlib.suppress(queue.Empty):
                return self._values[peer].get(timeout=1.0)

    def _read(self, peer: int) -> None:
        connection = self._connections[peer]
        while not self._is_done.is_set():
            try:
                message = connection.receive(_SILENCE_SECONDS)
            except TimeoutError:
                return self._lost(peer, f"it sent no heartbeat for {_SILENCE_SECONDS:.0f} seconds")
            except (OSError, ValueError):
                message = None
            if message is None:
                return self._lost(peer, "it was killed, or its machine was lost")
            if "value" in message:
                self._values[peer].put(message["value"])
            elif MESSAGE in message:
                self.stop.receive(peer, *message[MESSAGE])
            elif "finished" in message:
                self._finished[peer] = time.monotonic()
            elif "all_finished" in message:
                self._is_done.set()
            elif "left" in message:
                return self._lost(peer, **message["left"])
            elif "lost" in message:
                return self._lost(peer, **message["lost"])
        return None

    def _beat(self) -> None:
        while not self._is_done.wait(_BEAT_SECONDS):
            for peer, connection in self._connections.items():
                with contextlib.suppress(OSError):  # the reading thread notices it too
                    connection.send({})
                if time.monotonic() - self._finished.get(peer, time.monotonic()) > _EARLY_SECONDS:
                    self._lost(peer, "it exited before the others had finished")

    def _lost(
        self,
        peer: int,
        reason: str,
        *,
        status: int = LOST,
        is_hanging: bool = False,
        name: str = "",
        number: int | None = None,
    ) -> None:
        """Report the lost process, notify the others, end this process.

        name, number: of the lost one, where the peer only tells of it; that may be this one, which was frozen and goes on.
        """
        with self._exit_lock:
            if self._is_done.is_set():
                return
            self._is_ending = True
            self._is_done.set()
            name, number = name or self._connections[peer].name, peer if number is None else number
            if is_hanging:
                faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
            remedy = "; start all processes again; they resume from the newest checkpoint" if status == LOST else ""
            why = "the others took it for lost" if number == self.process_id else f"{name} has stopped"
            text = f"process {self.process_id} stops because {why}: {reason}{remedy}"
            _say(f"error: {text}" if status else text)
            # Also to the lost one: if it is process 0 and still alive, only it can notify the others, which would blame this one.
            lost = {"reason": reason, "status": status, "is_hanging": is_hanging, "name": name, "number": number}
            self._broadcast({"lost": lost})
            _exit(status)

    def _broadcast(self, message: dict) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.send(message)


def _exit(status: int) -> NoReturn:
    owner = signals.owner()
    if owner is not None:
        owner.clean_up()  # a lock and half a file are not left
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)  # not sys.exit, where jax would wait for the lost processes, and Python for threads


class _Connection:
    """Messages as lines of JSON over one socket."""

    def __init__(self, connected: socket.socket, name: str):
        self._socket, self._rest, self._lock, self.name = connected, b"", threading.Lock(), name
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: dict) -> None:
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> dict | None:
        """The next message, None if the connection is closed; TimeoutError after `timeout` seconds."""
        self._socket.settimeout(timeout)
        while b"\n" not in self._rest:
            read = self._socket.recv(1 << 16)
            if not read:
                return None
            self._rest += read
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line)

    def has_ended(self) -> bool:
        """Whether the other side has closed the connection; consumes no message."""
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.setblocking(True)


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(
            f"--coordinator_address is {address!r}; allowed: host:port of process 0, for example 10.0.0.1:1234"
        )
    return host.strip("[]"), int(port)


def _meet_as_first(
    connections: dict[int, _Connection], member: Member, host: str, port: int, deadline: float, timeout: float
) -> None:
    """Listen on the coordinator's port until every other process has connected; adds the connections."""
    notice = deadline - timeout + _NOTICE_SECONDS
    with _listening(member.coordinator_address, port) as listener:
        while missing := _not_there(connections, member.num_processes):
            if time.monotonic() > notice:
                _warn_while_waiting(
                    f"process 0 at {member.coordinator_address}: {_missing(missing, _NOTICE_SECONDS)}", timeout
                )
                notice = deadline
            listener.settimeout(max(min(notice, deadline) - time.monotonic(), 0.01))
            try:
                accepted, (peer_host, *_) = listener.accept()
                greeting = _Connection(accepted, "?").receive(5.0)
            except (TimeoutError, OSError, ValueError):
                if time.monotonic() < deadline:
                    continue  # not a process of this run
                for connection in connections.values():
                    connection.send({"refused": _missing(missing, timeout)})
                raise UserError(f"process 0 at {member.coordinator_address}: {_missing(missing, timeout)}") from None
            greeting = greeting if isinstance(greeting, dict) else {}
            who = greeting.get("process_id")
            connection = _Connection(accepted, f"process {who} ({peer_host.removeprefix('::ffff:')})")
            missing = _not_there(connections, member.num_processes)  # one may have ended while this waited
            if who in missing and greeting.get("num_processes") == member.num_processes:
                connections[who] = connection
            else:
                reason = f"process 0 waits for {sorted(missing)} of {member.num_processes} processes, found {greeting}"
                with contextlib.suppress(OSError):
                    connection.send(
                        {"refused": f"{reason}; give each process its own --process_id, and the same other flags"}
                    )
    for connection in connections.values():
        connection.send({"welcome": True})


def _not_there(connections: dict[int, _Connection], num_processes: int) -> set[int]:
    """The processes that have not connected, or that have ended since; such a one may be started again."""
    return {who for who in range(1, num_processes) if who not in connections or connections[who].has_ended()}


@contextlib.contextmanager
def _telling_of_a_stop(connections: dict[int, _Connection]) -> Iterator[None]:
    """A context in which a signal is told to those that have connected: they wait for process 0, or are a group already."""
    try:
        yield
    except (RunStopped, KeyboardInterrupt) as error:
        if isinstance(_group, Group):
            raise  # `leave` tells them
        owner, is_stopped = signals.owner(), isinstance(error, RunStopped)
        status = (owner.status or 0) if owner is not None and is_stopped else int(not is_stopped)
        why = {"reason": STOPPED if is_stopped else INTERRUPTED, "status": status}
        for connection in connections.values():
            with contextlib.suppress(OSError):
                connection.send({"stopped": STOPPED, "left": why})
        raise


def _warn_while_waiting(sentence: str, timeout: float) -> None:
    print(
        f"warning: {sentence}; retrying for up to {timeout:.0f} seconds (--join_timeout)",
        file=sys.stderr,
        flush=True,
    )


def _missing(missing: set[int], timeout: float) -> str:
    return (
        f"no connection from processes {', '.join(map(str, sorted(missing)))} within {timeout:.0f} seconds; "
        "start them with the same --coordinator_address and --num_processes"
    )


def _listening(address: str, port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on port {port} of --coordinator_address {address} ({error.strerror}); choose another port"
        ) from error


def _meet_as_other(
    connections: dict[int, _Connection], member: Member, host: str, port: int, deadline: float, timeout: float
) -> None:
    """Connect to process 0, with retries; it answers when all processes are connected. Adds the connection."""
    who = f"process {member.process_id}"
    notice = deadline - timeout + _NOTICE_SECONDS

    def unreachable(seconds, reason):
        return (
            f"{who} cannot reach process 0 at --coordinator_address {member.coordinator_address} within "
            f"{seconds:.0f} seconds ({reason}); is process 0 running there, and is the port open?"
        )

    while True:
        try:
            # Half of the remaining time: a name may have two addresses, and each is tried for that long.
            patience = min(_TRY_SECONDS, (deadline - time.monotonic()) / 2)
            connected = socket.create_connection((host, port), timeout=max(patience, 0.1))
            connection = _Connection(connected, f"process 0 ({member.coordinator_address})")
            connection.send({"process_id": member.process_id, "num_processes": member.num_processes})
            answer = connection.receive(max(deadline - time.monotonic(), 0.1) + 5.0)
            if answer is not None:
                break
            reason = "it closed the connection"
        except (OSError, ValueError) as error:
            reason = text.reason(error)
        if time.monotonic() > deadline:
            raise UserError(unreachable(timeout, reason))
        if time.monotonic() > notice:
            _warn_while_waiting(unreachable(_NOTICE_SECONDS, reason), timeout)
            notice = deadline
        time.sleep(0.2)
    if "stopped" in answer:
        raise StoppedBetween(f"{who} stops because process 0 ({member.coordinator_address}) has stopped: {STOPPED}")
    if "refused" in answer:
        raise UserError(f"{who} was rejected by process 0 at {member.coordinator_address}: {answer['refused']}")
    connections[0] = connection
