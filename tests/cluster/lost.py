"""A member of a run that one of its processes spoils: what tests of the others' last words start."""

import importlib
import os
import signal
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from gensupcon_jax import main, paths
from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.watchdog import Limits, Watchdog
from gensupcon_jax.store.checkpoint import Checkpoints

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
    watchdog = Watchdog(Limits(step=5.0 if how == "hang" else 0))
    watchdog.watch("step", "step 7")
    try:
        if how == "freeze":
            meet_until_frozen(own == victim)
        if own == victim:
            read_the_next_batch(how)
        processes.group().gather(1)  # waits for the other
        processes.finish()
    except Exception as error:
        processes.leave_after_crash(error)


def meet_until_frozen(is_victim: bool) -> None:
    """Collectives of the devices without end; a thread of the victim stops its process inside of one."""
    assert multihost_utils.process_allgather(np.ones(8)).size >= 16  # compiled
    if is_victim:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    while True:
        multihost_utils.process_allgather(np.ones(8))


def restore(address: str, own: int, folder: str) -> None:
    """One of two processes, each with its own view of the checkpoints; prints the step and a number of what it restores."""
    processes.join(processes.Member(address, 2, own))
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    wanted = {"params": {"kernel": jax.ShapeDtypeStruct((4096,), np.float32, sharding=everywhere)}}
    found = Checkpoints(paths.as_path(folder), keep=3).restore_newest(wanted)
    assert found is not None
    print(found.step, float(found.fields["params"]["kernel"][7]))
    processes.finish()


def train_and_hang(arguments: list[str], where: str) -> None:
    """What `gensupcon train` does, where a function of the package, "module:name", never returns."""
    module, name = where.split(":")
    setattr(importlib.import_module(module), name, hang_for_ever)  # where there is no such function, nothing changes
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    main.main(arguments)


def hang_for_ever(*_: object, **__: object) -> None:
    """In place of what should return."""
    while True:
        time.sleep(1000)


def read_the_next_batch(how: str) -> None:
    """What happens to the victim."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise OSError("the disk of this machine is gone")
    if how == "mistake":
        processes.leave(1, "error: seed is -1", reason="seed is -1")
    if how == "early":
        processes.finish()
    if how == "hang":
        time.sleep(1000)
