"""A signal ends a run between two steps, saved, with status 0; the same command goes on to the same end."""

import json
import os
import signal
import subprocess
import sys

import pytest

from gensupcon_jax.cluster.stopping import stop_requests
from gensupcon_jax.errors import RunStopped
from tests import ROOT

SHORT = [
    "--config.steps=120", "--config.log_steps=1", "--config.batch_size=32", "--config.model.width=4", "--config.mix.block=8",
    "--config.evaluate.probe_penalties=(0.1,)", "--config.evaluate.every_epochs=0", "--config.checkpoint.every_epochs=1000",
]  # fmt: skip


def start(folder):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    command = [sys.executable, "-m", "gensupcon_jax.main", "--config", "configs/digits.py", "--workdir", folder, *SHORT]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number):
    process = start(tmp_path)
    for line in process.stderr:
        if line.startswith("step "):  # it trains
            break
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith(f"{number.name}: saved step ")
    step = int(last.split("saved step ")[1].split()[0])
    assert 1 <= step < 120
    assert (tmp_path / "checkpoints" / str(step)).is_dir()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == step

    process = start(tmp_path)
    printed, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert f"resumes at step {step} of 120 steps" in said
    assert "report:" in printed
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 121))  # no gap, none twice


def test_the_second_sigint_stops_at_once():
    with stop_requests() as request, request.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert request.is_due()
        assert request.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nothing_is_unsaved_ends_the_run_at_once(number):
    with pytest.raises(RunStopped, match="nothing is lost; the same command goes on"), stop_requests():
        os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
