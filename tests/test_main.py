"""The command line, as a user types it: every mistake is one line and status 1, without a traceback."""

import json
import os
import re
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from gensupcon_jax import main
from gensupcon_jax.configs.fields import FIELDS
from gensupcon_jax.errors import UserError
from tests import ROOT


def run(*arguments, cwd=ROOT, devices=1):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "gensupcon_jax.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.loss.temprature=1"], "loss.temprature is not a field of the config; did you mean loss.temperature?"),
        (["--config.mix.kind=cutmx"], "mix.kind is 'cutmx'; allowed: none, mixup, cutmix, mixup_cutmix"),
        (["--config.loss.temperature=0"], "loss.temperature is 0.0; allowed: a number above 0"),
        (["--config.loss.temperature=warm"], "loss.temperature is 'warm'; allowed: a number above 0"),
        (["--config.batch_size=255"], "batch_size is 255, not divisible by 2 devices; set batch_size to 254 or 256, "
                                      "or use another number of devices"),
        (["--workdir", "/proc/nowhere/run"], "workdir /proc/nowhere/run cannot be written (No such file or directory); "
                                             "set --workdir to a folder that you may write"),
        (["--config.loss.temperature", "warm"], "loss.temperature is 'warm'; allowed: a number above 0"),
        (["--config.evaluate.neighbors=(1,"], "evaluate.neighbors is '(1,'; allowed: one or more in parentheses, each "
                                              "a whole number from 1"),
        (["--config.batch_size=1.5", "--config.batch_size=4"], "batch_size is '1.5'; allowed: a whole number from 1"),
        (["--config.steps", "4"], "unknown arguments 4; allowed: --config, --workdir, --config.field=value (with =)"),
        (["-config.foo=1"], "foo is not a field of the config; see configs/fields.py for all fields"),
        (["--noconfig.loss.symetric"], "loss.symetric is not a field of the config; did you mean loss.symmetric?"),
        (["--config.batch_size"], "Missing value for flag --config.batch_size"),
        (["--workdir", ""], "--workdir is ''; allowed: the path of a folder, or leave it out for runs/digits"),
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
    [
        ([], "missing"),
        (["--config.seed=1"], "missing"),
        (["--config", ""], "'', which is no file"),
        (["--config", "configs"], "configs, which is no file"),
        (["--config", "configs/nothing.py"], "configs/nothing.py, which is no file"),
    ],
)
def test_a_missing_config_is_said(arguments, found):
    done = run(*arguments)
    assert done.stderr == f"error: --config is {found}; for example --config configs/digits.py\n"
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/digits.py:foo", r"--config is configs/digits.py:foo, but its get_config takes no variant; "
                                  r"allowed: configs/digits.py, without a variant"),
        ("configs/cifar10.py:foo", r"configs/cifar10.py, line \d+: ValueError: unknown variant 'foo'; allowed: supcon, .+"),
    ],
)  # fmt: skip
def test_a_wrong_variant_is_one_line_and_status_1(tmp_path, config, message):
    done = run("--config", config, "--workdir", tmp_path / "run", "--config.seed=1")
    assert re.fullmatch(rf"error: {message}\n", done.stderr)
    assert done.returncode == 1


def test_a_broken_recipe_is_one_line_and_status_1(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config(:\n")
    done = run("--config", "mine.py", "--config.seed=1", cwd=tmp_path)
    assert done.stderr == "error: mine.py, line 1: SyntaxError: invalid syntax\n"
    assert done.returncode == 1


def test_an_override_before_its_recipe_is_said():
    done = run("--config.seed=1", "--config", "configs/digits.py")
    assert done.stderr == "error: Found --config.seed=1 in argv before a value for --config was specified\n"
    assert done.returncode == 1


def test_help_is_given():
    done = run("--help")
    assert "--config: Recipe, for example configs/digits.py." in done.stdout
    assert "--workdir: Folder of this run" in done.stdout
    assert done.stderr == ""


START = "from gensupcon_jax.configs import common\ndef get_config():\n    c = common.get_config()\n"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("def get_config(:\n", ", line 1: SyntaxError: invalid syntax"),
        ("import math\nx = (1,\n", ", line 2: SyntaxError: '(' was never closed"),
        ("if True:\npass\n", ", line 2: IndentationError: expected an indented block after 'if' statement on line 1"),
        ("\nimport nowhere_at_all\n", ", line 2: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("from gensupcon_jax.configs import nothing\n", ", line 1: ImportError: cannot import name 'nothing' from 'configs'"),
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
def test_a_mistake_in_a_recipe_is_said_with_its_line(tmp_path, recipe, message):
    path = tmp_path / "mine.py"
    path.write_text(recipe)
    with pytest.raises(UserError) as error:
        main.read_recipe(str(path))
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_a_recipe_that_needs_a_variant_says_so(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config(variant):\n    return 5\n")
    with pytest.raises(UserError) as error:
        main.read_recipe(str(path))
    assert str(error.value) == f"--config is {path}, but its get_config needs a variant; allowed: {path}:<variant>"


def test_a_recipe_is_read_and_locked_with_its_variant():
    config = main.read_recipe(f"{ROOT}/configs/cifar10.py:supcon")
    assert type(config) is ConfigDict
    assert config.is_locked
    assert config.mix.kind == "none"
    assert main.read_recipe(f"{ROOT}/configs/cifar10.py").mix.kind == "mixup_cutmix"


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
