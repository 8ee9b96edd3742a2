"""Processes that are threads here: whoever asks, all stop after the same step, which none of them has passed."""

import os
import random
import signal
import threading
import time

import jax
import orbax.checkpoint as ocp
import pytest

from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.agreement import MESSAGE, Agreement
from tests.forking import Forked
from tests.running import ended, free_port


def group_of(num):
    """Agreements whose messages arrive at once, in the thread of the sender."""
    members = []

    def send_fn_of(own):
        return lambda peer, message: members[peer].receive(own, *message[MESSAGE])

    members += [Agreement(range(1, num) if own == 0 else [0], send_fn_of(own)) for own in range(num)]
    return members


def stops_of(members, seconds_of_step, ask_fn):
    """The steps after which the members stop."""
    found = {}

    def train(own):
        step = 0
        while True:
            time.sleep(seconds_of_step(own))
            step += 1
            if members[own].reached():
                found[own] = step
                return

    threads = [threading.Thread(target=train, args=(own,), daemon=True) for own in range(len(members))]
    for thread in threads:
        thread.start()
    ask_fn()
    for thread in threads:
        thread.join(30)
    return [found.get(own) for own in range(len(members))]


@pytest.mark.parametrize("asks", [[0], [2], [0, 1, 2, 3]])
def test_all_stop_after_the_same_step(asks):
    members, rng = group_of(4), random.Random(0)

    def ask():
        time.sleep(0.1)
        for own in asks:
            members[own].ask("SIGINT")

    (step,) = set(stops_of(members, lambda own: rng.uniform(0, 0.004 * (own + 1)), ask))
    assert step is not None and step > 1


def test_before_the_first_step_all_stop_after_it():
    members = group_of(2)
    members[1].ask("SIGTERM")
    time.sleep(0.2)
    assert [member.reached() for member in members] == ["SIGTERM", "SIGTERM"]


def test_nobody_stops_where_nobody_asks():
    members = group_of(2)
    assert [member.reached() for _ in range(5) for member in members] == [None] * 10


def meet_and_get_a_signal(address, own):
    """One of two processes that have joined; prints who has learned of a signal to process 0: our handler, jax, orbax."""
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    processes.join(processes.Member(address, 2, own))
    jax.block_until_ready(jax.numpy.ones(2))
    if own == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    processes.group().gather(own)
    time.sleep(1.5)  # jax's service tells the other process within a second
    steps = [step for step in range(1, 10) if ocp.multihost.reached_preemption(step)]
    print(received, jax.config.jax_enable_preemption_service, steps, flush=True)
    processes.finish()


def test_neither_jax_nor_orbax_has_a_part_in_it():
    """Orbax asks jax's service whether to save at this step, by a count that it shares with whoever asks."""
    address = f"127.0.0.1:{free_port()}"
    both = [Forked(meet_and_get_a_signal, address, own, environment={"XLA_FLAGS": ""}) for own in (0, 1)]
    first, second = ended(both, timeout=60)
    assert (first[0], second[0]) == (0, 0), (first, second)
    printed = [each[1].splitlines()[-1] for each in (first, second)]  # after a line of the connection
    assert printed == [f"[{int(signal.SIGTERM)}] False []", "[] False []"]
