"""The account of a start's wall time: every moment in one phase."""

import json
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from gensupcon_jax.disk import NotWritten
from gensupcon_jax.run import account as accounts
from gensupcon_jax.run.account import Account, process_began
from tests.running import wait_for


class Clock:
    """In place of the time module."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(accounts, "time", made)
    return made


def seconds_of(account):
    return {phase: seconds for phase, seconds in account.total()["seconds"].items() if seconds}


def test_each_moment_belongs_to_the_innermost_phase(clock):
    account = Account(began=97.0)  # 3 s of imports
    with account:
        clock.now += 1
        with account.phase("step"):
            clock.now += 4
            with account.phase("save"):
                clock.now += 2
            clock.now += 8
    assert seconds_of(account) == {"import": 3, "other": 1, "step": 12, "save": 2}
    assert account.total()["wall"] == 18


def test_a_phase_ends_with_its_error(clock):
    account = Account()
    with account, pytest.raises(KeyError), account.phase("data"):
        clock.now += 1
        raise KeyError
    clock.now += 2
    assert seconds_of(account) == {"data": 1, "other": 2}


def test_a_compilation_within_another_counts_once(clock):
    account = Account()
    with account, account.phase("step"):
        clock.now += 5
        account._heard("/jax/core/compile/jaxpr_trace_duration", 2.0)
        clock.now += 1
        account._heard("/jax/core/compile/jaxpr_trace_duration", 4.0)  # of the function that contains it
        account._heard("/jax/something/else", 4.0)
        clock.now += 3
        account._heard("/jax/core/compile/backend_compile_duration", 3.0)
    assert seconds_of(account) == {"compile": 7, "step": 2}


def test_a_clock_that_was_set_does_not_make_compilation_longer_than_the_run(clock):
    account = Account()
    with account, account.phase("data"):
        clock.now += 5
        account._heard("/jax/core/compile/backend_compile_duration", 3600.0)
        account._heard("/jax/core/compile/backend_compile_duration", -3600.0)
    assert seconds_of(account) == {"compile": 5}


def test_compilation_of_a_real_program_is_taken_out_of_its_phase():
    account = Account()
    with account, account.phase("data"):
        jax.jit(lambda x: jnp.sin(x) * 4321)(jnp.ones(7)).block_until_ready()
    total = account.total()
    assert 0 < total["seconds"]["compile"] <= total["wall"]
    assert sum(total["seconds"].values()) == pytest.approx(total["wall"])


def test_the_account_goes_on_after_a_kill(tmp_path, clock):
    killed = Account()
    killed.keep_in(tmp_path)
    killed.begin_training(0)
    with killed.phase("step"):
        clock.now += 8
        killed.reach(8)  # the last that is written
        clock.now += 1
    resumed = Account()
    with resumed:
        resumed.keep_in(tmp_path)
        resumed.begin_training(6)
        with resumed.phase("step"):
            clock.now += 4
            resumed.reach(10)
    total = resumed.total()
    assert (total["starts"], total["seconds"]["lost"], total["seconds"]["step"]) == (2, 2, 10)
    assert json.loads((tmp_path / "time.json").read_text())["starts"][1]["last_step"] == 10


def test_a_thread_writes_the_account_so_that_a_kill_in_a_long_phase_loses_little(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "_WRITE_SECONDS", 0.05)

    def written():
        (start,) = json.loads((tmp_path / "time.json").read_text())["starts"]
        return start

    with Account() as account:
        account.keep_in(tmp_path)
        with account.phase("compile"):  # nothing of the program runs while XLA compiles
            wait_for(lambda: written()["seconds"]["compile"] > 0.3)
            kept = written()
        account.begin_training(0)
        account.reach(7)
        wait_for(lambda: written()["last_step"] == 7)
    assert 0.3 < kept["seconds"]["compile"] <= written()["seconds"]["compile"]
    assert sum(written()["seconds"].values()) == pytest.approx(account.total()["wall"], abs=0.1)
    assert not account._writer.is_alive()


def test_an_account_that_cannot_be_written_ends_the_run_at_a_step_and_not_in_the_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "_WRITE_SECONDS", 0.05)
    folder = tmp_path / "run"
    folder.mkdir()
    account = Account()
    with pytest.raises(NotWritten, match=r"time.json cannot be written \(No such file or directory\)"), account:
        account.keep_in(folder)
        (folder / "time.json").unlink()
        wait_for(lambda: (folder / "time.json").exists())  # by the thread
        shutil.rmtree(folder)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            account.reach(3)


def test_a_process_began_when_the_system_says():
    program = (
        "from gensupcon_jax.run.account import process_began; import time; print(time.monotonic() - process_began())"
    )
    started = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 0 < age <= time.monotonic() - started + 0.02  # the system counts in hundredths of a second
    assert process_began() < time.monotonic()
