"""The command line: every error is one line with status 1, without a traceback."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from gensupcon_jax import main
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.errors import UserError
from gensupcon_jax.run import recipes
from tests import ROOT
from tests.running import told


@pytest.fixture
def fails(capfd, monkeypatch):
    """Asserts that a command, in this process and in the repository's folder, ends with these lines and status 1."""

    def fails(*arguments, message, cwd=ROOT):
        monkeypatch.chdir(cwd)
        assert told(capfd, *arguments) == (1, "", "".join(f"error: {line}\n" for line in message.splitlines()))

    return fails


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.loss.temprature=1"], "loss.temprature is not a field of the config; did you mean loss.temperature?"),
        (["--config.lr=1"], "lr is not a field of the config; did you mean optimizer.learning_rate?"),
        (["--config.optimizer.lr=1"], "optimizer.lr is not a field of the config; did you mean optimizer.learning_rate?"),
        (["--config.symmetric=1"], "symmetric is not a field of the config; did you mean loss.symmetric?"),
        (["--config.mix=cutmix"], "mix is not a field of the config; it is a group of fields: mix.kind, mix.alpha, mix.per, "
                                  "mix.views, mix.block"),
        (["--config.mix.kind=cutmx"], "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix"),
        (["--config.loss.temperature=0"], "loss.temperature is 0.0; allowed: a number above 0"),
        (["--config.loss.temperature=warm"], "loss.temperature is 'warm'; allowed: a number above 0"),
        (["--config.batch_size=255"], "batch_size is 255, not divisible by 8 devices; set batch_size to 248 or 256, "
                                      "or use another number of devices"),
        (["--workdir", "/proc/nowhere/run"], "workdir /proc/nowhere/run cannot be written (No such file or directory); "
                                             "set --workdir to a folder that you may write"),
        (["--config.loss.temperature", "warm"], "loss.temperature is 'warm'; allowed: a number above 0"),
        (["--config.evaluate.neighbors=(1,"], "evaluate.neighbors is '(1,'; allowed: one or more in parentheses, each "
                                              "a whole number from 1"),
        (["--config.batch_size=1.5", "--config.batch_size=4"], "batch_size is '1.5'; allowed: a whole number from 1"),
        (["now"], "unknown arguments now; allowed: --config, --workdir, --weights, --config.field=value"),
        (["-config.foo=1"], "foo is not a field of the config; see configs/fields.py for all fields"),
        (["--noconfig.loss.symetric"], "loss.symetric is not a field of the config; did you mean loss.symmetric?"),
        (["--config.batch_size"], "Missing value for flag --config.batch_size"),
        (["--workdir"], "Missing value for flag --workdir"),
        (["--workdir", ""], "--workdir is ''; allowed: the path of a folder, or leave it out for runs/digits"),
        (["--wrkdir", "x"], "--wrkdir is not a flag of gensupcon train; did you mean --workdir?"),
        (["--epochs", "5"], "--epochs is not a flag of gensupcon train; did you mean --config.epochs=5?"),
        (["--lr=0.1"], "--lr is not a flag of gensupcon train; did you mean --config.optimizer.learning_rate=0.1?"),
        (["--batch-size", "64"], "--batch-size is not a flag of gensupcon train; did you mean --config.batch_size=64?"),
        (["--momentum=0"], "--momentum is not a flag of gensupcon train; did you mean --config.momentum_encoder.momentum=0 "
                           "or --config.optimizer.momentum=0?"),
        (["--frobnicate"], "--frobnicate is not a flag of gensupcon train; see gensupcon train --help"),
        (["--num-processes=0"], "--num_processes is '0'; allowed: a whole number from 1"),
        (["--stopped_status=256"], "--stopped_status is '256'; allowed: a whole number from 0 to 255"),
        (["--watchdog_seconds", "soon"], "--watchdog_seconds is 'soon'; allowed: a number from 0"),
        (["--distributed=maybe"], "--distributed takes no value"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_and_status_1(tmp_path, fails, arguments, message):
    workdir = ["--workdir", tmp_path / "run"] if "--workdir" not in arguments else []
    fails("train", "digits", *workdir, *arguments, message=message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing; for example --config digits"),
        (["--config.seed=1"], "--config is missing; for example --config digits"),
        (["--config", ""], "--config is '', which is not a file; for example --config digits"),
        (["--config", "configs/nothing.py"], "--config is configs/nothing.py, which is not a file; for example --config digits"),
        (["--config", "elsewhere/imagenet.py"], "--config is elsewhere/imagenet.py, which is not a file; did you mean "
                                                "--config imagenet?"),
        (["sources"], "--config is sources, which is not a file, a folder or a recipe; allowed: cifar10, cifar100, "
                      "cifar100_coarse, cifar100_lt, common, digit_pairs, digits, fashion_mnist, imagenet, photos, "
                      "rotated_digits, the path of a file, or a folder of images"),
        (["imagnet:supcon"], "--config is imagnet, which is not a file, a folder or a recipe; did you mean imagenet? allowed: "
                             "cifar10, cifar100, cifar100_coarse, cifar100_lt, common, digit_pairs, digits, fashion_mnist, "
                             "imagenet, photos, rotated_digits, the path of a file, or a folder of images"),
        (["digits", "--config", "cifar10"], "both the recipe digits and --config cifar10 are given; leave one of them out"),
        (["digits:foo"], "--config is digits:foo, but its get_config takes no variant; allowed: digits, without a variant"),
        (["--config", "configs/digits.py:foo"], "--config is configs/digits.py:foo, but its get_config takes no variant; "
                                                "allowed: configs/digits.py, without a variant"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_one_line_and_status_1(fails, arguments, message):
    fails("train", *arguments, message=message)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/cifar10.py:supcn", r"configs/cifar10.py, line \d+: ValueError: unknown variant 'supcn'; did you mean supcon\? "
                                     r"allowed: supcon, .+"),
        ("cifar10:foo", r"cifar10, line \d+: ValueError: unknown variant 'foo'; allowed: supcon, .+"),
    ],
)  # fmt: skip
def test_a_wrong_variant_is_one_line_and_status_1(capfd, monkeypatch, config, message):
    monkeypatch.chdir(ROOT)
    status, printed, said = told(capfd, "train", "--config", config, "--config.seed=1")
    assert (status, printed) == (1, "")
    assert re.fullmatch(rf"error: {message}\n", said)


