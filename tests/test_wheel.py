"""A built wheel: it contains all files of the source tree, and trains from an unrelated folder."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

import gensupcon_jax
from tests import QUICK_COMPILES, ROOT
from tests.running import fields

# Builds without a network where the extra `test` brought a setuptools that is new enough; else pip fetches one.
OFFLINE = ["--no-build-isolation"] if int(importlib.metadata.version("setuptools").split(".")[0]) >= 77 else []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: what an earlier build left in the source tree would be in it too."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("gensupcon_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", *OFFLINE]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel's files alone, as an installation has them."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_every_file_of_the_source_tree_is_in_the_wheel(wheel):
    def files(folder, place):
        return {
            f"{place}/{path.relative_to(folder).as_posix()}"
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = files(ROOT / "gensupcon_jax", "gensupcon_jax")
    recipes = files(ROOT / "configs", "gensupcon_jax/configs")
    assert packed == package | recipes
    assert {"gensupcon_jax/py.typed", "gensupcon_jax/report/template.html", "gensupcon_jax/configs/digits.py"} <= packed


def test_the_wheel_has_the_version_of_the_package_and_its_command(wheel):
    assert wheel.name == f"gensupcon_jax-{gensupcon_jax.__version__}-py3-none-any.whl"
    entry_points = zipfile.ZipFile(wheel).read(f"gensupcon_jax-{gensupcon_jax.__version__}.dist-info/entry_points.txt")
    assert entry_points.decode().split() == ["[console_scripts]", "gensupcon", "=", "gensupcon_jax.__main__:main"]


@pytest.mark.slow
@pytest.mark.parametrize("own_configs", [False, True], ids=["an empty folder", "a folder with its own configs"])
def test_it_trains_from_anywhere(installed, tmp_path, own_configs):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if own_configs:
        (folder / "configs").mkdir()
        (folder / "configs/__init__.py").write_text("raise ImportError('configs of somebody else')\n")
        (folder / "digits.py").write_text("raise ImportError('digits of somebody else')\n")
    environment = {**os.environ, "PYTHONPATH": str(installed), "XLA_FLAGS": QUICK_COMPILES}
    script = (
        "import sys, gensupcon_jax; from gensupcon_jax.configs import digits; from gensupcon_jax.__main__ import main;"
        "print(gensupcon_jax.__file__); print(digits.__file__); sys.exit(main())"
    )
    command = [sys.executable, "-c", script, "train", "digits", *fields({"steps": 4})]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    package, recipe, *_, last = done.stdout.splitlines()
    assert package == f"{installed}/gensupcon_jax/__init__.py"
    assert recipe == f"{installed}/gensupcon_jax/configs/digits.py"
    assert last == "report:  runs/digits/report.html"
    assert (folder / "runs/digits/report.html").stat().st_size > 30_000
