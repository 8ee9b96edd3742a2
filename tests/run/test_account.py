"""The account of a start's wall time: every moment in one phase."""

import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from gensupcon_jax.run import account as accounts
from gensupcon_jax.run.account import Account, process_began


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


def test_a_process_began_when_the_system_says():
    program = (
        "from gensupcon_jax.run.account import process_began; import time; print(time.monotonic() - process_began())"
    )
    started = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 0 < age <= time.monotonic() - started + 0.02  # the system counts in hundredths of a second
    assert process_began() < time.monotonic()