def test_a_broken_recipe_is_one_line_and_status_1(tmp_path, fails):
    (tmp_path / "mine.py").write_text("def get_config(:\n")
    fails("train", "mine.py", "--config.seed=1", cwd=tmp_path, message="mine.py, line 1: SyntaxError: invalid syntax")


def test_data_in_place_of_a_recipe_are_one_line_and_status_1(tmp_path, fails):
    np.savez(tmp_path / "own.npz", images=np.zeros(3))
    message = "--config is own.npz, which holds arrays; allowed: a recipe, for example --config digits; on the arrays: --config "
    fails("train", "own.npz", cwd=tmp_path, message=f"{message}common --config.dataset.name=arrays:own.npz")
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    message = (
        "--config is cat.png, which is no text; allowed: a recipe, for example --config digits, a folder of images, "
    )
    message += "<folder>/<class>/<image>, or a list of images (.csv, .tsv, .parquet)"
    fails("train", "cat.png", cwd=tmp_path, message=message)


def test_two_real_processes_report_an_error_in_one_line(tmp_path):
    """Two of the errors above: one found before jax is imported, and one found by the run."""
    for command, message in (
        (["gensupcon_jax.main", "--config", "configs/digits.py", "--config.sed=1"],
         "sed is not a field of the config; did you mean seed?"),
        (["gensupcon_jax", "train", "digits", "--workdir=/proc/nowhere/run"],
         "workdir /proc/nowhere/run cannot be written (No such file or directory); set --workdir to a folder that you may write"),
    ):  # fmt: skip
        done = run(*command)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {message}\n")


def run(*arguments, cwd=ROOT):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_overrides_may_be_anywhere_with_or_without_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = main.parse(
        ["--config.seed=3", "--config.steps", "4", "--config", "digits", "--config.loss.symmetric",
         "--config.batch_size", "64", "--noconfig.dataset.skip_damaged", "-config.evaluate.neighbors=(1, 3)"]
    )  # fmt: skip
    config = options.config
    assert (config.seed, config.steps, config.batch_size, config.epochs) == (3, 4, 64, 120.0)
    assert (config.loss.symmetric, config.dataset.skip_damaged) == (True, False)
    assert config.evaluate.neighbors == (1, 3)
    assert config.is_locked
    assert options.workdir == "runs/digits"


def test_flags_are_accepted_in_all_usual_spellings():
    several = ["--coordinator-address=h:1", "-num_processes", "2", "--process_id=1", "--verbosity", "-2"]
    options = main.parse(["digits", *several, "--distributed=true", "--workdir=w"])
    assert (options.coordinator_address, options.num_processes, options.process_id) == ("h:1", 2, 1)
    assert (options.distributed, options.workdir, options.verbosity) == (True, "w", -2)
    assert (options.join_timeout, options.watchdog_seconds, options.stopped_status) == (50.0, 1800.0, 0)
    assert (options.watchdog_evaluation_seconds, options.watchdog_saving_seconds) == (21600.0, 3600.0)
    assert options.watchdog_report_seconds == 3600.0
    for off in ("--nodistributed", "--distributed=false"):
        assert main.parse(["digits", "--distributed", off]).distributed is False


def test_a_bare_name_is_a_recipe_of_the_package_and_a_path_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet.py").write_text(START + "    c.batch_size = 7\n    return c\n")
    (tmp_path / "digits").write_text("this is not Python")
    assert main.parse(["imagenet:supcon"]).config.dataset.name == "tfds:imagenet2012"
    assert main.parse(["--config", "imagenet.py"]).config.batch_size == 7
    assert main.parse(["digits"]).config.dataset.name == "digits"
    assert main.parse(["imagenet:supcon"]).workdir == "runs/imagenet_supcon"
    assert main.parse([f"{ROOT}/configs/cifar10.py:supcon"]).workdir == "runs/cifar10_supcon"


