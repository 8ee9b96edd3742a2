"""Two real processes in one workdir: the second is refused while the first trains, and takes over when that is killed."""

import errno
import json
import signal

import pytest

from gensupcon_jax.store import lock
from tests import QUICK_COMPILES, running
from tests.forking import Forked
from tests.running import ended, rows_of, wait_for_rows

ENVIRONMENT = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {QUICK_COMPILES}"}
FILES = ("config.json", "dataset.json")


def train_without_locks(arguments):
    """As a user would, on a file system without locks, and with quick beats."""

    def refuse(descriptor):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    lock._flock, lock.BEAT_SECONDS, lock.STILL_SECONDS, lock._SETTLE_SECONDS = refuse, 0.2, 4.0, 0.5
    running._train(arguments)


def start_without_locks(folder, changes):
    return Forked(train_without_locks, running.command(folder, changes)[2:], environment=ENVIRONMENT)


@pytest.mark.slow
@pytest.mark.parametrize("start", [running.start, start_without_locks])
def test_a_second_start_is_refused_and_a_killed_one_is_replaced(tmp_path, start):
    changes = {"steps": 100_000, "checkpoint.every_steps": 5}
    first = start(tmp_path, changes)
    wait_for_rows(tmp_path, 12)
    before = [(tmp_path / name).read_bytes() for name in FILES]
    ((status, printed, said),) = ended([start(tmp_path, {"steps": 100_000, "seed": 1})])
    assert (status, printed) == (1, "")
    *waited, last = said.splitlines()
    assert len(waited) == (0 if start is running.start else 1), said
    who = f"workdir {tmp_path} is in use: process {first._process.pid} on {lock.host_name()} trains in it since 20"
    assert all(line.startswith(who) for line in waited)
    assert last.startswith(f"error: {who}")
    assert f"--workdir {tmp_path} " in last
    assert last.endswith("; wait until it ends, or stop it, or choose another --workdir; nothing was changed")
    assert [(tmp_path / name).read_bytes() for name in FILES] == before
    wait_for_rows(tmp_path, len(rows_of(tmp_path)) + 5)  # the first goes on
    first.kill()
    ended([first])
    num = len(rows_of(tmp_path))
    third = start(tmp_path, changes)
    wait_for_rows(tmp_path, num + 20)
    third.send_signal(signal.SIGTERM)
    ((status, _, said),) = ended([third])
    assert status == 0, said
    assert ("waiting up to" in said) == (start is start_without_locks)
    assert "resumes at step " in said
    steps = [row["step"] for row in rows_of(tmp_path)]
    assert steps == list(range(1, len(steps) + 1))
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.slow
def test_several_processes_hold_one_lock_by_the_first(tmp_path):
    changes = {"steps": 100_000, "checkpoint.every_steps": 5}
    first = running.start_several(tmp_path, changes, devices=1)
    wait_for_rows(tmp_path, 5)
    assert json.loads((tmp_path / "run.lock").read_text())["process_id"] == first[0]._process.pid
    for status, _, said in ended(running.start_several(tmp_path, changes, devices=1)):
        assert status == 1, said
        assert f"workdir {tmp_path} is in use: process {first[0]._process.pid} on {lock.host_name()}" in said
        assert "Traceback" not in said
    wait_for_rows(tmp_path, len(rows_of(tmp_path)) + 5)  # the first go on
    first[0].send_signal(signal.SIGTERM)
    assert [status for status, _, _ in ended(first)] == [0, 0]
    assert not (tmp_path / "run.lock").exists()
