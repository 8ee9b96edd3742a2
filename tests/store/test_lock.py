"""One run per workdir: who holds it is told, and what a process leaves behind hinders nobody."""

import errno
import json
import os
import signal
import threading
import time

import pytest

from gensupcon_jax import paths, signals
from gensupcon_jax.errors import StoppedBetween, UserError
from gensupcon_jax.store import lock
from tests import object_storage
from tests.forking import Forked
from tests.running import wait_for


def refused(folder):
    """The one line of a second start."""
    with pytest.raises(UserError) as error, lock.held(folder, "gensupcon train second"):
        raise AssertionError
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def quick(monkeypatch):
    """The same with beats of a twentieth of a second, that stand still after a second."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "STILL_SECONDS", 1.0)
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.2)


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that has none."""

    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_flock", refuse)


@pytest.fixture
def locks_of_each_host(monkeypatch):
    """A shared folder whose locks hold on one machine only: all of this process are had."""
    monkeypatch.setattr(lock, "_flock", lambda descriptor: None)


@pytest.fixture
def never_waits(monkeypatch):
    """Waiting is an error."""

    def refuse(seconds):
        raise AssertionError

    monkeypatch.setattr(lock.time, "sleep", refuse)


def on(host, monkeypatch):
    monkeypatch.setattr(lock, "host_name", lambda: host)


def left_behind(folder, host, beat=7):
    """The file of a process that was killed."""
    holder = lock.Holder(host, 4242, "2031-01-02 03:04:05 UTC", "gensupcon train first", "its token", beat)
    (folder / "run.lock").write_bytes(holder.content())


def test_a_second_start_names_the_first_and_changes_nothing(tmp_path):
    with lock.held(tmp_path, "gensupcon train first\n"):
        before = contents(tmp_path)
        holder = json.loads(before["run.lock"])
        assert refused(tmp_path) == (
            f"workdir {tmp_path} is in use: process {os.getpid()} on {lock.host_name()} trains in it since {holder['since']} "
            "(gensupcon train first); wait until it ends, or stop it, or choose another --workdir; nothing was changed"
        )
        assert contents(tmp_path) == before
    assert contents(tmp_path) == {}


def test_a_folder_that_is_made_goes_when_nothing_was_written(tmp_path):
    with lock.held(tmp_path / "runs" / "mine"):
        assert (tmp_path / "runs" / "mine" / "run.lock").exists()
    assert contents(tmp_path) == {}
    with lock.held(tmp_path / "runs" / "mine"):
        (tmp_path / "runs" / "mine" / "config.json").write_text("{}")
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["config.json"]


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file" / "run") == (
        f"workdir {tmp_path}/file/run cannot be written (Not a directory); set --workdir to a folder that you may write"
    )


