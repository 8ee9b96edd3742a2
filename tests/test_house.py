"""The house: imports go down only, configs import nothing of the package, every file says its purpose."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gensupcon_jax"
FLOORS = {
    "plan": 13,
    "prepare": 13,
    "main": 12,
    "train": 11,
    "initial": 10,
    "assemble": 9,
    "config_check": 9,
    "teachers": 8,
    "weights": 7,
    "train_step": 7,
    "summary": 7,
    "runs": 5,
    "objectives": 6,
    "evaluate": 6,
    "checkpoint": 1,
    "report": 5,
    "check_table": 7,
    "checking": 6,
    "fetching": 5,
    "datasets": 5,
    "conversion": 4,
    "encoded_sets": 4,
    "folders": 3,
    "tfds_sets": 3,
    "inspection": 3,
    "input_pipeline": 2,
    "listing": 2,
    "advice": 1,
    "progress": 1,
    "workdir": 1,
    "state": 1,
    "augment": 1,
    "mixing": 1,
    "diagnostics": 1,
    "decoding": 1,
    "headers": 1,
    "arrays": 1,
    "fashion_mnist": 0,
    "cache": 0,
    "cuts": 0,
    "splits": 0,
    "cpu_flags": 0,
    "policies": 0,
    "losses": 0,
    "queue": 0,
    "durations": 0,
    "optimizer": 0,
    "sharding": 0,
    "stopping": 1,
    "processes": 0,
    "watchdog": 1,
    "divergence": 8,
    "models": 0,
    "paths": -1,
    "errors": -2,
    "__init__": -1,
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path):
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "gensupcon_jax" and len(parts) > 1:
            yield "__init__" if parts[1].startswith("__") else parts[1]


def room(path):
    return path.parent.name if path.parent.name in ("models", "report", "plan") else path.stem


PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    own = room(path)
    for other in rooms_imported(path):
        assert other == own or FLOORS[other] < FLOORS[own], f"{own} imports {other}, which is not on a lower floor"


def test_every_room_has_a_floor():
    assert {room(path) for path in PYTHON_FILES} == set(FLOORS)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_configs_import_nothing_of_the_package(path):
    tops = {name.split(".")[0] for name in imported_modules(path)}
    assert tops <= {"configs", "ml_collections"}


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_line_says_the_purpose(path):
    assert path.read_text().removeprefix("r").startswith('"""')


def test_few_rooms_know_the_config():
    knowing = {
        room(path)
        for path in PYTHON_FILES
        if re.search(r"import ConfigDict|import ml_collections$", path.read_text(), re.MULTILINE)
    }
    assert knowing == {"train", "assemble", "config_check", "runs", "plan"}
