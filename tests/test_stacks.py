"""Every supported Python that is found runs the quick tests, and missing ones are listed."""

import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests import ROOT

STACKS, VERSION_CHECK = ROOT / ".ci" / "stacks", ROOT / ".ci" / "python_version.py"


def program(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


def run_stacks(tmp_path, on_path, of_pyenv, status=0):
    """(status, stdout, stderr, what make was called with) where these Pythons, and no others, are installed."""
    for name, version in on_path.items():
        program(tmp_path / "bin" / name, f"echo {version}")
    for name, version in of_pyenv.items():
        program(tmp_path / "pyenv" / "versions" / name / "bin" / "python", f"echo {version}")
    program(tmp_path / "bin" / "make", f'echo "$@" >> {tmp_path}/calls\nexit {status}')
    environment = {"PATH": f"{tmp_path / 'bin'}:{tmp_path / 'tools'}", "PYENV_ROOT": str(tmp_path / "pyenv")}
    (tmp_path / "tools").mkdir()
    for tool in ("bash", "dirname", "env"):
        (tmp_path / "tools" / tool).symlink_to(shutil.which(tool))
    done = subprocess.run([STACKS], env=environment, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
    return done.returncode, done.stdout, done.stderr, calls


def test_the_others_run_the_quick_tests_in_environments_of_their_own(tmp_path):
    on_path = {"python3": "3.11", "python3.11": "3.11", "python3.12": "3.12"}
    status, stdout, said, calls = run_stacks(tmp_path, on_path, {"3.13.0": "3.13", "3.9.1": "3.9"})
    assert (status, stdout, said) == (0, "", "")
    assert calls == [
        "--no-print-directory quick PYTHON=python3.12 VENV=.venv-3.12",
        f"--no-print-directory quick PYTHON={tmp_path}/pyenv/versions/3.13.0/bin/python VENV=.venv-3.13",
    ]


def test_missing_pythons_are_listed(tmp_path):
    # pyenv's shim of a python3.12 that is not selected: it exists, but does not start.
    program(tmp_path / "bin" / "python3.12", "exit 127")
    status, stdout, _, calls = run_stacks(tmp_path, {"python3": "3.13"}, {})
    assert (status, stdout, calls) == (0, "not on this machine, and not tested: Python 3.11 3.12\n", [])


def test_a_failure_on_one_of_them_fails_after_all_have_run(tmp_path):
    status, _, said, calls = run_stacks(
        tmp_path, {"python3": "3.11", "python3.12": "3.12", "python3.13": "3.13"}, {}, 2
    )
    assert (status, said, len(calls)) == (1, "error: the quick tests failed on Python 3.12 3.13\n", 2)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ((3, 10, 2), "Python 3.11, 3.12 or 3.13 is needed; found 3.10.2. Say which one to use: make PYTHON=python3.12"),
        ((3, 14, 0), "Python 3.11, 3.12 or 3.13 is needed; found 3.14.0. The package without its extra `tensorflow` may run on "
                     "newer ones: pip install . Say which one to use: make PYTHON=python3.12"),
    ],
)  # fmt: skip
def test_an_unsupported_python_is_an_error_before_anything_is_installed(monkeypatch, version, message):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr("platform.python_version", lambda: ".".join(map(str, version)))
    with pytest.raises(SystemExit, match="is needed") as refused:
        runpy.run_path(str(VERSION_CHECK))
    assert str(refused.value) == message


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_a_supported_python_is_accepted(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    assert runpy.run_path(str(VERSION_CHECK))["FIRST"] == (3, 11)


def test_what_is_tested_is_what_may_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert "for version in 3.11 3.12 3.13; do" in STACKS.read_text()
