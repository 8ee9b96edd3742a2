"""A member of a run that one of its processes spoils: what tests of the others' last words start."""

import os
import signal
import time

from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.watchdog import Watchdog

JOINED = "joined\n"


def member(address: str, num: int, own: int, how: str, victim: int) -> None:
    """Joins as a run does, meets the others, and spoils it if it is the victim."""
    processes._SILENCE_SECONDS = processes._EARLY_SECONDS = 6.0  # instead of 40 and 30
    if how == "early" and own == 1:
        processes._EARLY_SECONDS = 600.0  # it must learn from process 2, via 0, what happened
    processes.join(processes.Member(address, num, own))
    print(JOINED, end="", flush=True)  # before the first gather: all have joined when the run is disturbed
    assert processes.group().gather({"own": own}) == [{"own": number} for number in range(num)]
    assert processes.share(own) == 0
    watchdog = Watchdog(5.0 if how == "hang" else 0)
    watchdog.watch("step 7")
    try:
        if own == victim:
            read_the_next_batch(how)
        processes.group().gather(1)  # waits for the other
        processes.finish()
    except Exception as error:
        processes.leave_after_crash(error)


def read_the_next_batch(how: str) -> None:
    """What happens to the victim."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "raise":
        raise OSError("the disk of this machine is gone")
    if how == "mistake":
        processes.leave(1, "error: seed is -1", reason="seed is -1")
    if how == "early":
        processes.finish()
    if how == "hang":
        time.sleep(1000)
