"""The public names and the command: messages, examples, and lazy imports."""

import contextlib
import doctest
import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gensupcon_jax
from gensupcon_jax import __main__, __version__, command_line, signals
from gensupcon_jax.weights.files import write_safetensors
from tests import ROOT
from tests.running import told


def test_every_public_name_exists_and_is_listed():
    assert {name for names in gensupcon_jax._MODULES.values() for name in names} | {"__version__"} == set(
        gensupcon_jax.__all__
    )
    for module, names in gensupcon_jax._MODULES.items():
        for name in names:
            assert getattr(gensupcon_jax, name) is getattr(importlib.import_module(module), name)
    assert set(gensupcon_jax.__all__) <= set(dir(gensupcon_jax))
    with pytest.raises(AttributeError, match="module 'gensupcon_jax' has no attribute 'supervised_loss'"):
        gensupcon_jax.supervised_loss  # noqa: B018


def test_the_examples_in_docstrings_are_right():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "gensupcon_jax").rglob("*.py"))
        if ">>> " in path.read_text()
    ]
    assert {"gensupcon_jax.losses", "gensupcon_jax.data.datasets"} <= set(modules)
    for module in modules:
        found = doctest.testmod(importlib.import_module(module))
        assert found.attempted > 0 and found.failed == 0, module


def test_the_command_lists_its_commands_and_its_version(capfd):
    for spelling in ("--help", "-h", "help"):
        status, printed, said = told(capfd, spelling)
        assert (status, said) == (0, "")
        assert [line.split()[0] for line in printed.splitlines() if line.startswith("  ")] == list(__main__.COMMANDS)
    assert told(capfd, "--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", ["train", "plan", "prepare", "compare", "export", "weights", "replay"])
def test_every_command_lists_what_it_takes(capfd, command):
    status, printed, said = told(capfd, command, "--help")
    assert (status, said) == (0, "")
    assert printed.startswith(f"usage: gensupcon {command} ")
    listed = {
        "train": (
            "RECIPE",
            "--config RECIPE",
            "--config.field=value",
            "--workdir FOLDER",
            "--distributed",
            "--watchdog_seconds",
        ),
        "plan": (
            "RECIPE",
            "--topology SLICES",
            "--batch_size NUMBERS",
            "--price_per_chip_hour",
            "--json FILE",
            "--image_size",
        ),
        "compare": ("RUN", "--output FILE", "--overwrite"),
        "prepare": ("RECIPE", "--workdir FOLDER", "--file_format FORMAT", "--source FOLDER", "--output FILE"),
        "export": ("SOURCE", "--output X", "--format FORMAT", "--step STEP", "--head", "--license NAME", "--overwrite"),
        "weights": ("export", "show"),
        "replay": ("WORKDIR", "--step N", "--dtype TYPE", "--device KIND", "--devices N", "status 0", "3: every value"),
    }[command]
    assert [part for part in listed if part not in printed] == []


@pytest.mark.parametrize(
    ("module", "usage"),
    [
        ("gensupcon_jax", "gensupcon COMMAND"),
        ("gensupcon_jax.main", "python -m gensupcon_jax.main"),
        ("gensupcon_jax.plan", "gensupcon plan"),
        ("gensupcon_jax.prepare", "gensupcon prepare"),
        ("gensupcon_jax.weights", "gensupcon weights"),
    ],
)
def test_every_module_that_was_a_command_still_is(capfd, monkeypatch, module, usage):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setattr(signals, "own_process", lambda training=None: None)  # this process is that of the tests
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as done:
        assert not done.code
    assert capfd.readouterr().out.startswith(f"usage: {usage} ")


def test_a_misspelled_command_is_one_line_with_a_suggestion(capfd):
    allowed = f"allowed: {', '.join(__main__.COMMANDS)}"
    assert told(capfd, "tran") == (
        1,
        "",
        f"error: 'tran' is not a command of gensupcon; did you mean train? {allowed}\n",
    )
    assert told(capfd, "x") == (1, "", f"error: 'x' is not a command of gensupcon; {allowed}\n")
    assert told(capfd) == (1, "", f"error: a command is missing; {allowed}; see gensupcon --help\n")


