"""A member of a run that one of its processes spoils: what tests of the others' last words start."""

import importlib
import os
import resource
import signal
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from gensupcon_jax import main, paths, signals
from gensupcon_jax.cluster import processes
from gensupcon_jax.cluster.sharding import batch_sharding, make_mesh
from gensupcon_jax.cluster.watchdog import Limits, Watchdog
from gensupcon_jax.data import input_pipeline
from gensupcon_jax.errors import StoppedBetween, UserError
from gensupcon_jax.run import start
from gensupcon_jax.store import checkpoint
from gensupcon_jax.store.checkpoint import Checkpoints

JOINED = "joined\n"


def member(address: str, num: int, own: int, how: str, victim: int) -> None:
    """Joins as a run does, meets the others, and spoils it if it is the victim."""
    processes._SILENCE_SECONDS = processes._EARLY_SECONDS = 6.0  # instead of 40 and 30
    if how == "early" and own == 1:
        processes._EARLY_SECONDS = 600.0  # it must learn from process 2, via 0, what happened
    if how == "kill, heard of late":
        learn_late()
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


def learn_late() -> None:
    """The thread that names a lost process is two seconds behind those of jax."""
    name_lost = processes.Group._lost

    def name_lost_late(*arguments, **settings):
        time.sleep(2.0)
        name_lost(*arguments, **settings)

    processes.Group._lost = name_lost_late


def meet_until_frozen(is_victim: bool) -> None:
    """Collectives of the devices without end; a thread of the victim stops its process inside of one."""
    assert multihost_utils.process_allgather(np.ones(8)).size >= 16  # compiled
    if is_victim:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    while True:
        multihost_utils.process_allgather(np.ones(8))


def save(address: str, own: int, folder: str) -> None:
    """One of two processes, of which process 1 is killed in the middle of a save; the other one hears of it late."""
    learn_late()
    processes.join(processes.Member(address, 2, own))
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    halves = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    rows = jax.make_array_from_callback((1 << 17,), halves, lambda index: np.ones(1 << 17, np.float32)[index])
    assert checkpoint.fingerprints({"rows": rows})  # compiled, and the processes are connected
    if own == 1:
        checkpoint.fingerprints = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    try:
        Checkpoints(paths.as_path(folder), keep=3).save(1, {"params": {"rows": rows}}, {})
    except UserError as error:
        processes.leave(1, f"error: {error}", reason=str(error))


def save_on_a_full_disk(address: str, own: int, folder: str, victim: int) -> None:
    """One of two processes; there is no space for the part of one of them, as it writes in the background."""
    start.log_with(-1)
    processes.join(processes.Member(address, 2, own))
    rows = jax.make_array_from_callback(
        (1 << 17,), batch_sharding(make_mesh()), lambda index: np.ones(1 << 17, np.float32)[index]
    )
    checkpoints = Checkpoints(paths.as_path(folder), keep=3)
    checkpoints.save(1, {"params": {"rows": rows}}, {})
    checkpoints.close()
    if own == victim:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, resource.RLIM_INFINITY))  # bytes; its part is twice as long
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    checkpoints = Checkpoints(paths.as_path(folder), keep=3)
    try:
        checkpoints.save(2, {"params": {"rows": random_bits(rows)}}, {})
        checkpoints.close()
    except UserError as error:
        processes.leave(1, f"error: {error}", reason=str(error))


def random_bits(rows: jax.Array) -> jax.Array:
    """Of the same shape, which no compression makes shorter."""
    key = jax.random.key(0)
    return jax.jit(lambda: jax.random.normal(key, rows.shape), out_shardings=rows.sharding)()


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


def leave_together(address: str, own: int) -> None:
    """One of two processes; process 0 learns that process 1 has left, and would leave by itself before it has cleaned up."""
    signals.own_process()
    processes.join(processes.Member(address, 2, own))
    owner = signals.owner()
    assert owner is not None
    begun = threading.Event()
    owner.cleanups.append(lambda: begun.set() or time.sleep(0.5))
    if own == 0:
        begun.wait()
    processes.leave(0, f"process {own} leaves", reason=processes.STOPPED)


def end_in_two_ways(address: str, own: int) -> None:
    """One of two processes that have finished: one ends at a signal, the other one as a run that was stopped, or is done."""
    signals.own_process([])
    processes.join(processes.Member(address, 2, own))
    processes.finish()
    if own == 0:
        processes.leave(0, "nothing is lost", reason=processes.STOPPED, at_once=True)
    processes.exit_finished()


def stop_as_it_has_joined(address: str, own: int, victim: int) -> None:
    """One of two processes; a signal comes to one of them after the other one knows that both are there."""
    signals.own_process([])

    def stopped(*_):
        raise StoppedBetween("SIGTERM: nothing is lost")

    if own == victim:
        processes.Group.__init__ = stopped
    try:
        processes.join(processes.Member(address, 2, own))
        processes.group().gather(None)
    except StoppedBetween as error:
        processes.leave(0, str(error), reason=processes.STOPPED, at_once=True)


def crash_and_be_stopped(address: str, own: int) -> None:
    """One of two processes raises, and gets a signal while it looks for another one that may be the cause."""
    signals.own_process([])
    processes._BLAME_SECONDS = 2.0
    processes.join(processes.Member(address, 2, own))
    try:
        if own == 0:
            threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
            raise ValueError("the cause")
        processes.group().gather(1)
    except Exception as error:
        processes.leave_after_crash(error)


def train_with_a_bad_step(arguments: list[str], step: int | None) -> None:
    """What `gensupcon train` does, where the labels that this process reads for one step are not numbers; None: of no step."""
    batches_fn = input_pipeline.train_batches

    def batches(split, *, steps, **settings):
        for number, batch in zip(steps, batches_fn(split, steps=steps, **settings), strict=True):
            yield batch._replace(labels=_without_numbers(batch.labels)) if number + 1 == step else batch

    input_pipeline.train_batches = batches
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    main.main(arguments)


def _without_numbers(rows: jax.Array) -> jax.Array:
    """The same rows of the other process, none of this one."""
    own = [jax.device_put(np.full_like(shard.data, np.nan), shard.device) for shard in rows.addressable_shards]
    return jax.make_array_from_single_device_arrays(rows.shape, rows.sharding, own)


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
    if how.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raise":
        raise OSError("the disk of this machine is gone")
    if how == "mistake":
        processes.leave(1, "error: seed is -1", reason="seed is -1")
    if how == "early":
        processes.finish()
    if how == "hang":
        time.sleep(1000)