@pytest.mark.parametrize("kind", ["with_locks", "without_locks"])
def test_a_start_that_fails_holds_nothing(tmp_path, quick, monkeypatch, request, kind):
    if kind == "without_locks":
        request.getfixturevalue(kind)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(lock.os, "pwrite", full)
        patched.setattr(lock.paths, "write_whole", full)
        assert "cannot be written (No space left on device; " in refused(tmp_path)

    def stopped(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # While the beats of another are awaited, or where they are not, when one's own begin.
        owner, name = (lock.time, "sleep") if kind == "without_locks" else (lock.threading.Thread, "start")
        patched.setattr(owner, name, stopped)
        with pytest.raises(KeyboardInterrupt), lock.held(tmp_path):
            raise AssertionError
    monkeypatch.setattr(lock, "_watch", full)  # nothing was left that one would wait for
    with lock.held(tmp_path):
        assert (tmp_path / "run.lock").exists()
    assert contents(tmp_path) == {}


OF_OTHER_TYPES = b'{"host": ["a"], "process_id": {}, "since": null, "command": 5, "token": 1}'


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x00\xff", b"[]", b'{"host": 1}', b"[" * 100_000, b"x" * 1_000_000, OF_OTHER_TYPES]
)
def test_what_a_killed_process_of_this_machine_left_hinders_nobody(tmp_path, quick, content):
    (tmp_path / "run.lock").write_bytes(content)
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["process_id"] == os.getpid()
    assert contents(tmp_path) == {}


def test_what_a_killed_process_of_this_machine_left_is_no_reason_to_wait(tmp_path, never_waits):
    left_behind(tmp_path, lock.host_name())
    with lock.held(tmp_path):
        assert f"process {os.getpid()} on {lock.host_name()} trains in it" in refused(tmp_path)


def test_a_process_that_has_the_number_of_one_that_was_killed_is_not_taken_for_it(tmp_path, never_waits):
    holder = lock.Holder(
        lock.host_name(), os.getppid(), "2999-01-01 00:00:00 UTC", "gensupcon train first", "its token"
    )
    os.kill(holder.process_id, 0)  # is alive, but does not hold the lock
    (tmp_path / "run.lock").write_bytes(holder.content())
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["process_id"] == os.getpid()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_is_one_line_and_stays(tmp_path, kind):
    path, precious = tmp_path / "run.lock", tmp_path / "precious"
    precious.write_text("mine")
    {"folder": path.mkdir, "link": lambda: path.symlink_to(precious), "pipe": lambda: os.mkfifo(path)}[kind]()
    assert refused(tmp_path) == (
        f"{path} is not a file of a run; remove it: a run writes there that it trains in {tmp_path}"
    )
    assert (precious.read_text(), len(list(tmp_path.iterdir()))) == ("mine", 2)


def test_a_file_of_another_user_is_one_line(tmp_path, monkeypatch):
    left_behind(tmp_path, lock.host_name())
    before, opened = contents(tmp_path), os.open

    def denied(path, *rest):  # as the tests may run as root, who may open everything
        if os.fspath(path) == str(tmp_path / "run.lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *rest)

    monkeypatch.setattr(lock.os, "open", denied)
    assert refused(tmp_path) == (
        f"{tmp_path}/run.lock cannot be opened (Permission denied); where no run of another user trains in {tmp_path}, remove it"
    )
    monkeypatch.undo()
    assert contents(tmp_path) == before


def test_what_another_machine_left_is_taken_when_it_stands_still(tmp_path, quick, capsys):
    left_behind(tmp_path, "another")
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["host"] == lock.host_name()
    assert capsys.readouterr().err == (
        f"workdir {tmp_path} is in use: process 4242 on another trains in it since 2031-01-02 03:04:05 UTC (gensupcon train "
        "first); waiting up to 1 seconds to see whether it still does\n"
    )


@pytest.mark.parametrize("kind", ["without_locks", "locks_of_each_host"])
def test_a_holder_on_another_machine_is_known_by_its_beats(tmp_path, quick, monkeypatch, request, kind):
    request.getfixturevalue(kind)
    on("first", monkeypatch)
    with lock.held(tmp_path, "gensupcon train first"):
        on("second", monkeypatch)
        for _ in range(2):
            said = refused(tmp_path)
            assert f"process {os.getpid()} on first trains in it since " in said
            assert "(gensupcon train first); wait until it ends" in said
        assert json.loads((tmp_path / "run.lock").read_text())["host"] == "first"
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["host"] == "second"


def test_without_locks_what_this_machine_left_is_taken_when_it_stands_still(tmp_path, quick, without_locks, capsys):
    left_behind(tmp_path, lock.host_name())
    with lock.held(tmp_path, "gensupcon train first"):
        assert "waiting up to 1 seconds" in capsys.readouterr().err
        assert "is in use" in refused(tmp_path)
    assert contents(tmp_path) == {}


def test_of_two_that_start_together_without_locks_one_is_the_holder(tmp_path, quick, without_locks, monkeypatch):
    def another_writes(seconds):
        left_behind(tmp_path, "another", beat=0)

    monkeypatch.setattr(lock.time, "sleep", another_writes)
    assert "process 4242 on another trains in it" in refused(tmp_path)
    assert json.loads((tmp_path / "run.lock").read_text())["host"] == "another"


def test_object_storage_has_beats_in_place_of_locks(tmp_path, quick, monkeypatch):
    storage = object_storage.install(tmp_path, monkeypatch)
    folder = paths.as_path("gs://bucket/run")
    with lock.held(folder, "gensupcon train first"):
        assert "workdir gs://bucket/run is in use: process" in refused(folder)
    assert not (folder / "run.lock").exists()
    left_behind(storage.root / "bucket" / "run", "another")
    with lock.held(folder):
        assert json.loads((folder / "run.lock").read_text())["host"] == lock.host_name()


@pytest.mark.parametrize("since", ["1970-01-01 00:00:00 UTC", "2999-01-01 00:00:00 UTC"])
def test_the_clock_of_another_machine_does_not_matter(tmp_path, quick, since):
    holder = lock.Holder("another", 1, since, "", "its token")
    path = tmp_path / "run.lock"
    path.write_bytes(holder.content())
    os.utime(path, (4e9, 4e9))
    with lock.held(tmp_path):  # stands still, whatever its times say
        ours = json.loads(path.read_text())
        assert ours["process_id"] == os.getpid()
        assert ours["token"] != "its token"
    assert not path.exists()


def test_a_process_that_was_taken_for_ended_stops(tmp_path, quick, without_locks, monkeypatch):
    aborted = []
    monkeypatch.setattr(lock.processes, "abort", lambda message, reason: aborted.append(message))
    with lock.held(tmp_path):
        left_behind(tmp_path, "another")
        wait_for(lambda: aborted)
    assert aborted == [
        f"error: workdir {tmp_path} is in use: process 4242 on another trains in it since 2031-01-02 03:04:05 UTC (gensupcon "
        "train first), and this process must not: it stood still for more than 1 seconds and was taken for ended; it stops "
        "now, without saving"
    ]
    assert json.loads((tmp_path / "run.lock").read_text())["host"] == "another"  # it is not removed


def test_a_file_that_is_removed_is_made_again(tmp_path, quick):
    with lock.held(tmp_path):
        (tmp_path / "run.lock").unlink()
        wait_for((tmp_path / "run.lock").exists)
        wait_for(lambda: (tmp_path / "run.lock").read_bytes())
        assert "is in use" in refused(tmp_path)
    assert contents(tmp_path) == {}


def in_another_thread(work_fn):
    thread = threading.Thread(target=work_fn, daemon=True)
    thread.start()
    return thread


def test_an_end_from_another_thread_waits_for_the_lock_that_the_main_thread_gives_back(tmp_path, monkeypatch):
    """Two processes got SIGTERM: the main thread of the first was giving the lock back as the word of the second one came."""
    process, remove, enders = signals.Process(), lock._KernelLock.remove, []
    monkeypatch.setattr(signals, "_process", process)

    def remove_slowly(file):
        if not enders:
            enders.append(in_another_thread(process.clean_up))
            time.sleep(0.2)
            assert enders[0].is_alive()
        remove(file)

    monkeypatch.setattr(lock._KernelLock, "remove", remove_slowly)
    with lock.held(tmp_path):
        pass
    enders[0].join()
    assert (contents(tmp_path), process.cleanups) == ({}, [])


def test_an_end_from_another_thread_waits_for_the_lock_that_the_main_thread_is_taking(tmp_path, monkeypatch):
    process, locked, enders = signals.Process(), lock._locked, []
    monkeypatch.setattr(signals, "_process", process)

    def locked_slowly(path):
        enders.append(in_another_thread(process.clean_up))
        time.sleep(0.2)
        return locked(path)

    monkeypatch.setattr(lock, "_locked", locked_slowly)
    with lock.held(tmp_path):
        enders[0].join()
        assert contents(tmp_path) == {}


def test_a_signal_does_not_break_off_the_end_of_the_lock(tmp_path, monkeypatch):
    process, remove = signals.Process(), lock._KernelLock.remove
    monkeypatch.setattr(signals, "_process", process)
    monkeypatch.setattr(lock._KernelLock, "remove", lambda file: process.handle(signal.SIGTERM, None) or remove(file))
    with lock.held(tmp_path):
        pass
    assert contents(tmp_path) == {}
    with pytest.raises(StoppedBetween, match="SIGTERM"):
        process.handle(signal.SIGTERM, None)  # as soon as it is over


def test_an_end_while_it_waits_for_others_that_start_leaves_nothing(tmp_path, quick, without_locks, monkeypatch):
    process, waited = signals.Process(), []

    def end_meanwhile(seconds):
        waited.append(seconds)
        process.clean_up()
        raise StoppedBetween

    monkeypatch.setattr(signals, "_process", process)
    monkeypatch.setattr(time, "sleep", end_meanwhile)
    with pytest.raises(StoppedBetween), lock.held(tmp_path):
        raise AssertionError
    assert (waited, contents(tmp_path)) == ([0.2], {})


def test_of_several_processes_the_first_holds_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.processes, "is_first", lambda: False)
    with lock.held(tmp_path), lock.held(tmp_path):
        assert contents(tmp_path) == {}


def hold_with_a_child(folder):
    """Holds the lock, and has a child that outlives it."""
    with lock.held(folder, "gensupcon train killed"):
        child = os.fork()
        if child == 0:
            (folder / "child").write_text(str(os.getpid()))
            time.sleep(600)
        time.sleep(600)


def test_a_killed_process_frees_the_folder_at_once_also_where_its_child_lives_on(tmp_path, never_waits):
    process = Forked(hold_with_a_child, tmp_path, environment={})
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        os.sched_yield()
    child = int((tmp_path / "child").read_text())
    try:
        assert "gensupcon train killed" in refused(tmp_path)
        process.kill()
        process.communicate()
        os.kill(child, 0)  # is alive
        with lock.held(tmp_path):
            assert json.loads((tmp_path / "run.lock").read_text())["process_id"] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
