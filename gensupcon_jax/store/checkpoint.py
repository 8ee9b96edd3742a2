"""Checkpoints of a run: written by orbax, verified by a fingerprint of the bits when restored."""

import contextlib
import functools
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from gensupcon_jax import disk, paths, signals
from gensupcon_jax.cluster import processes
from gensupcon_jax.errors import UserError
from gensupcon_jax.paths import Path, absolute
from gensupcon_jax.store import event_loops
from gensupcon_jax.text import reason

DAMAGED = "checkpoints_damaged"  # folder beside the checkpoints, for damaged ones
_STATE, _RECORD = "state", "record"
_FETCHED_SIZE = 2**16  # of arrays whose fingerprint the host computes: each shape would take 50 ms to compile


class Restored(NamedTuple):
    """A restored checkpoint: NumPy arrays with the requested structure, and the record saved with them."""

    step: int
    fields: dict[str, Any]
    record: dict[str, Any]


class Damaged(Exception):  # noqa: N818  (an object that is damaged)
    """A checkpoint that cannot be read or differs from what was saved; the message is the reason in one line."""


class Checkpoints:
    """The checkpoints of one run, written in the background: the newest `keep`, and the best by validation.

    With several processes, every method is a collective call.
    """

    def __init__(self, folder: Path, *, keep: int):
        self._folder, self._keep, self._best_step = folder, keep, None

    def restore_newest(self, abstract_fields: dict) -> Restored | None:
        """The newest intact checkpoint, placed with the shardings of `abstract_fields`; None before the first save.

        A damaged one is moved aside and the previous one is used, with a warning that names both, on all processes alike.
        Raises UserError if all are damaged (then nothing is moved) or if an intact one does not match these shapes.
        """
        restored, damaged = _newest_good(self._folder, abstract_fields, agree=processes.group().gather)
        if restored is None:
            return None
        if processes.is_first():
            for step in damaged:
                _move_aside(self._folder, step)
        self._best_step = (restored.record.get("best") or {}).get("step")
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_fields)
        placed = jax.tree.map(_place, restored.fields, shardings)
        processes.share(None)  # a barrier until process 0 has moved the damaged ones
        return restored._replace(fields=placed)

    def save(self, step: int, fields: dict, record: dict) -> float:
        """Start to save a state and its record; returns the seconds for which training was blocked.

        record: of JSON; its "best", {"step": ...} or None, is the checkpoint that is kept however old it is.
        An existing step is not changed.  Raises UserError if this save or the previous one cannot be written.
        """
        started = time.monotonic()
        self._best_step = (record.get("best") or {}).get("step")
        with self._writing(step), signals.unbroken():
            if step not in self._manager.all_steps():
                record = _sealed(record | {"step": step, "arrays": _described(fields), "bits": fingerprints(fields)})
                items = {_STATE: ocp.args.StandardSave(fields), _RECORD: ocp.args.JsonSave(record)}
                self._manager.save(step, args=ocp.args.Composite(**items))
        return time.monotonic() - started

    def replace_record(self, step: int, record: dict) -> None:
        """Replace the record of a saved step, whose arrays stay; `record`: the one that was restored, changed."""
        self._best_step = (record.get("best") or {}).get("step")
        if processes.is_first():
            paths.write_whole(_record_of(self._folder, step), json.dumps(_sealed(record)).encode())
        processes.share(None)  # a barrier until it is written

    def latest_step(self) -> int | None:
        """The newest saved step, None before the first."""
        return max(saved_steps(self._folder), default=None)

    def close(self) -> None:
        """Wait until everything is on disk; UserError if a background save failed."""
        with self._writing(None), signals.unbroken():
            self._manager.wait_until_finished()
            self._manager.close()

    def settle(self) -> None:
        """Wait for a pending save when the run ends early; UserError if it failed.

        The next run in this process (of a notebook) would remove it as unfinished. With several processes this would wait
        for the others, which may hang: there the pending save is abandoned.
        """
        if "_manager" in vars(self) and processes.group().num_processes == 1:
            with self._writing(None), signals.unbroken():
                self._manager.wait_until_finished()

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        event_loops.wait_for_all_tasks()
        # Made at the first save, after damaged checkpoints have been moved, as it removes the rest of interrupted saves.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(barrier_sync_fn=_barrier_fn()),
        )
        return ocp.CheckpointManager(absolute(self._folder), options=options)

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """orbax's preservation policy: the newest and the best are kept."""
        kept = {info.step for info in checkpoints[-self._keep :]} | {self._best_step}
        return [info.step in kept for info in checkpoints]

    @contextlib.contextmanager
    def _writing(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # raised by orbax's background thread: OSError, ValueError, XlaRuntimeError
            if not disk.is_of_disk(error):  # such as that of a collective or a barrier without one of the processes
                processes.wait_for_blame()
            kept = None
            with contextlib.suppress(
                OSError
            ):  # of a disk that does not answer, for which the first error is the reason
                kept = self.latest_step()
            what = "a checkpoint" if step is None else f"the checkpoint of step {step}, or the previous one,"
            why = disk.reason_at(self._folder, error) if disk.number_of(error) else reason_of(error)
            raise UserError(
                f"{what} cannot be written to {self._folder} ({why}); "
                + (f"the newest good checkpoint is of step {kept}" if kept is not None else "no checkpoint is there")
                + f"; {disk.remedy(error, 'remove the cause and start the same command again')}"
            ) from error


def _barrier_fn() -> Callable[..., None]:
    """Orbax's barrier of the processes, but not where a save in the background has failed in this one.

    There orbax waits for the others before it raises the error, and the others wait for this one, for 20 minutes.
    """
    wait_fn, saver = ocp.multihost.get_barrier_sync_fn(), threading.current_thread()

    def wait(*, key: str, timeout_ms: int) -> None:
        error = sys.exc_info()[1]  # it is on its way through orbax's cleanup, from which this is called
        if error is not None and threading.current_thread() is not saver:
            raise error
        wait_fn(key=key, timeout_ms=timeout_ms)

    return wait


def restore_step(folder: Path, step: int, abstract_fields: dict) -> Restored:
    """These fields of one checkpoint, placed with the shardings of `abstract_fields`; a collective call.

    Raises Damaged, on all processes alike, if one of them cannot read it.
    """
    restored, problem = None, ""
    try:
        restored = _read(folder, step, tuple(abstract_fields))
    except Damaged as damage:
        problem = str(damage)
    problems = [each for each in processes.group().gather(problem) if each]
    if restored is None or problems:
        raise Damaged(problems[0])
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_fields)
    fields = {name: restored.fields.get(name, {}) for name in abstract_fields}  # an empty one is not saved
    return restored._replace(fields=jax.tree.map(_place, fields, shardings))