@pytest.mark.parametrize("arguments", [["--help"], ["weights", "show", "x.safetensors"]])
def test_a_closed_pipe_is_no_traceback(tmp_path, arguments):
    """As in `gensupcon ... | head -1`: here nobody reads from the beginning."""
    write_safetensors(
        tmp_path / "x.safetensors", {f"fc.{number}": np.ones(1, np.float32) for number in range(2000)}, {}
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "gensupcon_jax", *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")  # the status of a program that the signal ends


def test_a_training_goes_on_where_nobody_reads_what_it_says(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    unread = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", unread)
    monkeypatch.setattr(sys, "stderr", None)  # as of `2>&-`
    with command_line.unread_output_dropped():
        for _ in range(2):
            print("a line", flush=True)
        sys.stdout.write("the rest")
    assert (sys.stdout, sys.stderr) == (unread, None)
    unread.close()


def test_standard_output_on_a_full_disk_is_an_error_all_the_same(monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left"), command_line.unread_output_dropped():
            print("a line", flush=True)
        with contextlib.suppress(OSError):
            full.close()


HEAVY = ("jax", "ml_collections", "absl", "flax", "tensorflow", "orbax", "optax", "sklearn", "numpy", "matplotlib")


def imported(*programs):
    """Of HEAVY, what each of these programs has imported at its end; each in a process forked from a fresh one."""
    code = f"""
import os, sys
for program in {programs!r}:
    if os.fork():
        os.wait()
        continue
    try:
        exec(program)
    except SystemExit:
        pass
    print(" ".join(name for name in {HEAVY!r} if name in sys.modules), flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def test_what_imports_bring_along():
    package, main, losses, public = imported(
        "import gensupcon_jax",
        "import gensupcon_jax.main",
        "import gensupcon_jax.losses",
        "import gensupcon_jax as gsc; gsc.generalized_contrastive_loss, gsc.label_similarity",
    )
    assert package == main == []
    assert losses == public == ["jax", "numpy"]


def test_a_mistake_is_said_before_anything_heavy_is_imported():
    mistakes = [
        ["tran"], ["train", "digts"], ["train", "digits", "--epochs", "5"], ["train", "digits", "--config.lr=1"],
        ["train", "imagenet:supcn"], ["train", "digits", "--workdir="], ["train", "digits", "--num_processes=no"],
        ["plan", "digits"], ["plan", "digits", "--batch_size=a", "--topology=v5e:4x4"], ["prepare", "digits", "--output"],
        ["prepare", "digits", "--file_format=parquet"], ["embed", "nowhere", "x", "--output=x.npz"], ["embed", "docs", "x"],
        ["predict", "docs", "x", "--step=newest"], ["neighbors", "docs", "x"], ["neighbors", "docs", "x", "--in=y.npz"],
        ["export", "--output=x.onnx"], ["export", "docs", "--output=x", "--format=torch"], ["weights", "show"],
        ["compare"], ["compare", "runs", "--output=docs"], ["compare", "runs", "--outptu=x"],
        ["replay"], ["replay", "nowhere"], ["replay", "docs", "--dtype=float16"], ["replay", "docs", "--device=gpu"],
    ]  # fmt: skip
    programs = [f"from gensupcon_jax.__main__ import main; main({arguments!r})" for arguments in mistakes]
    allowed = {"absl", "ml_collections"}  # they read the recipe
    assert [set(found) - allowed for found in imported(*programs)] == [set()] * len(mistakes)


def test_tensorflow_is_quiet_in_every_command_that_imports_it(monkeypatch, capfd):
    for command in ("train", "prepare"):
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")  # the user's own choice stays
        told(capfd, command, "digts")
        assert (os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["TF_ENABLE_ONEDNN_OPTS"]) == ("3", "1"), command
