"""Kill a real training process at random instants, start it again, and compare with a run that nobody touched."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax

from gensupcon_jax.cluster import cpu_flags
from tests import QUICK_COMPILES, ROOT
from tests.running import SHORT, command, results_of, rows_of

# One process that has imported everything and forks one that trains for every start: a start takes seconds less.
_SERVER = """
import json, os, sys
from gensupcon_jax import main
from gensupcon_jax.run import train
from clu.metric_writers import SummaryWriter
import matplotlib.pyplot
print("ready", flush=True)
for line in sys.stdin:
    arguments, log = json.loads(line)
    if pid := os.fork():
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    status = 1
    try:
        sys.argv = arguments
        main.run()
        status = 0
    except SystemExit as done:
        status = done.code or 0
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
"""


class Starter:
    """Starts training processes one after the other, quickly."""

    def __init__(self, log, *, devices=1):
        self._log = str(log)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # the small programs are many
        environment["XLA_FLAGS"] = (  # with the flags that main sets: what is resumed must be their numbers
            f"{cpu_flags.flags_of(jax.__version_info__)} --xla_force_host_platform_device_count={devices} {QUICK_COMPILES}"
        )
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SERVER],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._server.stdout.readline() == "ready\n"

    def start(self, folder, changes):
        """The id of a process that trains."""
        arguments = ["main", *command(folder, changes)[3:]]
        self._server.stdin.write(json.dumps([arguments, self._log]) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def wait(self):
        """The status of the process that was started last; negative: the signal that ended it."""
        return int(self._server.stdout.readline())

    def close(self):
        self._server.stdin.close()
        self._server.wait(timeout=60)


def killed_run(starter, folder, changes, *, num_kills, rng, seconds):
    """Kill so many times, at random instants or inside a save, then let it end; returns where each kill fell."""
    fell = []
    while len(fell) < num_kills:
        before = _unfinished_saves(folder)  # what earlier kills left
        pid = starter.start(folder, changes)
        how = rng.choice(("anywhere", "save", "row"))
        _wait_for(how, folder, rng, seconds, before)
        during_save = bool(_unfinished_saves(folder) - before)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        status = starter.wait()
        if status == 0:
            return fell  # it was quicker
        assert status == -signal.SIGKILL, f"the run failed by itself, status {status}"
        fell.append("inside a save" if during_save else {"save": "after a save"}.get(how, how))
    starter.start(folder, changes)
    assert starter.wait() == 0
    return fell


def _wait_for(how, folder, rng, seconds, before):
    """Until the instant of a kill: any, the middle of a save, or a row of metrics."""
    end = time.monotonic() + (rng.uniform(0, seconds) if how == "anywhere" else 3 * seconds)
    rows = _num_rows(folder) + rng.randint(1, 8)
    while time.monotonic() < end:
        if how == "save" and _unfinished_saves(folder) - before:
            time.sleep(rng.choice((0, 0.02, 0.05)) * rng.random())
            return
        if how == "row" and _num_rows(folder) >= rows:
            return
        time.sleep(0.002)


def _unfinished_saves(folder):
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
    starter = Starter(folder / "log.txt", devices=devices)
    try:
        began = time.monotonic()
        starter.start(folder / "whole", changes)
        assert starter.wait() == 0, (folder / "log.txt").read_text()[-3000:]
        seconds = time.monotonic() - began
        expected = outcome(folder / "whole")
        while len(fell) < num_kills:
            run = folder / f"run{len(same)}"
            fell += killed_run(
                starter, run, changes, num_kills=min(kills_a_run, num_kills - len(fell)), rng=rng, seconds=seconds
            )
            same.append(outcome(run) == expected)
    finally:
        starter.close()
    return fell, same


# The rate differs in every step: a run that resumes at a wrong one ends differently.
CHANGES = {"steps": 60, "checkpoint.every_steps": 3, "evaluate.every_steps": 30, "optimizer.schedule": "cosine"} | {
    name: value
    for name, value in SHORT.items()
    if name not in ("steps", "checkpoint.every_epochs", "optimizer.schedule")
}
