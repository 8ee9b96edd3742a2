"""Files of others are data: no pickle is loaded, no archive unpacked, nothing in a report runs."""

import ast
import pickle

import pytest

from gensupcon_jax.errors import UserError
from gensupcon_jax.store.checkpoint import read_newest
from gensupcon_jax.weights import teachers
from gensupcon_jax.weights.files import read_file
from tests import ROOT
from tests.tiny import tiny_dataset

PACKAGE = ROOT / "gensupcon_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPACKS = ("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile")


def dangers(node):
    """What a statement or a call does that could run what came in a file."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
        return sorted({module.split(".")[0] for module in modules} & RUNS_CODE)
    if not isinstance(node, ast.Call):
        return []
    called = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    wrong = [called] if called in ("eval", "exec", *UNPACKS) or called.endswith(("extractall", "extract_all")) else []
    wrong += ["allow_pickle"] if given.get("allow_pickle", "False") != "False" else []
    return wrong + (["torch.load"] if called == "torch.load" and given.get("weights_only") != "True" else [])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import json, pickle.x", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("import json", []),
        ("eval(text)", ["eval"]),
        ("archive.extractall()", ["archive.extractall"]),
        ("shutil.unpack_archive(path)", ["shutil.unpack_archive"]),
        ("np.load(path, allow_pickle=True)", ["allow_pickle"]),
        ("np.load(path, allow_pickle=False)", []),
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
    ],
)
def test_what_is_a_danger(line, found):
    assert [danger for node in ast.walk(ast.parse(line)) for danger in dangers(node)] == found


def test_no_file_loads_pickles_or_unpacks_archives():
    assert len(FILES) > 80
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {danger}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        for danger in dangers(node)
    ]
    assert found == []


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.pt"])
def test_a_pickle_given_as_weights_is_refused_and_not_run(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UserError):
        read_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_given_as_a_teachers_program_is_refused_and_not_run(tmp_path):
    (tmp_path / "teacher").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UserError, match="cannot be read"):
        teachers.load_teacher(
            kind="stablehlo", path=tmp_path / "teacher", dataset_description=tiny_dataset().description()
        )
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_a_checkpoint_is_damage_and_not_run(tmp_path):
    record = tmp_path / "checkpoints" / "3" / "record"
    record.mkdir(parents=True)
    (record / "metadata").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        read_newest(tmp_path / "checkpoints", ("params",))
    assert not (tmp_path / "ran").exists()
