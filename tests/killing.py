"""Kill a real training process at random instants, start it again, and compare with a run that nobody touched."""

import json
import os
import random
import signal
import time

import jax

from gensupcon_jax.cluster import cpu_flags
from tests import QUICK_COMPILES
from tests.running import SHORT, ended, results_of, rows_of, start


def killed_run(start_fn, folder, *, num_kills, rng, seconds):
    """Kill so many times, at random instants or inside a save, then let it end; returns where each kill fell."""
    fell = []
    while len(fell) < num_kills:
        before = unfinished_saves(folder)  # what earlier kills left
        process = start_fn(folder)
        how = rng.choice(INSTANTS)
        wait_until(how, folder, rng, seconds, before)
        during_save = bool(unfinished_saves(folder) - before)
        process.kill()
        ((status, _, said),) = ended([process])
        if status == 0:
            return fell  # it was quicker
        assert status == -signal.SIGKILL, f"the run failed by itself, status {status}: {said}"
        fell.append("inside a save" if during_save else {"save": "after a save"}.get(how, how))
    finish(start_fn(folder))
    return fell


def finish(process):
    """Wait for a run that ends well."""
    ((status, _, said),) = ended([process])
    assert status == 0, said


INSTANTS = ("anywhere", "save", "row")


def wait_until(how, folder, rng, seconds, before, *, is_over=lambda: False):
    """Until an instant of INSTANTS: any, the middle of a save, or a row of metrics; at most until `is_over`.

    seconds: that a whole run takes.  before: `unfinished_saves` before the process started.
    """
    end = time.monotonic() + (rng.uniform(0, seconds) if how == "anywhere" else 3 * seconds)
    rows = _num_rows(folder) + rng.randint(1, 8)
    while time.monotonic() < end and not is_over():
        if how == "save" and unfinished_saves(folder) - before:
            time.sleep(rng.choice((0, 0.02, 0.05)) * rng.random())
            return
        if how == "row" and _num_rows(folder) >= rows:
            return
        time.sleep(0.002)


def unfinished_saves(folder):
    """Name and inode, both of the folder's own entry: the save itself may be renamed at any time."""
    path = folder / "checkpoints"
    entries = os.scandir(path) if path.is_dir() else ()
    return {(entry.name, entry.inode()) for entry in entries if entry.name.endswith(".orbax-checkpoint-tmp")}


def _num_rows(folder):
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def outcome(folder):
    """Everything of a finished run that must not depend on kills: rows, results, the last checkpoint's bits."""
    newest = max(
        (path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
    )
    return {
        "rows": rows_of(folder),
        "results": results_of(folder),
        "bits": json.loads((newest / "record" / "metadata").read_text())["bits"],
    }


def compare(folder, *, num_kills, seed, changes, devices=1, kills_a_run=10):
    """(where the kills fell, whether every run ended as the one that nobody touched); several runs share the kills."""
    rng, fell, same = random.Random(seed), [], []
    # With the flags that main sets: what is resumed must be their numbers.
    flags = (
        f"{cpu_flags.flags_of(jax.__version_info__)} --xla_force_host_platform_device_count={devices} {QUICK_COMPILES}"
    )

    def start_fn(folder):
        return start(folder, changes, environment={"XLA_FLAGS": flags})

    began = time.monotonic()
    finish(start_fn(folder / "whole"))
    seconds = time.monotonic() - began
    expected = outcome(folder / "whole")
    while len(fell) < num_kills:
        run = folder / f"run{len(same)}"
        left = min(kills_a_run, num_kills - len(fell))
        fell += killed_run(start_fn, run, num_kills=left, rng=rng, seconds=seconds)
        same.append(outcome(run) == expected)
    return fell, same


# The rate differs in every step: a run that resumes at a wrong one ends differently.
CHANGES = {"steps": 60, "checkpoint.every_steps": 3, "evaluate.every_steps": 30, "optimizer.schedule": "cosine"} | {
    name: value
    for name, value in SHORT.items()
    if name not in ("steps", "checkpoint.every_epochs", "optimizer.schedule")
}
