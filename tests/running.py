"""Real training processes on the digits, small and with shared compiled programs: for tests that kill, stop and join them."""

import contextlib
import json
import os
import re
import socket
import sys
import time

import jax

from gensupcon_jax import __main__, main
from tests import QUICK_COMPILES, ROOT
from tests.forking import Forked

# The rate does not depend on the number of steps: runs of any length share one compiled step.
SHORT = {
    "steps": 12,
    "log_steps": 1,
    "batch_size": 32,
    "model.width": 4,
    "model.embedding_dim": 8,
    "mix.block": 8,
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 4,
    "evaluate.probe_penalties": "(0.1,)",
    "evaluate.every_epochs": 0,
    "checkpoint.every_epochs": 1000,
}
_VARYING = (
    "train/images_per_second",
    "train/seconds",
    "train/input_wait",
    "train/stall_seconds",
    "train/process_memory",
    "train/slowest_process",
    "train/slowest_process_seconds",
)


def fields(changes=None):
    """SHORT, changed, as words of a command line."""
    return [f"--config.{name}={value}" for name, value in (SHORT | (changes or {})).items()]


def command(folder, changes=None, flags=(), *, recipe="configs/digits.py"):
    """What a user would type; changes are config fields beside those of SHORT."""
    return [
        sys.executable, "-m", "gensupcon_jax.main", "--config", recipe, "--workdir", str(folder), *fields(changes), *flags,
    ]  # fmt: skip


def start(folder, changes=None, flags=(), *, devices=1, environment=None, recipe="configs/digits.py"):
    """A process that trains."""
    surrounding = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILES}"}
    arguments = command(folder, changes, flags, recipe=recipe)[2:]
    return Forked(_train, arguments, environment=surrounding | (environment or {}))


def _train(arguments):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # the small programs are many
    os.chdir(ROOT)
    sys.argv = arguments
    main.run()


def start_several(folder, changes=None, flags=(), *, num=2, devices=2):
    """`num` processes with so many devices each, as one run."""
    address = f"127.0.0.1:{free_port()}"
    several = [f"--coordinator_address={address}", f"--num_processes={num}"]
    return [
        start(folder, changes, [*flags, *several, f"--process_id={number}"], devices=devices) for number in range(num)
    ]


def start_as_slurm_tasks(folder, changes=None, *, num=2, devices=2):
    """The same, told by the variables that srun sets for its tasks, on two nodes that are both this machine."""
    job = free_port(range(61440, 65536)) - 61440  # jax takes the coordinator's port from the job's number
    shared = {"SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(num)}
    return [
        start(
            folder, changes, ["--distributed", "--join_timeout=300"], devices=devices,
            environment=shared | {"SLURM_PROCID": str(number), "SLURM_LOCALID": "0"},
        )
        for number in range(num)
    ]  # fmt: skip


def told(capfd, *arguments):
    """(status, stdout, stderr) of `gensupcon` with these arguments, in this process; without bars, which a slow machine shows."""
    status = 0
    capfd.readouterr()  # what came before is not of this command
    try:
        __main__.main([str(argument) for argument in arguments])
    except SystemExit as done:
        status = done.code or 0
    printed, said = capfd.readouterr()
    said = re.sub(r"\r[^\n]*\r", "", said)
    # What Python does with a text at exit: it is said on standard error, with status 1.
    return (status, printed, said) if isinstance(status, int) else (1, printed, f"{said}{status}\n")


def ended(processes, timeout=600):
    """[(status, stdout, stderr)] of processes, all waited for; a process that hangs is killed and fails the test."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def wait_for(is_so):
    """Until the function says so."""
    end = time.monotonic() + 600
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for_rows(folder, num):
    """Until a run has written so many rows of metrics."""
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(rows_of(folder)) >= num)


def flip_a_bit(folder, position=0.5):
    """Of the largest file, the arrays: what orbax alone restores as if nothing was wrong."""
    path = max((path for path in folder.rglob("*") if path.parent.name == "d"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 1
    path.write_bytes(content)


def free_port(allowed=(0,)):
    """A port that nobody listens on now; 0 is any."""
    for port in allowed:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise OSError(f"no port of {allowed} is free")


def rows_of(folder):
    """The rows of metrics.jsonl without the measured times."""
    return without_times([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])


def without_times(rows):
    """Rows without what differs from run to run: a busy machine is advised on its input, too."""
    found = []
    for row in rows:
        row = {name: value for name, value in row.items() if name not in _VARYING}
        advice = [said for said in row.pop("advice", []) if not said.startswith("input-bound")]
        found.append(row | ({"advice": advice} if advice else {}))
    return found


def results_of(folder):
    """results.json without the measured times."""
    results = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in results.items() if name != "time" and not name.endswith("seconds")}
