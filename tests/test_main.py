"""The command line, as a user types it: every mistake is one line and status 1, without a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments, cwd=ROOT, devices=1):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "gensupcon_jax.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.loss.temprature=1"], "loss.temprature is no field of the config; did you mean loss.temperature?"),
        (["--config.mix.kind=cutmx"], "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix"),
        (["--config.loss.temperature=0"], "loss.temperature is 0.0; allowed: a number above 0"),
        (["--config.loss.temperature=warm"], "loss.temperature is 'warm'; allowed: a number above 0"),
        (["--config.batch_size=255"], "batch_size is 255, not divisible by 2 devices; set batch_size to 254 or 256, "
                                      "or use another number of devices"),
        (["--workdir", "/proc/nowhere/run"], "workdir /proc/nowhere/run cannot be written (No such file or directory); "
                                             "set --workdir to a folder that you may write"),
        (["--wrkdir", "x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir ?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_1(tmp_path, arguments, message):
    defaults = ["--workdir", tmp_path / "run"] if "--workdir" not in arguments else []
    done = run("--config", "configs/digits.py", *defaults, *arguments, devices=2)
    assert done.stderr == f"error: {message}\n"
    assert done.stdout == ""
    assert done.returncode == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [([], "missing"), (["--config", "configs/nothing.py"], "configs/nothing.py, which is no file")],
)
def test_a_missing_config_is_said(arguments, found):
    done = run(*arguments)
    assert done.stderr == f"error: --config is {found}; for example --config configs/digits.py\n"
    assert done.returncode == 1


SHORT = [
    "--config.steps=4", "--config.log_steps=2", "--config.batch_size=64", "--config.model.width=4",
    "--config.mix.block=8", "--config.evaluate.probe_penalties=(0.1,)", "--config.evaluate.every_epochs=0",
]  # fmt: skip


def test_the_digits_run_from_the_command_line_and_a_second_time(tmp_path):
    command = ["--config", ROOT / "configs/digits.py", *SHORT]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "step 4/4" in done.stderr  # plain lines: the output is no terminal
    assert "\r" not in done.stderr
    results = json.loads((tmp_path / "runs/digits/results.json").read_text())  # the default workdir
    lines = done.stdout.splitlines()
    assert lines[0] == "test accuracy on 540 images of digits, seed 0:"
    assert lines[1].endswith(f"{results['linear_top1']:.2f} %")
    assert lines[-1] == "report:  runs/digits/report.html"
    assert (tmp_path / "runs/digits/report.html").exists()

    again = run(*command, cwd=tmp_path)
    assert again.stdout == done.stdout
    other = run(*command, "--config.seed=1", cwd=tmp_path)
    assert other.returncode == 1
    assert "seed (0 there, 1 now)" in other.stderr
    assert other.stderr.count("\n") == 1
