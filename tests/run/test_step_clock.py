"""Times of steps, and of waiting for images, while steps run in the background."""

import threading
import time

import pytest

from gensupcon_jax.cluster import processes
from gensupcon_jax.run.account import Account
from gensupcon_jax.run.step_clock import StepClock


class Step:
    """Outputs of a step that ends when the test says so."""

    def __init__(self):
        self.ends = threading.Event()

    def block_until_ready(self):
        self.ends.wait(10)
        return self


def ended(clock, num):
    while clock._num_ended < num:
        time.sleep(0.001)


def test_waiting_while_a_step_runs_is_time_of_the_step():
    account, step = Account(), Step()
    with account, StepClock(account) as clock, account.phase("step"):
        batches = clock.waiting(slow_batches(0.05, 2))
        next(batches)
        only_waiting = account.total()["seconds"]["input_wait"]
        assert only_waiting >= 0.05  # no step was there
        clock.sent(step, time.monotonic(), is_timed=False)
        next(batches)  # the step still runs
        assert account.total()["seconds"]["input_wait"] == pytest.approx(only_waiting, abs=0.02)  # not 0.05 more
        step.ends.set()
    assert account.total()["seconds"]["step"] >= 0.05


def test_waiting_after_the_last_step_is_input_wait():
    account, step = Account(), Step()
    step.ends.set()
    with account, StepClock(account) as clock, account.phase("step"):
        batches = clock.waiting(slow_batches(0.05, 1))
        clock.sent(step, time.monotonic(), is_timed=False)
        ended(clock, 1)
        next(batches)
        assert account.total()["seconds"]["input_wait"] >= 0.05
        assert list(batches) == []


def slow_batches(seconds, num):
    for number in range(num):
        time.sleep(seconds)
        yield number


def test_a_time_is_from_end_to_end_without_pauses_and_without_the_first_step():
    account = Account()
    with account, StepClock(account) as clock:
        for number in range(3):
            step = Step()
            clock.sent(step, time.monotonic(), is_timed=number > 0)
            step.ends.set()
            ended(clock, number + 1)
            with clock.paused("evaluation"):
                time.sleep(0.3)
    total = account.total()
    assert sum(account._bins.values()) == 2
    assert total["step_seconds"]["max"] < 0.3 <= total["seconds"]["evaluation"]


def test_a_step_that_fails_ends_the_thread_and_not_the_loop():
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("the loop raises it")

    account = Account()
    with StepClock(account) as clock:
        clock.sent(Failed(), time.monotonic(), is_timed=True)
    assert not clock._thread.is_alive()
    assert account.total()["step_seconds"] is None


def test_the_process_whose_devices_had_no_step_is_the_slowest(monkeypatch):
    class Two:
        num_processes = 2

        def gather(self, value):
            return [value, 0.75]

    account = Account()
    with StepClock(account) as clock:
        assert clock.slowest_process() is None  # alone
        monkeypatch.setattr(processes, "group", Two)
        clock.idle_seconds = 0.25
        assert clock.slowest_process() == (1, 0.75)
        clock.idle_seconds = 1.25
        assert clock.slowest_process() == (0, 1.0)
    total = account.total()
    assert (total["idle_seconds"], total["slowest_process"]) == ([1.25, 1.5], 1)
