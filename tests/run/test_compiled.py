"""Compiled programs are kept with the run: a restart on a fresh machine compiles nothing again."""

import json
import os
import subprocess
import sys

import pytest

from tests import QUICK_COMPILES, ROOT

# Counts hits and misses of jax's cache, and requests a stop as soon as something new is saved.
PROGRAM = """
import json, os, signal, sys, threading, time
from pathlib import Path
import jax
from gensupcon_jax import main

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.rsplit("/")[-1]))
def saved():
    return {path.name for path in Path("run/checkpoints").glob("*") if path.name.isdecimal()}
def stop(before):
    while not saved() - before: time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop, args=[saved()], daemon=True).start()
try:
    main.run()
finally:
    print(json.dumps({name: events.count(name) for name in ("cache_hits", "cache_misses")}))
"""
SHORT = [
    "--config.steps=1000", "--config.batch_size=64", "--config.model.width=4", "--config.mix.block=8", "--config.log_steps=500",
    "--config.checkpoint.every_steps=2", "--config.evaluate.every_epochs=0", "--config.evaluate.linear_probe=False",
    "--stopped_status=85",
]  # fmt: skip


def start(folder, machine):
    """One start of the run, on a machine with its own home folder; returns the requests to the cache."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "XDG_CACHE"))
    }
    environment |= {
        "HOME": str(folder / machine),
        "XLA_FLAGS": QUICK_COMPILES,
        "PYTHONPATH": str(ROOT),
    }
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, "--config", str(ROOT / "configs/digits.py"), "--workdir", "run", *SHORT]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 85, done.stderr  # the requested status of a stopped run
    assert "saved step" in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_restart_finds_every_program_in_the_workdir(tmp_path):
    first = start(tmp_path, "one")
    assert first["cache_misses"] > 10
    assert any((tmp_path / "run/compiled").iterdir())
    kept = {path.name for path in (tmp_path / "run/compiled").iterdir()}
    again = start(tmp_path, "another")
    assert again["cache_hits"] > 10
    # Only the small programs that check restored arrays are new: the first start restored nothing.
    new = {path.name for path in (tmp_path / "run/compiled").iterdir()} - kept
    assert {name.split("-")[0] for name in new} <= {"jit__fingerprint"}
    assert again["cache_misses"] <= len(new)
    assert not (tmp_path / "another/.cache/gensupcon_jax").exists()