def saved_steps(folder: Path) -> list[int]:
    """The steps of all finished checkpoints, intact or damaged, in ascending order."""
    if not paths.is_folder(folder):
        return []
    if paths.is_remote(folder):
        return sorted(ocp.utils.checkpoint_steps(folder))  # which asks for the mark of a complete one
    # orbax renames a complete one to its step, but takes a folder whose disk does not answer for none.
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and paths.is_folder(path))


def read_newest(folder: Path, names: Iterable[str]) -> Restored | None:
    """These fields of the newest intact checkpoint as NumPy trees, for any number of devices; None if there is none.

    A damaged one is not moved, and the previous one is used, with a warning.  Raises UserError if all are damaged.
    """
    return _newest_good(folder, tuple(names), agree=lambda value: [value])[0]


def read_step(folder: Path, names: Iterable[str], step: int | str) -> Restored | None:
    """These fields of the checkpoint of one step, or of the "best" one; None if the folder has no checkpoint.

    Raises UserError that lists the saved steps if this one is not among them, and if its checkpoint is damaged.
    """
    steps = saved_steps(folder)
    if not steps:
        return None
    best = _best_step(folder, steps)
    chosen = best if step == "best" else step
    listed = ", ".join(f"{saved} (best)" if saved == best else str(saved) for saved in steps)
    if chosen is None:
        raise UserError(
            f"step is 'best', but {folder.parent} records no best step: it was not evaluated while it trained "
            f"(evaluate.every_epochs); allowed: last, or one of the saved steps {listed}"
        )
    if chosen not in steps:
        raise UserError(
            f"step is {step!r}, and {folder.parent} has no checkpoint of step {chosen}; allowed: last, best, or one of the saved "
            f"steps {listed}"
        )
    try:
        return _read(folder, int(chosen), tuple(names))
    except Damaged as damage:
        raise UserError(
            f"the checkpoint of step {chosen} in {folder} is damaged ({damage}); allowed: another of the saved steps {listed}"
        ) from damage


def _best_step(folder: Path, steps: Sequence[int]) -> int | None:
    """The best step according to the newest record that can be read."""
    for step in reversed(steps):
        with contextlib.suppress(Damaged):
            return (_read_record(_record_of(folder, step)).get("best") or {}).get("step")
    return None


def _record_of(folder: Path, step: int) -> Path:
    return folder / str(step) / _RECORD / "metadata"


def fingerprints(tree: Any) -> dict[str, str]:
    """Name of each array -> 16 hexadecimal digits of its bits, independent of its sharding."""
    sums = {name: _fingerprint(leaf) for name, leaf in _named(tree).items()}
    return {name: "".join(f"{int(part):08x}" for part in pair) for name, pair in jax.device_get(sums).items()}


def reason_of(error: Exception) -> str:
    """An exception in one line."""
    return reason(error).split(" [tensorstore_spec=")[0]  # drops a specification of many lines


