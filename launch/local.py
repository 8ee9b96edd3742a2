#!/usr/bin/env python3
"""Train on this machine, in one process or several; they end together, and start again when one fails.

One process with every GPU of the machine, started again up to three times:

    python launch/local.py --gpus all --max-restarts 3 -- --config configs/cifar10.py --workdir runs/cifar10

One process for each of four GPUs:

    python launch/local.py --gpus 0,1,2,3 --processes 4 -- --config configs/cifar10.py --workdir runs/cifar10

Two processes with two CPU devices each:

    python launch/local.py --processes 2 --devices 2 -- --config configs/digits.py --workdir runs/digits

What follows `--` goes to `python -m gensupcon_jax.main`. Ctrl-C and SIGTERM reach every process: the run is saved and ends.
"""

import argparse
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import NamedTuple

GRACE_SECONDS = 15  # for the others to print their own error after one has failed
RESTART_DELAY_SECONDS = 5
POLL_SECONDS = 0.05
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Command(NamedTuple):
    """One process: its additional environment variables, and its arguments."""

    environment: dict[str, str]
    arguments: list[str]

    def text(self) -> str:
        """The line that does the same in a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.arguments)])


def main(argv: list[str]) -> int:
    """Run what the command line says; the exit status is that of the first process that failed, 0 when none did."""
    options, rest = parse(argv)
    if options.dry_run:
        print("\n".join(command.text() for command in commands(options, rest)))
        return 0
    received = receive_signals()
    for restarts_left in range(options.max_restarts, -1, -1):
        status = run(commands(options, rest), received)
        if status == 0 or received or not restarts_left:
            return status
        say(f"status {status}; starts again in {RESTART_DELAY_SECONDS} s, {restarts_left - 1} restarts left after this")
        wait_until = time.monotonic() + RESTART_DELAY_SECONDS
        while time.monotonic() < wait_until and not received:
            time.sleep(POLL_SECONDS)
        if received:
            return status
    raise AssertionError("the last round returns")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the arguments for gensupcon_jax.main; a mistake is one line and status 2."""
    own, rest = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    parser = argparse.ArgumentParser(
        prog="launch/local.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=1, help="how many processes; default 1")
    parser.add_argument("--devices", type=int, help="CPU devices of each process; no accelerator is used")
    parser.add_argument("--gpus", help="all, or their numbers: 0,1,2,3; shared out evenly over the processes")
    parser.add_argument(
        "--max-restarts", type=int, default=0, help="how often to start again after a failure; default 0"
    )
    parser.add_argument("--port", type=int, help="port on which the processes meet; default: a free one")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    options = parser.parse_args(own)
    gpus = [] if options.gpus in (None, "all") else options.gpus.split(",")
    mistakes = {
        "what to train is missing; put it after --, for example: -- --config configs/digits.py": not rest,
        f"--processes is {options.processes}; allowed: a whole number from 1": options.processes < 1,
        f"--devices is {options.devices}; allowed: a whole number from 1": options.devices is not None
        and options.devices < 1,
        f"--max-restarts is {options.max_restarts}; allowed: a whole number from 0": options.max_restarts < 0,
        "--devices are of the CPU; leave out --devices or --gpus": options.devices and options.gpus,
        f"--gpus is {options.gpus!r}; allowed: all, or numbers like 0,1,2,3": not all(gpu.isdecimal() for gpu in gpus),
        "several processes need --devices 1 (or more, of the CPU) or --gpus 0,1 (their numbers)": options.processes > 1
        and not (options.devices or gpus),
        f"{len(gpus)} GPUs cannot be shared out evenly over --processes {options.processes}": gpus
        and len(gpus) % max(options.processes, 1),
    }
    for mistake, made in mistakes.items():
        if made:
            parser.exit(2, f"error: {mistake}\n")
    return options, rest


def commands(options: argparse.Namespace, rest: list[str]) -> list[Command]:
    """One command for each process; those of several processes name the port where they meet."""
    address = f"127.0.0.1:{options.port or free_port()}"
    listed = []
    for process_id in range(options.processes):
        arguments = [sys.executable, "-m", "gensupcon_jax.main"]
        if options.processes > 1:
            arguments += [
                f"--coordinator_address={address}",
                f"--num_processes={options.processes}",
                f"--process_id={process_id}",
            ]
        listed.append(Command(environment(options, process_id), arguments + rest))
    return listed


def environment(options: argparse.Namespace, process_id: int) -> dict[str, str]:
    """Which devices a process sees."""
    if options.devices:
        return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(options.devices)}
    if options.gpus in (None, "all"):
        return {}
    seen = {"CUDA_VISIBLE_DEVICES": options.gpus}
    if options.processes > 1:
        share = len(options.gpus.split(",")) // options.processes
        own = range(process_id * share, (process_id + 1) * share)
        # All stay visible, so that NCCL may copy from one to another; JAX takes its own, as it does under SLURM.
        seen["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, own))
    return seen


def receive_signals() -> list[int]:
    """From now on, the signals that ask for the end; the loss of the terminal is SIGTERM.

    What the parent has this process ignore stays so: SIGHUP below nohup, SIGINT of `command &` in a script.
    """
    received = []
    meanings = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
    for number, meant in meanings.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame, meant=meant: received.append(meant))
    return received


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(listed: list[Command], received: list[int]) -> int:
    """All processes until the last has ended; the status of the first that failed, else 0.

    Every signal in `received` is forwarded to all of them. After one has failed the others have `GRACE_SECONDS`.
    """
    running = [start(index, command, several=len(listed) > 1) for index, command in enumerate(listed)]
    processes = [process for process, _ in running]
    forwarded, status, kill_at = 0, 0, None
    while any(process.poll() is None for process in processes):
        time.sleep(POLL_SECONDS)
        for number in received[forwarded:]:
            forwarded += 1
            # The first lets them save, the second ends them at once; whoever asks again means it.
            send(processes, number if forwarded < 3 else signal.SIGKILL)
        if kill_at is None:
            index, status = first_failure(processes)
            if status:
                kill_at = time.monotonic() + GRACE_SECONDS
                say(f"process {index} of {len(listed)} ended with status {status}")
        elif time.monotonic() > kill_at:
            # SIGTERM would ask them to save, which needs the one that is gone.
            send(processes, signal.SIGKILL)
    for _, printer in running:
        if printer is not None:
            printer.join()
    return status or first_failure(processes)[1]