START = "from gensupcon_jax.configs import common\ndef get_config():\n    c = common.get_config()\n"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("def get_config(:\n", ", line 1: SyntaxError: invalid syntax"),
        ("import math\nx = (1,\n", ", line 2: SyntaxError: '(' was never closed"),
        ("if True:\npass\n", ", line 2: IndentationError: expected an indented block after 'if' statement on line 1"),
        ("\nimport nowhere_at_all\n", ", line 2: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("from gensupcon_jax.configs import nothing\n", ", line 1: ImportError: cannot import name 'nothing' from"),
        ("x = 1\n", " has no function get_config; allowed: a recipe like configs/digits.py"),
        ("get_config = 5\n", " has no function get_config; allowed: a recipe like configs/digits.py"),
        ("def get_config():\n    return 5\n", ": get_config returned 5 (int); allowed: the ConfigDict of common.get_con"),
        ("def get_config():\n    return {}\n", ": get_config returned {} (dict); allowed: the ConfigDict"),
        ("def get_config():\n    pass\n", ": get_config returned None (NoneType); allowed: the ConfigDict"),
        ("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n",
         f": get_config leaves out {len(FIELDS)} fields, first objective; start from common.get_config()"),
        (START + "    c.mx.kind = 'cutmix'\n    return c\n",
         ", line 4: AttributeError: 'mx' Did you mean \"mix\" instead of \"mx\"?"),
        (START + "    c.batch_size = 'many'\n    return c\n",
         ", line 4: TypeError: Could not override field 'batch_size' (reference). many is of original type <class 'str'>"),
        (START + "    c['nothing']\n    return c\n", ", line 4: KeyError: 'nothing'"),
        (START + "    open('nothing.txt')\n", ", line 4: FileNotFoundError: [Errno 2] No such file or directory: 'noth"),
        (START + "    raise ValueError('two\\nlines')\n", ", line 4: ValueError: two lines"),
        ("from ml_collections.config_dict import placeholder\n" + START
         + "    del c.seed\n    c.seed = placeholder(int, required=True)\n    return c\n",
         ": RequiredValueError: None value found in required reference"),
        (START + "    assert c.seed\n", ", line 4: AssertionError"),
    ],
)  # fmt: skip
def test_an_error_in_a_recipe_is_reported_with_its_line(tmp_path, recipe, message):
    path = tmp_path / "mine.py"
    path.write_text(recipe)
    with pytest.raises(UserError) as error:
        recipes.read_recipe(str(path))
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_a_missing_variant_of_a_recipe_is_an_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config(variant):\n    return 5\n")
    with pytest.raises(UserError) as error:
        recipes.read_recipe(str(path))
    assert str(error.value) == f"--config is {path}, but its get_config needs a variant; allowed: {path}:<variant>"


def test_a_recipe_is_read_and_locked_with_its_variant():
    config = recipes.read_recipe(f"{ROOT}/configs/cifar10.py:supcon")
    assert type(config) is ConfigDict
    assert config.is_locked
    assert config.mix.kind == "none"
    assert recipes.read_recipe(f"{ROOT}/configs/cifar10.py").mix.kind == "mixup_cutmix"


SHORT = [
    "--config.steps=4", "--config.log_steps=2", "--config.batch_size=64", "--config.model.width=4",
    "--config.mix.block=8", "--config.evaluate.probe_penalties=(0.1,)", "--config.evaluate.every_epochs=0",
]  # fmt: skip


@pytest.mark.slow
def test_the_digits_run_from_the_command_line_and_a_second_time(tmp_path, monkeypatch, capfd):
    done = run("gensupcon_jax.main", "--config", ROOT / "configs/digits.py", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "step 4/4" in done.stderr  # plain lines, as the output is not a terminal
    assert "\r" not in done.stderr
    results = json.loads((tmp_path / "runs/digits/results.json").read_text())  # the default workdir
    lines = done.stdout.splitlines()
    assert lines[0] == "test accuracy on 540 images of digits, seed 0:"
    assert lines[1].endswith(f"{results['linear_top1']:.2f} %")
    assert lines[-1] == "report:  runs/digits/report.html"
    assert "python -m gensupcon_jax.main --config" in (tmp_path / "runs/digits/report.html").read_text()

    monkeypatch.chdir(tmp_path)
    again = told(capfd, "train", "digits", *SHORT)  # the same run by its other name
    assert again[:2] == (0, done.stdout)
    status, printed, said = told(capfd, "train", "digits", *SHORT, "--config.seed=1")
    assert (status, printed) == (1, "")
    assert "seed (0 there, 1 now)" in said
    assert said.count("\n") == 1


def test_wandb_is_enabled_by_a_flag_and_named_if_it_is_missing(tmp_path, fails, monkeypatch):
    monkeypatch.setattr("gensupcon_jax.store.writers.find_spec", lambda name: None)
    message = "the writer wandb needs the package wandb; install it with: pip install wandb"
    fails("train", "digits", "--wandb", "--workdir", tmp_path / "run", message=message)
    assert not (tmp_path / "run").exists()