def _newest_good(folder: Path, wanted: Any, *, agree: Any) -> tuple[Restored | None, list[int]]:
    """The newest checkpoint that all processes can read, and the steps of newer, damaged ones."""
    steps = agree(saved_steps(folder))[0]
    reasons: dict[int, str] = {}
    for step in reversed(steps):
        restored, reason = None, ""
        try:
            restored = _read(folder, step, wanted)
        except Damaged as damage:
            reason = str(damage)
        found = [other for other in agree(reason) if other]
        if not found:
            for bad, why in reasons.items():
                _warn(
                    f"the checkpoint of step {bad} in {folder} is damaged ({why}); that of step {step} is used instead"
                )
            return restored, list(reasons)
        if step not in agree(saved_steps(folder))[0]:  # a run that trains has removed it meanwhile
            return _newest_good(folder, wanted, agree=agree)
        reasons[step] = found[0]
    if reasons:
        listed = "; ".join(f"step {step}: {reason}" for step, reason in reasons.items())
        raise UserError(
            f"no checkpoint in {folder} can be used ({listed}); nothing was changed. Restore the folder from a copy, or "
            "choose another workdir to start from scratch"
        )
    return None, []


def _read(folder: Path, step: int, wanted: Any) -> Restored:
    """One checkpoint, verified; `wanted`: an abstract tree, or the names of top-level fields."""
    record = _read_record(_record_of(folder, step))
    event_loops.wait_for_all_tasks()
    # As a single process: a failure of one must not leave the others waiting in orbax's barriers.
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    path: Any = absolute(folder / str(step) / _STATE)
    try:
        if isinstance(wanted, tuple):
            saved = handler.metadata(path).tree
            wanted = jax.tree.map(lambda _: 0, {name: saved[name] for name in wanted if saved.get(name)})
        else:
            _check_fit(record["arrays"], _described(wanted), folder / str(step))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        fields = handler.restore(path, args=arguments)
        found_bits = fingerprints(fields)  # an array that orbax did not find is still a shape, without bits
    except UserError:
        raise
    except Exception as error:  # of many kinds, from orbax and tensorstore
        disk.refuse_lost(error, path)
        raise Damaged(reason_of(error)) from error
    tops = wanted.keys()
    saved_bits = {name: bits for name, bits in record["bits"].items() if name.split("/")[0] in tops}
    changed = sorted(name for name in saved_bits | found_bits if saved_bits.get(name) != found_bits.get(name))
    if changed:
        raise Damaged(f"the bits of {changed[0]} differ from those that were saved ({len(changed)} arrays in total)")
    return Restored(step, fields, record)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        seal = record.pop("seal")
    except Exception as error:
        disk.refuse_lost(error, path)
        raise Damaged(f"its record cannot be read: {reason_of(error)}") from error
    if seal != _seal(record):
        raise Damaged("its record differs from the one that was saved")
    return record


def _sealed(record: dict) -> dict:
    record = json.loads(json.dumps(record))  # as it will be read, with lists for tuples
    return record | {"seal": _seal(record)}


def _seal(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _check_fit(saved: dict[str, str], wanted: dict[str, str], where: Path) -> None:
    differing = [name for name in sorted(saved | wanted) if saved.get(name) != wanted.get(name)]
    if differing:
        listed = "; ".join(
            f"{name} is {saved.get(name, 'missing')}, expected {wanted.get(name, 'nothing')}" for name in differing[:5]
        )
        raise UserError(
            f"the checkpoint {where} does not fit this network and optimizer: {listed} ({len(differing)} arrays in total); "
            "it was written by another version of this program or of its libraries: use that version, or choose another workdir"
        )


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _described(tree: Any) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _named(tree).items()}


def _place(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _fingerprint(array: Any) -> Any:
    """Two sums, modulo 2^32, of the bits of every element hashed with its position: exact in any order of summation."""
    if array.size <= _FETCHED_SIZE and (not isinstance(array, jax.Array) or array.is_fully_replicated):
        bits = np.asarray(array).ravel().view(f"u{array.dtype.itemsize}").astype(np.uint32)
        return _sums(bits, np.arange(bits.size, dtype=np.uint32))
    return _fingerprint_on_devices(array)


@jax.jit
def _fingerprint_on_devices(array: jax.Array) -> jax.Array:
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(array, width).astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.stack(_sums(bits, position))


def _sums(bits: Any, position: Any) -> tuple[Any, Any]:
    """The mixing is the finalizer of MurmurHash3."""
    mixed = bits ^ (position * np.uint32(0x9E3779B1))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    mixed = mixed ^ (mixed >> 16)
    return mixed.sum(dtype=np.uint32), (mixed * (mixed | 1)).sum(dtype=np.uint32)


def _move_aside(folder: Path, step: int) -> None:
    """Move the checkpoint aside, so that its step can be saved again; never overwrite another one."""
    aside = folder.parent / DAMAGED
    with disk.writing(aside):
        aside.mkdir(exist_ok=True)
        name = str(step)
        while paths.exists(aside / name):
            name += "_again"
        (folder / str(step)).rename(aside / name)


def _warn(text: str) -> None:
    if processes.is_first():
        print(f"warning: {text}", file=sys.stderr, flush=True)