def first_failure(processes: list[subprocess.Popen]) -> tuple[int, int]:
    """Number and status of a process that failed, (0, 0) when none did; the status is 128 + the signal that ended it."""
    for index, process in enumerate(processes):
        if process.poll():
            return index, process.returncode if process.returncode > 0 else 128 - process.returncode
    return 0, 0


def start(index: int, command: Command, *, several: bool) -> tuple[subprocess.Popen, threading.Thread | None]:
    """The process, in a session of its own: a Ctrl-C in the terminal comes to us alone, and is passed on once.

    The output of all but the first goes to stderr, with the process's number before each line.
    """
    say(command.text())
    prefixed = several and index > 0
    process = subprocess.Popen(
        command.arguments,
        env={**os.environ, **command.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if prefixed else None,
        stderr=subprocess.STDOUT if prefixed else None,
        start_new_session=True,
        preexec_fn=end_with_the_launcher if LIBC else None,
    )
    if not prefixed:
        return process, None
    printer = threading.Thread(target=print_lines, args=(process.stdout, f"[{index}] "), daemon=True)
    printer.start()
    return process, printer


def end_with_the_launcher() -> None:
    """In the new process: SIGTERM when the launcher is killed, so that nothing trains on unseen."""
    LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def print_lines(stream, prefix: str) -> None:
    """Each line of a process's output as one write, so that those of several do not mix."""
    for line in stream:
        sys.stderr.buffer.write(prefix.encode() + line)
        sys.stderr.buffer.flush()


def send(processes: list[subprocess.Popen], number: int) -> None:
    """A signal to every process that still runs."""
    for process in processes:
        process.send_signal(number)  # does nothing to one that has ended


def say(text: str) -> None:
    """A line of ours among those of the processes."""
    print(f"+ {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
