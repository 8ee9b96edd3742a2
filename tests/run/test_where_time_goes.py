"""Real processes: the account of a run's time adds up, also after a kill, and a profile holds our names and steps."""

import gzip
import json
import os
import re
import subprocess
import time

import jax
import pytest

from gensupcon_jax.phases import PHASES
from gensupcon_jax.run import train
from gensupcon_jax.run.profiled_steps import wanted_steps
from tests import QUICK_COMPILES, ROOT, running
from tests.tiny import tiny_config, tiny_dataset


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.mark.slow
def test_the_account_adds_up_to_the_time_of_the_process_and_a_profile_holds_scopes_and_steps(tmp_path):
    folder = tmp_path / "run"
    command = running.command(folder, {"loss.mode": "momentum"}, ["--profile", "5:7"])
    environment = os.environ | {"XLA_FLAGS": QUICK_COMPILES}
    started = time.time()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    account = read(folder, "results.json")["time"]
    passed = (folder / "results.json").stat().st_mtime - started
    assert account["wall"] == pytest.approx(passed, rel=0.01, abs=0.05)
    assert sum(account["seconds"].values()) == pytest.approx(account["wall"], rel=1e-9)
    assert list(account["seconds"]) == list(PHASES)
    measured = ("import", "data", "compile", "step", "save", "final_evaluation", "report")
    assert all(account["seconds"][phase] > 0 for phase in measured)
    assert account["seconds"]["lost"] == 0
    assert account["seconds"]["other"] < 0.05 * account["wall"]
    assert 0 < account["step_seconds"]["p50"] <= account["step_seconds"]["p95"] <= account["step_seconds"]["max"]
    assert "time:    " in done.stdout
    assert f"profile of steps 5 to 7: {folder / 'profile'} (written in " in done.stderr
    _check_profile(folder)


def _check_profile(folder):
    (shown,) = folder.glob("profile/plugins/profile/*/*.trace.json.gz")
    events = json.loads(gzip.decompress(shown.read_bytes()))["traceEvents"]
    steps = [
        event["args"]["step_num"] for event in events if event.get("name") == "train" and "step_num" in event["args"]
    ]
    assert steps == ["5", "6", "7"]
    assert "input_wait" in {event.get("name") for event in events}
    assert scopes_of(folder) >= {"augment", "mix", "HeadedEncoder", "ema", "key_encoder", "loss", "optimizer", "guard"}


def scopes_of(folder):
    """Of the operations in the programs that the profile holds; on a CPU the events do not repeat them."""
    (programs,) = folder.glob("profile/plugins/profile/*/*.xplane.pb")
    named = re.findall(rb"jit\([\w<>]+\)/[\x20-\x7e]+", programs.read_bytes())
    return {scope for name in named for scope in re.split(r"[/()]", name.decode())}


@pytest.mark.slow
def test_a_profile_holds_every_scope_that_the_page_names(tmp_path):
    page = (ROOT / "docs" / "performance.md").read_text()
    (sentence,) = re.findall(r"carry the scopes of the step: (.*?)\.\s", page, re.DOTALL)
    named = re.findall(r"`([\w/]+)`", sentence)
    assert len(named) == 11 and {"queue", "teacher", "update/guard"} <= set(named)
    changes = {"loss.mode": "momentum", "momentum_encoder.queue_size": 64, "teacher.kind": "callable"}
    config = tiny_config(**changes, **{"teacher.allow_poor": True, "steps": 4, "evaluate.every_epochs": 0.0})
    train.train_and_evaluate(
        config,
        tmp_path,
        tiny_dataset(),
        devices=jax.devices()[:1],
        teacher_fn=lambda images: images.reshape(len(images), -1)[:, :4],
        launch=train.Launch(writes_report=False, profile=wanted_steps("3:4")),
    )
    assert {part for scope in named for part in scope.split("/")} - scopes_of(tmp_path) == set()


@pytest.mark.slow
def test_after_a_kill_the_account_has_both_starts_and_the_lost_steps(tmp_path):
    changes = {"steps": 600}
    first = running.start(tmp_path, changes)
    try:
        running.wait_for(lambda: (tmp_path / "time.json").exists() and (reached(tmp_path) or 0) > 20)
    finally:
        first.kill()
        first.communicate()
    killed_at = reached(tmp_path)
    ((status, _, said),) = running.ended([running.start(tmp_path, changes)])
    assert status == 0, said
    account = read(tmp_path, "results.json")["time"]
    assert account["starts"] == 2
    assert account["seconds"]["lost"] > 0
    assert sum(account["seconds"].values()) == pytest.approx(account["wall"], rel=1e-9)
    starts = read(tmp_path, "time.json")["starts"]
    assert [(each["first_step"], each["last_step"]) for each in starts] == [(0, killed_at), (0, 600)]


def reached(folder):
    return read(folder, "time.json")["starts"][-1]["last_step"]


def test_steps_that_the_run_does_not_take_are_one_line_before_anything_is_compiled(tmp_path, capfd):
    arguments = [
        "--config",
        "configs/digits.py",
        "--workdir",
        tmp_path / "run",
        *running.fields({"mix.block": 4}),
        "--profile",
        "12:13",
    ]
    status, printed, said = running.told(capfd, "train", *arguments)
    assert (status, printed) == (1, "")
    assert said.splitlines()[-1] == "error: --profile is 12:13; allowed: this start takes the steps 1 to 12"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_value_that_is_no_steps_is_one_line(capfd):
    status, _, said = running.told(capfd, "train", "digits", "--profile", "last")
    assert status == 1
    assert "is 'last'; allowed: a number of steps, such as 5, or the first and the last step, such as 20:25" in said
